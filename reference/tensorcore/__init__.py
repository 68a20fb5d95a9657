"""Tensor Cores in NumPy: bit-exact arithmetic per architecture, fragment layouts, ldmatrix and mma."""

from loadsparse.reference.tensorcore.arithmetic import ARCHITECTURES, dot_add

__all__ = ["ARCHITECTURES", "dot_add"]
