"""Oracles for C = A B with sparse A: one per algorithm, exact, and a float64 one with a proved error bound.

A is [M, K], B is [K, N]. Matrices are float16, or bfloat16 as uint16 bit patterns with in_format="bf16". Exact oracles
return the very bits a kernel must write; `rows=` computes a sample of the rows only.
"""

from loadsparse.reference.spmm.bounds import accurate, dense64, error_bound, order_free_bound
from loadsparse.reference.spmm.cuda_cores import sparta, sputnik
from loadsparse.reference.spmm.grouped import expert_columns, grouped, grouped_bound
from loadsparse.reference.spmm.tensor_cores import dense, lscd, two_four, two_four_positions

__all__ = [
    "accurate",
    "dense",
    "dense64",
    "error_bound",
    "expert_columns",
    "grouped",
    "grouped_bound",
    "lscd",
    "order_free_bound",
    "sparta",
    "sputnik",
    "two_four",
    "two_four_positions",
]
