"""The fast engine: a kernel becomes native code in which a warp is a vector of 32 lanes (see README.md)."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.ir import Unsupported
from loadsparse.gpu.simulator.engine.launch import run

__all__ = ["Unsupported", "run"]
