"""Every kernel of the project on inputs that find bugs: exact, accurate, clean and complete."""

from __future__ import annotations

import pytest

from loadsparse.gpu import kernels, verify
from loadsparse.gpu.verify.inputs import adversarial_case, random_case, real_cases

EXACT = pytest.mark.claim(
    id="verify-exact",
    phrase="the simulated product equals the oracle of the kernel's algorithm in every bit",
    status="proved",
    assumption="the inputs judged, on sm_80 and sm_90; order and split as the kernel declares them",
    function="loadsparse.gpu.verify.verify",
    source="loadsparse, verify",
)
ACCURATE = pytest.mark.claim(
    id="verify-accurate",
    phrase="the product lies within an error bound of the float64 product that is proved, not guessed",
    status="proved",
    assumption="the inputs judged; elements whose float32 sums may overflow have no bound",
    function="loadsparse.reference.spmm.error_bound",
    source="loadsparse, verify",
)
LSCD = pytest.mark.claim(
    id="lscd-exact",
    phrase="load-as-sparse compute-as-dense SpMM of unstructured sparsity on Tensor Cores, bit for bit",
    status="proved",
    assumption="executed by the simulator, not by a GPU; the inputs judged",
    function="loadsparse.gpu.kernels.lscd.Lscd.plan",
    source="loadsparse, verify",
)
INPUTS = ("inf", "minus-zero")


def all_true(result: verify.Result) -> None:
    assert result.ok, str(result)
    for row in result.rows:
        assert [getattr(row, name) for name in verify.FIELDS] == [True] * 4, str(result)
        assert row.rows_exact == row.shape[0]


@EXACT
@ACCURATE
@pytest.mark.parametrize("kernel", kernels.names())
def test_adversarial_inputs(kernel: str) -> None:
    all_true(verify.verify(kernel, INPUTS, seed=21, engine="interpreter"))


@EXACT
@ACCURATE
@pytest.mark.parametrize("kernel", ["bitmap", "lscd"])
def test_newer_architecture_and_bf16(kernel: str) -> None:
    cases = [adversarial_case("subnormal", 3, "bf16"), adversarial_case("minus-zero", 3, "bf16")]
    all_true(verify.verify(kernel, cases, dtype="bf16", seed=3, engine="interpreter"))
    all_true(verify.verify(kernel, "minus-zero", arch="sm_90", seed=3, engine="interpreter"))


@EXACT
@LSCD
def test_real_weights() -> None:
    """The packaged attention matrix: dequantised 4-bit weights of a language model, pruned to 80%."""
    case = list(real_cases(4))[1]
    assert case.name == "real:attn_output"
    all_true(verify.verify("lscd", case, seed=4))


@LSCD
def test_another_schedule_gives_the_same_bits() -> None:
    """Random lane groups and warps: code that is right only in lock step would show."""
    case = random_case(6, shape=(70, 8, 66))
    all_true(verify.verify("lscd", case, seed=6, engine="interpreter", schedule="adversarial"))
