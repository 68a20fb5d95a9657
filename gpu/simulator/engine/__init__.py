"""The fast engine: a kernel becomes native code in which a warp is a vector of 32 lanes (see README.md)."""

from __future__ import annotations

from loadsparse.gpu.simulator.engine.launch import run
from loadsparse.gpu.simulator.engine.lowering import Unsupported

__all__ = ["Unsupported", "run"]
