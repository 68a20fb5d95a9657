"""Recorded hardware words: the arithmetic must reproduce every one."""

from pathlib import Path

import numpy as np
import pytest

from loadsparse.reference import tensorcore

WORDS = Path(__file__).parents[2].parent / "shared" / "data" / "tensor_core_words.npz"


@pytest.mark.claim(
    id="tensor-core-words",
    source="words recorded by Khattak and Mikaitis on an A100 and an H100 (MATLAB-tensor-core, BSD-2-Clause)",
    phrase="dot_add reproduces every one of 10,000 recorded FP16 -> FP32 dot products, and another generation's "
    "parameters do not",
    assumption="one block per word; chaining, NaN, overflow and other formats rest on published models; the words are "
    "not shipped, and the test is skipped without them",
    function="loadsparse.reference.tensorcore.dot_add",
    status="proved",
)
@pytest.mark.skipif(not WORDS.exists(), reason="recorded Tensor Core words (../shared/data) are not on this machine")
@pytest.mark.parametrize(("gpu", "arch", "other"), [("a100", "sm_80", "sm_90"), ("h100", "sm_90", "sm_80")])
def test_recorded_words(gpu: str, arch: str, other: str) -> None:
    with np.load(WORDS, allow_pickle=False) as data:
        a, b, c, d = (data[f"{gpu}_{name}"] for name in ("a_f16", "b_f16", "c_f32", "d_f32"))
    ours = tensorcore.dot_add(a, b, c, arch=arch, in_format="f16", out_format="f32")
    assert len(d) == 5000
    np.testing.assert_array_equal(ours, d)
    # the words discriminate: the other generation's arithmetic fails on hundreds of rows
    theirs = tensorcore.dot_add(a, b, c, arch=other, in_format="f16", out_format="f32")
    assert np.count_nonzero(theirs != d) > 100
