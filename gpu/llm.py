"""A decoder block of a language model with all its matrix products on a kernel of this project, judged one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu import kernels
from loadsparse.gpu.verify import execute
from loadsparse.gpu.verify.errors import InputError
from loadsparse.gpu.verify.judge import Oracles, judge
from loadsparse.reference import llm

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """One matrix product of the block, as `verify` would judge it; instructions are warp instructions, counted."""

    name: str
    shape: tuple[int, int, int]
    exact: bool | None
    accurate: bool
    clean: bool | None
    complete: bool
    instructions: int
    bytes_a: int

    @property
    def ok(self) -> bool:
        return self.exact is not False and self.accurate and self.clean is not False and self.complete


@dataclass(frozen=True)
class BlockRun:
    """The block's output float32[T, H] by the kernel, its products, and how it compares.

    exact: the output equals, in every bit, that of the NumPy block whose products come from the Tensor Core oracle.
    error: largest difference to the block in float32 throughout, over the largest output: what 16-bit inputs and
    outputs of the products cost.
    """

    output: Floats
    products: tuple[Product, ...]
    exact: bool
    error: float

    @property
    def ok(self) -> bool:
        return self.exact and all(product.ok for product in self.products)


def run_block(model: llm.Model, index: int, x: Floats, kernel: str = "lscd", arch: str = "sm_80") -> BlockRun:
    """Block `index` of the model on hidden states x [T, H]: each W x^T is planned, simulated with every check and
    judged; norms, attention and the gate stay in NumPy. Weights and inputs of a product are rounded to float16.

    Raises InputError for an unknown kernel or block, and where a value does not fit into float16.
    """
    if not 0 <= index < len(model.blocks):
        raise InputError(f"there is no block {index}: the model has 0 to {len(model.blocks) - 1}")
    if kernel in kernels.GROUPED:
        raise InputError(f"{kernel} multiplies experts, of which this block has none: choose {kernel.split('_')[1]}")
    try:
        chosen = kernels.get(kernel)
    except ValueError as error:
        raise InputError(str(error)) from None
    products: list[Product] = []
    oracles: dict[str, Oracles] = {}

    def simulated(name: str, weights: Floats, inputs: Floats) -> Floats:
        a, b = _half(name, weights), _half(f"the input of {name}", inputs.T)
        encoded = chosen.encode(a)
        try:
            launch = chosen.plan(encoded, b, arch=arch)
        except ValueError as error:
            raise InputError(f"{kernel} on {name}: {error}") from None
        declared: dict[str, Any] = {"semantics": launch.semantics, "algorithm": launch.algorithm}
        declared |= {"arch": launch.arch, "splits": launch.splits}
        done = execute.run(launch)
        verdict = judge(done.c, a, b, **declared)
        count = int(done.metrics["smsp__inst_executed.sum"])
        products.append(
            Product(
                name, launch.shape, verdict.exact, verdict.accurate, done.clean, done.complete, count, encoded.nbytes
            )
        )
        oracles[name] = Oracles(launch.in_format, "f16", **declared)
        return done.c.T.astype(np.float32)

    def exact(name: str, weights: Floats, inputs: Floats) -> Floats:
        product: Floats = oracles[name].exact(_half(name, weights), _half(name, inputs.T)).T.astype(np.float32)
        return product

    output = model.block(index, x, simulated)
    expected = model.block(index, x, exact)
    plain = model.block(index, x)
    difference = float(np.abs(output - plain).max() / np.abs(plain).max())
    return BlockRun(output, tuple(products), bool(np.array_equal(output, expected)), difference)


def _half(name: str, values: Floats) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, dtype=np.float16)
    if not np.isfinite(rounded).all():
        raise InputError(f"{name} holds {np.abs(values).max():.4g}, which float16 cannot hold")
    return rounded
