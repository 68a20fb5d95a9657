"""Tensor Cores in NumPy: bit-exact arithmetic per architecture, fragment layouts, ldmatrix, mma and mma.sp."""

from loadsparse.reference.tensorcore.arithmetic import ARCHITECTURES, dot_add
from loadsparse.reference.tensorcore.fragments import (
    M16N8K8,
    M16N8K8_TF32,
    M16N8K16,
    SHAPES,
    SPARSE_M16N8K32,
    Fragment,
    Shape,
)
from loadsparse.reference.tensorcore.instructions import decode_metadata, encode_metadata, ldmatrix, mma, mma_sp

__all__ = [
    "ARCHITECTURES",
    "M16N8K8",
    "M16N8K8_TF32",
    "M16N8K16",
    "SHAPES",
    "SPARSE_M16N8K32",
    "Fragment",
    "Shape",
    "decode_metadata",
    "dot_add",
    "encode_metadata",
    "ldmatrix",
    "mma",
    "mma_sp",
]
