"""Runs PTX on the CPU, instruction by instruction, with the arithmetic of real Tensor Cores.

>>> from loadsparse.gpu import simulator
>>> module = simulator.load(ptx_text, arch="sm_80")                              # doctest: +SKIP
>>> report = module["kernel"].launch(grid, block, a, b, simulator.empty(c), n)   # doctest: +SKIP
>>> report.ok, report.hazards, report.metrics                                    # doctest: +SKIP

What a launch means is in SEMANTICS.md.
"""

from loadsparse.gpu.simulator.arguments import empty
from loadsparse.gpu.simulator.coverage import coverage
from loadsparse.gpu.simulator.frontend.run import run
from loadsparse.gpu.simulator.interpreter import Event, Observer
from loadsparse.gpu.simulator.limits import LaunchError
from loadsparse.gpu.simulator.module import Entry, Module, load
from loadsparse.gpu.simulator.program import PtxError
from loadsparse.gpu.simulator.report import Finding, Report
from loadsparse.gpu.simulator.request import Checks

__all__ = [
    "Checks",
    "Entry",
    "Event",
    "Finding",
    "LaunchError",
    "Module",
    "Observer",
    "PtxError",
    "Report",
    "coverage",
    "empty",
    "load",
    "run",
]
