"""From a request's kernel to machine code, through two caches: this process and the disk."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass

import llvmlite.binding as llvm

from loadsparse.gpu.simulator.engine import cache, jit, mma_usual, runtime
from loadsparse.gpu.simulator.engine.blocks import is_barrier, is_warp_sync
from loadsparse.gpu.simulator.engine.ir import Unsupported
from loadsparse.gpu.simulator.engine.layout import NARROW
from loadsparse.gpu.simulator.engine.memory import orders_by_atomics, strength
from loadsparse.gpu.simulator.engine.mma import Multiply
from loadsparse.gpu.simulator.engine.translate import Translation
from loadsparse.gpu.simulator.layout import layout
from loadsparse.gpu.simulator.program import Call, Instruction, Kernel
from loadsparse.gpu.simulator.request import Checks, Request

MAXIMUM_INSTRUCTIONS = 65_000
OLDEST_LLVM = 20


class Late:
    """Code that is compiled when it is first needed, once, whichever thread needs it."""

    def __init__(self, load: Callable[[], jit.Loaded]) -> None:
        self._load: Callable[[], jit.Loaded] | None = load
        self._lock = threading.Lock()
        self._loaded: jit.Loaded | None = None

    @property
    def address(self) -> int:
        """Address of the code, or 0 while it is not compiled."""
        return next(iter(self._loaded.addresses.values())) if self._loaded else 0

    def compile(self) -> int:
        """Its address, compiled now if need be."""
        with self._lock:
            if self._load is not None:
                self._loaded, self._load = self._load(), None
        return self.address


@dataclass(frozen=True)
class Compiled:
    """Machine code of a kernel, and what a launch must know about it.

    `ranges` has (start, stop, stop of the coarse block) of every basic block.  `calls`: there are calls of functions of
    the CUDA run time, with which a native run ends.
    """

    full: jit.Loaded
    masked: Late
    instruction_count: int
    ranges: tuple[tuple[int, int, int], ...]
    warp_bytes: int
    clear_bytes: int
    param_bytes: int
    granule: int
    global_granule: int
    has_copies: bool
    partial_order: bool
    orders_by_atomics: bool
    narrow_scopes: bool
    observable_order: bool
    calls: bool

    @property
    def address(self) -> int:
        return self.full.addresses["run_full"]

    @property
    def block_count(self) -> int:
        return len(self.ranges)


_kept: dict[str, Compiled] = {}
_lock = threading.Lock()


def prepare(request: Request, fine: bool = False) -> Compiled:
    """Compiled code for a request's kernel, architecture and checks; `fine`: definedness is followed bit by bit."""
    if llvm.llvm_version_info[0] < OLDEST_LLVM:
        raise Unsupported(f"the LLVM engine needs LLVM {OLDEST_LLVM}: install llvmlite 0.45 or newer")
    identity = (
        hashlib.sha256(request.program.text.encode()).hexdigest(),
        request.kernel.name,
        request.arch,
        json.dumps([asdict(request.checks), fine]),
        runtime.engine_hash(),
    )
    name = cache.key(*identity)
    with _lock:
        found = _kept.get(name)
        if found is None:
            found = _kept[name] = _compile(request, name, fine)
            if len(_kept) > 64:
                _kept.pop(next(iter(_kept)))
        return found


def observable(kernel: Kernel) -> bool:
    """True if blocks can see each other's progress (global atomics, ordered or volatile accesses, sleeping), print or stop."""
    ordered = {"volatile", "relaxed", "acquire", "release", "acq_rel", "seq_cst"}
    for instruction in kernel.instructions:
        if instruction.name in ("nanosleep", "trap", "brkpt"):
            return True
        if any(isinstance(o, Call) and o.callee.name == "vprintf" for o in instruction.operands):
            return True
        shared = any(m.startswith("shared") for m in instruction.modifiers)
        if instruction.name in ("atom", "red") and not shared:
            return True
        if instruction.name in ("ld", "st") and not shared and ordered & set(instruction.modifiers):
            return True
    return False


def _partial_order(kernel: Kernel) -> bool:
    """True if threads synchronise in other ways than through barriers of the whole block."""
    return orders_by_atomics(kernel) or any(
        is_warp_sync(i) or (is_barrier(i) and _counts(i)) for i in kernel.instructions
    )


def _counts(barrier: Instruction) -> bool:
    """True for bar.arrive and forms with a thread count."""
    return len(barrier.operands) > (3 if "red" in barrier.modifiers else 1)


def _compile(request: Request, name: str, fine: bool) -> Compiled:
    kernel = request.kernel
    if len(kernel.instructions) > MAXIMUM_INSTRUCTIONS:
        raise Unsupported(f"the LLVM engine takes at most {MAXIMUM_INSTRUCTIONS} instructions")
    if not kernel.instructions:
        raise Unsupported("the LLVM engine does not run an empty kernel")
    place = layout(request.program, kernel)
    if len(place.functions) > 1:
        raise Unsupported("the LLVM engine does not support calls of the module's own functions")
    translation = Translation(kernel, place, request.checks, request.arch, fine)
    full, masked = translation.full_text(), translation.masked_text()
    frame = translation.frame

    def load(form: str, text: str) -> jit.Loaded:
        image = cache.compiled(form, lambda: text, name, thorough=False)
        symbols = dict(runtime.library().addresses)
        for variant in frame.multiplies.values():
            symbols[runtime.prefix() + variant.name] = multiplier(variant).addresses[variant.name]
        for helper, definition in frame.helpers.items():
            symbols |= runtime.helper(helper, definition).addresses
        return jit.Loaded(image, symbols, (f"run_{form}",))

    blocks = translation.flow.blocks
    ranges = []
    for block in blocks:
        last = block.number
        while last + 1 < len(blocks) and not blocks[last + 1].coarse:
            last += 1
        ranges.append((block.start, block.stop, blocks[last].stop))
    return Compiled(
        load("full", full),
        Late(functools.partial(load, "masked", masked)),
        len(kernel.instructions),
        tuple(ranges),
        translation.warp_bytes,
        translation.clear_bytes,
        translation.frame.param_bytes,
        translation.frame.granule,
        translation.frame.global_granule,
        translation.frame.has_copies,
        _partial_order(kernel),
        orders_by_atomics(kernel),
        any(strength(instruction) & NARROW for instruction in kernel.instructions),
        observable(kernel),
        any(instruction.name == "call" for instruction in kernel.instructions),
    )


@functools.cache
def multiplier(variant: Multiply) -> jit.Loaded:
    """Machine code of one Tensor Core variant."""
    return jit.Loaded(cache.compiled("mma", lambda: mma_usual.text(variant)), {}, (variant.name,))


__all__ = ["Checks", "Compiled", "multiplier", "observable", "prepare"]
