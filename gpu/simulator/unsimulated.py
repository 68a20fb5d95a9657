"""What PTX has and this simulator refuses by name: the reasons that errors give and `--coverage` lists."""

from __future__ import annotations

CLUSTERS = "clusters of several blocks are not simulated"


def _by_name(reasons: dict[str, str]) -> dict[str, str]:
    return {name: why for names, why in reasons.items() for name in names.split()}


OPCODES = _by_name(
    {
        "tex tld4 txq suld sust sured suq istypep": "textures and surfaces are not simulated",
        "wgmma tcgen05 tensormap": "matrices and copies of whole warp groups are not simulated",
        "mapa getctarank multimem clusterlaunchcontrol": CLUSTERS,
        "discard": "what it leaves in memory is undefined",
        "alloca stacksave stackrestore": "the stack has no dynamic part",
        "setmaxnreg": "it needs a target such as sm_90a, whose instructions are not simulated",
        "vavrg2 vavrg4": "averages of fields are not simulated",
    }
)
REGISTERS = {
    "%pm": "performance counters are not simulated",
    "%current_graph_exec": "graphs of launches are not simulated",
}
"""Special registers, without their number (%pm0, %pm7_64)."""
DIRECTIVES = {".reqnctapercluster": CLUSTERS}
"""Directives of a kernel, where they ask for more than one block."""
FUNCTIONS = _by_name({"malloc free": "there is no heap on the simulated GPU"})
"""Functions that CUDA's runtime defines and a program may call."""


def because(name: str, reasons: dict[str, str]) -> str:
    """ ": reason" to end a message with; "" for a name that has none."""
    return f": {reasons[name]}" if name in reasons else ""
