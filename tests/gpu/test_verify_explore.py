"""`verify` under many schedules: what depends on them is not clean, and clean kernels stay so."""

from __future__ import annotations

import pytest

from loadsparse.gpu import verify

KERNEL = '''
from loadsparse.gpu import compiler

SOURCE = r"""#include <cuda_fp16.h>
extern "C" __global__ void product(const half* a, const half* b, half* c, int n, int k) {{
  __shared__ {type} s[64];
  int row = blockIdx.x / n, column = blockIdx.x % n, t = threadIdx.x;
  float mine = 0;
  for (int i = t; i < k; i += 64) mine += float(a[row * k + i]) * float(b[i * n + column]);
  {sum}
}}"""

def kernel(a, n, arch):
    m, k = a.shape
    return {{"ptx": compiler.cuda(SOURCE, arch), "grid": m * n, "block": 64, "args": ["a", "b", "c", n, k]}}
'''
BY_ATOMICS = (
    "if (t == 0) s[0] = 0; __syncthreads(); atomicAdd(s, mine); __syncthreads(); if (t == 0) c[blockIdx.x] = s[0];"
)
IN_ORDER = (
    "s[t] = mine; __syncthreads(); if (t == 0) { float total = 0; for (int i = 0; i < 64; i++) total += s[i];"
    "c[blockIdx.x] = total; }"
)


def judge(tmp_path, sum_, **options):
    path = tmp_path / "mine.py"
    kind = "half" if sum_ is BY_ATOMICS else "float"
    path.write_text(KERNEL.replace("{sum}", sum_).replace("{type}", kind).replace("{{", "{").replace("}}", "}"))
    return verify.verify(f"{path}:kernel", "random", shape=(4, 8, 96), seed=3, **options).rows[0]


def test_a_sum_whose_order_is_open_depends_on_the_schedule(tmp_path):
    once = judge(tmp_path, BY_ATOMICS)
    assert once.clean
    often = judge(tmp_path, BY_ATOMICS, explore=3)
    assert often.clean is False
    assert any("C depends on the schedule" in failure for failure in often.failures)


def test_a_sum_in_order_does_not(tmp_path):
    row = judge(tmp_path, IN_ORDER, explore=3)
    assert row.clean, row
    assert not row.failures


def test_no_schedule_is_bad_input(tmp_path):
    with pytest.raises(verify.InputError, match="at least 1"):
        judge(tmp_path, IN_ORDER, explore=0)
