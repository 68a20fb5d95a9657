"""A decoder block on the kernels: right ones are bit-equal to the oracle's block, wrong ones are found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import pytest

from loadsparse.gpu import kernels
from loadsparse.gpu.llm import run_block
from loadsparse.gpu.verify.errors import InputError
from loadsparse.reference import llm

RIGHT = kernels.get("lscd")


@pytest.fixture
def model(tmp_path: Path) -> llm.Model:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_files.tiny_model())
    return llm.pruned(llm.load(path)[0], 0.6)


@pytest.mark.parametrize("kernel", ["lscd", "dense"])
def test_a_block_on_a_kernel(model: llm.Model, kernel: str) -> None:
    x = model.embedding[40:45]
    run = run_block(model, 1, x, kernel)
    assert run.ok
    assert run.exact
    assert [p.name for p in run.products] == [f"blk.1.{name}" for name in llm.MATRICES]
    assert [p.shape for p in run.products][-2:] == [(48, 5, 32), (32, 5, 48)]
    assert all(p.instructions > 0 and p.bytes_a > 0 for p in run.products)
    assert 0 < run.error < 2**-8  # 16-bit products of two layers; float32 would give 1e-7


class Disordered:
    """The right product, but not in the order that it declares."""

    name = "lscd"

    @staticmethod
    def encode(a: np.ndarray) -> Any:
        return RIGHT.encode(a)

    @staticmethod
    def plan(encoded: Any, b: np.ndarray, arch: str = "sm_80") -> Any:
        launch = RIGHT.plan(encoded, b, arch=arch)
        return dataclasses.replace(launch, splits=((0, 16), (16, launch.shape[2])))


class Forgetful(Disordered):
    """One row of the weights is lost."""

    @staticmethod
    def encode(a: np.ndarray) -> Any:
        return RIGHT.encode(np.vstack([a[:1] * 0, a[1:]]))

    plan = staticmethod(RIGHT.plan)


@pytest.mark.parametrize("wrong", [Disordered, Forgetful])
def test_a_wrong_kernel_is_found(model: llm.Model, monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(kernels, "get", lambda name: wrong)
    run = run_block(model, 0, model.embedding[40:60], "lscd")
    assert not run.ok
    assert any(product.exact is False for product in run.products)
    if wrong is Forgetful:  # a last bit out of order may round away again inside of the block
        assert not run.exact
        assert not any(product.accurate for product in run.products)


def test_what_cannot_run_is_named(model: llm.Model) -> None:
    x = model.embedding[40:45]
    for arguments, message in (
        ((7, x), "no block 7"),
        ((0, x, "magic"), "unknown kernel 'magic'"),
        ((0, x, "grouped_lscd"), "multiplies experts"),
        ((0, x * np.float32(np.inf)), "float16 cannot hold"),
    ):
        with pytest.raises(InputError, match=message), np.errstate(all="ignore"):
            run_block(model, *arguments)
