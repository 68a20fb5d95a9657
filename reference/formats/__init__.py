"""Sparse weight formats: each encodes a 16-bit matrix bit-exactly, decodes, validates, and counts its bytes."""

from loadsparse.reference.formats.adaptive import Adaptive
from loadsparse.reference.formats.base import DTYPES, SparseFormat
from loadsparse.reference.formats.bitmap import Bitmap, entropy_floor
from loadsparse.reference.formats.container import FormatError
from loadsparse.reference.formats.csr import CSR
from loadsparse.reference.formats.lane_bitmap import LaneBitmap
from loadsparse.reference.formats.tiled_csl import TiledCSL
from loadsparse.reference.formats.two_four import TwoFour

__all__ = [
    "CSR",
    "DTYPES",
    "Adaptive",
    "Bitmap",
    "FormatError",
    "LaneBitmap",
    "SparseFormat",
    "TiledCSL",
    "TwoFour",
    "entropy_floor",
]
