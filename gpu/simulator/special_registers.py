"""Special registers by their names in PTX."""

from __future__ import annotations

import re

from loadsparse.gpu.simulator.program import Immediate, Operand, Special

VECTORS = frozenset({"tid", "ntid", "ctaid", "nctaid"})
CLOCKS = frozenset({"clock", "clock64", "clock_hi", "globaltimer", "globaltimer_lo", "globaltimer_hi"})
"""They count the warp's own instructions here."""
SCALARS = CLOCKS | frozenset({
    "laneid", "warpid", "nwarpid", "smid", "nsmid", "gridid", "dynamic_smem_size", "total_smem_size", "lanemask_eq",
    "lanemask_le", "lanemask_lt", "lanemask_ge", "lanemask_gt",
})  # fmt: skip
ALONE: dict[str, Operand] = {
    **{f"clusterid.{axis}": Special("ctaid", axis) for axis in "xyz"},
    **{f"nclusterid.{axis}": Special("nctaid", axis) for axis in "xyz"},
    **{f"cluster_ctaid.{axis}": Immediate(0) for axis in "xyz"},
    **{f"cluster_nctaid.{axis}": Immediate(1) for axis in "xyz"},
    "cluster_ctarank": Immediate(0),
    "cluster_nctarank": Immediate(1),
    "is_explicit_cluster": Immediate(0),
    "aggr_smem_size": Special("total_smem_size"),
    **{f"reserved_smem_offset_{part}": Immediate(0) for part in ("begin", "end", "cap", "0", "1")},
}
"""What special registers hold where every block is a cluster of its own, and no shared memory is reserved."""
ENVIRONMENT = re.compile(r"envreg(\d|[12]\d|3[01])$")


def special_register(name: str) -> Operand | None:
    """What `%tid.x`, `WARP_SZ` and the like stand for; None for any other name."""
    if name == "WARP_SZ":
        return Special(name)
    if not name.startswith("%"):
        return None
    bare, _, component = name[1:].partition(".")
    if bare in VECTORS and component in ("x", "y", "z"):
        return Special(bare, component)
    if name[1:] in ALONE:
        return ALONE[name[1:]]
    if not component and (bare in SCALARS or ENVIRONMENT.match(bare)):
        return Special(bare)
    return None
