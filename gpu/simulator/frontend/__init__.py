"""Numba kernels and whole numba.cuda scripts on the simulator, without a GPU or a driver."""

from loadsparse.gpu.simulator.frontend.install import Unsupported, install

__all__ = ["Unsupported", "install"]
