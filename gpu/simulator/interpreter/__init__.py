"""The interpreter: executes PTX warp instruction by warp instruction in NumPy, made to be read and stepped through."""

from __future__ import annotations

from loadsparse.gpu.simulator.interpreter.machine import Machine
from loadsparse.gpu.simulator.interpreter.observe import Event, Observer
from loadsparse.gpu.simulator.request import Outcome, Request

__all__ = ["Event", "Observer", "check", "run"]


def run(request: Request, observer: Observer | None = None) -> Outcome:
    """Executes a launch; global memory of `request.allocations` is changed in place.

    `observer` is called after every warp instruction with the registers before and after it.
    """
    return Machine(request, observer).run()


def check(request: Request) -> None:
    """Raises `PtxError`, with line and column, if an instruction has a form that cannot be executed."""
    Machine(request)
