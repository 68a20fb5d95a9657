"""What Flash-LLM's abstract says of skinny products, checked on counts and on the model."""

from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import kernels, perfmodel
from loadsparse.reference import pruning

HMMA = "smsp__inst_executed_pipe_tensor_op_hmma.sum"
OPT = [(m * h, k * h) for h in (7168, 9216, 12288) for m, k in ((3, 1), (1, 1), (4, 1), (1, 4))]
LEVELS = (0.5, 0.7, 0.9)


def counted(name: str, sparsity: float) -> dict[str, Any]:
    """Metrics of one product 128 x 8 x 128, executed by the interpreter."""
    rng = np.random.default_rng(11)
    a = pruning.magnitude(rng.standard_normal((128, 128)).astype(np.float16), sparsity)
    b = rng.standard_normal((128, 8)).astype(np.float16)
    kernel = kernels.get(name)
    return kernel.plan(kernel.encode(a), b, split_k=1).run("interpreter")[1].metrics


@pytest.mark.claim(
    id="roofline-skinny",
    phrase="the skinny products of generative inference need less arithmetic per byte than Tensor Cores want",
    status="predicted",
    assumption="the twelve products of OPT-30B, 66B and 175B, N = 8 to 64, dense FP16, data-sheet peaks of an A100",
    function="loadsparse.gpu.perfmodel.predict",
    source="Flash-LLM, arXiv 2309.10285, abstract",
)
@pytest.mark.parametrize("n", [8, 16, 32, 64])
def test_dense_skinny_products_are_bound_by_memory(n: int) -> None:
    ridge = 312e12 / 2039e9  # FLOP per byte, cited: NVIDIA A100 data sheet
    for m, k in OPT:
        assert 2 * m * n * k / (2 * (m * k + k * n + m * n)) < ridge / 2
        roofline = perfmodel.predict("dense", m, n, k, 0.0).roofline_seconds
        assert roofline >= 2 * m * k / 2039e9  # the bytes of A alone


@pytest.mark.claim(
    id="lscd-bytes",
    phrase="time follows the bytes of the stored weights while the multiplications by zero stay",
    status="predicted",
    assumption="A100, N = 16, 50 to 90% sparse; bytes and mma counted, time predicted",
    function="loadsparse.gpu.perfmodel.predict",
    source="Flash-LLM, arXiv 2309.10285, abstract",
)
def test_fewer_bytes_are_less_time_at_equal_multiplications() -> None:
    counts = [counted("lscd", level) for level in LEVELS]
    assert len({count[HMMA] for count in counts}) == 1
    loaded = [count["global_bytes_ld"] for count in counts]
    assert loaded[0] > loaded[1] > loaded[2]
    seconds = [perfmodel.predict("lscd", 9216, 16, 9216, level).seconds for level in LEVELS]
    assert seconds[0] > seconds[1] > seconds[2]


@pytest.mark.claim(
    id="redundant-compute",
    phrase="unstructured pruning reduces the computation that a kernel does",
    status="false without condition",
    assumption="true of kernels that skip zeros (Sputnik's, on CUDA cores); Tensor Core kernels multiply the dense tile",
    function="loadsparse.gpu.kernels.get",
    source="Flash-LLM, arXiv 2309.10285, abstract",
)
@pytest.mark.parametrize("name", ["lscd", "bitmap"])
def test_tensor_core_kernels_multiply_as_often_at_any_sparsity(name: str) -> None:
    multiplications = {counted(name, level)[HMMA] for level in LEVELS}
    assert len(multiplications) == 1
    assert multiplications.pop() >= 128 * 8 * 128 // (16 * 8 * 16)  # M is padded to whole tiles of the block


def test_a_kernel_that_skips_zeros_does_less() -> None:
    executed = [counted("sputnik", level)["smsp__thread_inst_executed.sum"] for level in LEVELS]
    assert executed[0] > executed[1] > executed[2]
