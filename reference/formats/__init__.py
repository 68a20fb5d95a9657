"""Sparse weight formats: each encodes a 16-bit matrix bit-exactly, decodes, validates, and counts its bytes."""

from loadsparse.reference.formats.base import DTYPES, SparseFormat
from loadsparse.reference.formats.container import FormatError
from loadsparse.reference.formats.tiled_csl import TiledCSL

__all__ = ["DTYPES", "FormatError", "SparseFormat", "TiledCSL"]
