"""Special registers as vectors of 32 lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsparse.gpu.simulator.engine import layout
from loadsparse.gpu.simulator.engine.ir import Code, Unsupported, lanes, splat, vec
from loadsparse.gpu.simulator.program import Special
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, GRID_WORKSPACE
from loadsparse.gpu.simulator.special_registers import CLOCKS

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.engine.lowering import Frame


def special_register(frame: Frame, code: Code, special: Special) -> tuple[str, str]:
    """A special register: (vector, element type)."""
    name, component = special.name.lstrip("%"), special.component
    axis = {"x": 0, "y": 1, "z": 2, "": 0, "w": 3}[component]
    if name == "tid" and axis < 3:
        return code.load(vec("i32"), "%W", layout.W_TID + 128 * axis, 64), "i32"
    if name in ("ntid", "ctaid", "nctaid") and axis < 3:
        base = {"ntid": layout.B_NTID, "ctaid": layout.B_CTAID, "nctaid": layout.B_NCTAID}[name]
        return code.broadcast("i32", code.load("i32", "%B", base + 8 * axis, 8)), "i32"
    if axis == 3:
        return splat("i32", 0), "i32"
    if name == "laneid":
        return lanes("i32", list(range(32))), "i32"
    if name == "warpid":
        return code.broadcast("i32", code.load("i32", "%W", layout.W_INDEX, 8)), "i32"
    if name == "nwarpid":
        return code.broadcast("i32", code.load("i32", "%B", layout.B_WARP_COUNT, 8)), "i32"
    if name == "WARP_SZ":
        return splat("i32", 32), "i32"
    if name in ("smid", "gridid"):
        return splat("i32", 0), "i32"
    if name == "nsmid":
        return splat("i32", 1), "i32"
    if name in CLOCKS:
        now = code.load("i64", "%W", layout.W_STEPPED, 8)
        now = code.v(f"sub i64 {now}, {frame.counted_to - frame.index - 1}")
        now = code.v(f"lshr i64 {now}, 32") if name.endswith("_hi") else now
        return code.broadcast("i64", now), "i64"
    if name.startswith("envreg"):
        workspace = GRID_WORKSPACE << ALLOCATION_BITS
        return splat("i32", {"1": workspace >> 32, "2": workspace & 0xFFFFFFFF}.get(name[6:], 0)), "i32"
    if name in ("dynamic_smem_size", "total_smem_size"):
        offset = layout.B_DYNAMIC_SHARED if name == "dynamic_smem_size" else layout.B_SHARED_BYTES
        return code.broadcast("i32", code.load("i32", "%B", offset, 8)), "i32"
    masks = {
        "lanemask_eq": lambda lane: 1 << lane,
        "lanemask_lt": lambda lane: (1 << lane) - 1,
        "lanemask_le": lambda lane: (2 << lane) - 1,
        "lanemask_gt": lambda lane: 0xFFFFFFFF & ~((2 << lane) - 1),
        "lanemask_ge": lambda lane: 0xFFFFFFFF & ~((1 << lane) - 1),
    }
    if name in masks:
        return lanes("i32", [masks[name](lane) for lane in range(32)]), "i32"
    raise Unsupported(f"the LLVM engine does not support the special register %{name}")
