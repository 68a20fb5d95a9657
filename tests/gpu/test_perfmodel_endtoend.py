"""Whole models: memory and all-reduce by hand, the published points, experts in both regimes, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from loadsparse.gpu.perfmodel import PerfError, batch_sweep, end_to_end, load, models, moe, regimes, replay
from loadsparse.gpu.perfmodel.constants import fitted
from loadsparse.gpu.perfmodel.endtoend import RESERVED, all_reduce
from loadsparse.gpu.perfmodel.kernel import predict

A100 = load("a100-80gb")
POINTS = list(replay.end_to_end_points())


def test_flash_llm_points_within_bar() -> None:
    errors = [abs(p.error) for p in POINTS if p.what.startswith("flash-llm")]
    assert len(errors) == 4
    assert max(errors) <= 0.15


def test_every_out_of_memory_point_is_right() -> None:
    assert len(POINTS) == 20
    assert sum(p.published is None for p in POINTS) == 4
    assert all(p.agrees for p in POINTS)


def test_dense_frameworks_within_the_same_bar() -> None:
    assert all(abs(p.error) <= 0.15 for p in POINTS if p.error is not None)


def test_memory_by_hand() -> None:
    found = end_to_end("opt-66b", "fastertransformer", 2, 16).memory
    hidden, layers = 9216, 64
    assert found.weights == 2 * (12 * hidden**2 * layers + 50272 * hidden) / 2
    assert found.cache == 2 * 2 * layers * hidden * (64 + 512) * 16 / 2
    assert found.available == 80 * 2**30
    assert found.total == found.weights + found.cache + found.activations + RESERVED


def test_sparse_weights_shrink_by_their_format() -> None:
    dense = end_to_end("opt-66b", "fastertransformer", 2, 8).memory
    sparse = end_to_end("opt-66b", "flash-llm", 2, 8).memory
    embedding = 50272 * 9216
    assert (sparse.weights - embedding) / (dense.weights - embedding) == pytest.approx(0.8 / 2, rel=0.01)
    assert sparse.cache == dense.cache


def test_out_of_memory_is_an_answer() -> None:
    found = end_to_end("opt-66b", "deepspeed", 2, 64)
    assert not found.fits
    assert (found.tokens_per_gpu_second, found.bound) == (0.0, "memory")
    assert found.dollars_per_million_tokens(2.0) == float("inf")


def test_dollars() -> None:
    found = end_to_end("opt-66b", "flash-llm", 2, 64)
    assert found.dollars_per_million_tokens(3.6) == pytest.approx(1000 / found.tokens_per_gpu_second)
    with pytest.raises(PerfError, match="0 dollars or more"):
        found.dollars_per_million_tokens(-1)


def test_all_reduce_by_hand() -> None:
    assert all_reduce(1e6, 1, A100) == 0
    # LL: 7 + 6.6 + 2 x 0.6 us, and 1e6 bytes at half of 216 GB/s; LL128: 7 + 14 + 2 x 1.9 us, 0.95 of it
    simple = 7e-6 + 8.4e-6 + 2 * 3.4e-6 + 1e6 / 216e9
    ll = 7e-6 + 6.6e-6 + 2 * 0.6e-6 + 1e6 / 108e9
    assert all_reduce(1e6, 2, A100) == pytest.approx(min(simple, ll))
    assert 20e-6 <= all_reduce(16384, 8, A100) <= 25e-6  # small messages on 8 GPUs from a framework
    assert all_reduce(1e9, 8, A100) == pytest.approx(2 * 7 / 8 * 1e9 / 216e9, rel=0.02)


def test_mha_and_gqa_caches() -> None:
    assert models.get("llama-3-70b").kv_width == 1024
    assert models.get("llama-2-7b").kv_width == 4096


@pytest.mark.parametrize(("name", "billions"), [
    ("opt-30b", 30), ("opt-66b", 66), ("opt-175b", 175), ("llama-2-7b", 6.7), ("llama-2-13b", 13), ("llama-2-70b", 69),
    ("llama-3-8b", 8.0), ("llama-3-70b", 70.6), ("deepseek-moe-16b", 16.4), ("mixtral-8x7b", 46.7),
])  # fmt: skip
def test_models_have_as_many_weights_as_their_name_says(name: str, billions: float) -> None:
    model = models.get(name)
    weights = sum(m * k * many for m, k, many in model.matrices(1)) + model.vocab * model.hidden * (
        2 if model.gated else 1
    )
    assert weights / 1e9 == pytest.approx(billions, rel=0.03)


def test_larger_batches_serve_more_tokens() -> None:
    rates = [found.tokens_per_gpu_second for found in batch_sweep("llama-2-7b", "flash-llm", 1, (1, 2, 4, 8, 16, 32))]
    assert rates == sorted(rates)


def test_predictions_without_measurements_say_so() -> None:
    assert end_to_end("opt-66b", "flash-llm", 2, 16).notes == ()
    for name in ("opt-30b", "opt-175b"):
        assert any("opt-66b only" in note for note in end_to_end(name, "fastertransformer", 8, 16).notes)


@pytest.mark.parametrize(("kernel", "gpus", "batch", "options", "word"), [
    ("flash-llm", 2, 16, {"prompt": 4096}, "prompt = 4096"), ("flash-llm", 2, 16, {"output": 8}, "output = 8"),
    ("flash-llm", 8, 16, {}, "gpus = 8"), ("flash-llm", 2, 4, {}, "batch = 4"),
    ("flash-llm", 2, 16, {"sparsity": 0.7}, "sparsity = 0.7"),
])  # fmt: skip
def test_other_configurations_than_the_measured_say_so(
    kernel: str, gpus: int, batch: int, options: dict, word: str
) -> None:
    assert any(word in note for note in end_to_end("opt-66b", kernel, gpus, batch, **options).notes)
    assert end_to_end("opt-66b", "deepspeed", 4, 32, sparsity=0.1).notes == ()  # dense: its sparsity says nothing


@pytest.mark.parametrize(("arguments", "options", "word"), [
    (("gpt-9", "cublas", 1, 8), {}, "known are opt-30b"),
    (("opt-66b", "nosuch", 1, 8), {}, "known are cublas"),
    (("opt-66b", "cublas", 5, 8), {}, "choose a divisor"),
    (("opt-66b", "cublas", 0, 8), {}, "gpus must"),
    (("opt-66b", "cublas", 1, 8.5), {}, "batch must"),
    (("opt-66b", "cublas", 1, 8), {"output": 0}, "output must"),
    (("opt-66b", "cublas", 1, 8), {"sparsity": -1}, "sparsity"),
    (("mixtral-8x7b", "cublas", 1, 8), {"routing": "odd"}, "unknown popularity"),
    (("mixtral-8x7b", "cublas", 1, 8), {"routing": 3}, "name or a Routing"),
    (("mixtral-8x7b", "cublas", 1, 8), {"routing": "trace:none/9"}, "unknown trace"),
    (("mixtral-8x7b", "cublas", 1, 8), {"routing": "trace:none/2"}, "has 64 experts and the model 8"),
    (("mixtral-8x7b", "sparta", 1, 8), {}, "no grouped form"),
])  # fmt: skip
def test_bad_questions_are_refused(arguments: tuple, options: dict, word: str) -> None:
    with pytest.raises(PerfError, match=word):
        end_to_end(*arguments, **options)


@pytest.mark.parametrize(("changes", "word"), [
    ({"heads": 7}, "divide hidden"), ({"layers": 0}, "layers"), ({"top_k": 65}, "top_k"), ({"expert_ffn": 0}, "expert_ffn"),
])  # fmt: skip
def test_impossible_models_are_refused(changes: dict, word: str) -> None:
    with pytest.raises(PerfError, match=word):
        replace(models.get("deepseek-moe-16b"), **changes)


# --- experts


def test_skewed_routing_activates_fewer_experts() -> None:
    """64 experts, 6 per token, 16 tokens: 64 (1 - (58/64)^16) = 50.8 when uniform."""

    def activated(popularity: str) -> float:
        drawn = [moe.loads(16, 64, 6, moe.Routing(popularity), draw) for draw in range(64)]
        assert all(loads.sum() == 96 for loads in drawn)
        return float(np.mean([(loads > 0).sum() for loads in drawn]))

    assert activated("uniform") == pytest.approx(50.8, abs=1.0)
    assert activated("1/rank") == pytest.approx(38, abs=2.0)


def test_a_trained_router_is_a_routing() -> None:
    """Without balancing a few experts serve everybody; a balancer on the same scores spreads them."""
    unbalanced, balanced = (
        np.sum([moe.loads(512, 64, 6, moe.Routing("trace:none/2", name), draw) for draw in range(4)], axis=0)
        for name in (None, "quantile")
    )
    assert unbalanced.sum() == balanced.sum() == 4 * 512 * 6
    assert unbalanced.max() > 4 * balanced.max()
    cost = [end_to_end("deepseek-moe-16b", "cublas", 1, 8, routing=f"trace:{arm}/2") for arm in ("none", "sign-1e-3")]
    assert cost[0].step["experts"] < cost[1].step["experts"]  # small batches pay for the experts that they activate


def test_loads_of_a_hundred_billion_tokens() -> None:
    """A sample stands in for what cannot be drawn: the same shares, and every choice still counted."""
    few, many = (moe.loads(tokens, 64, 6, moe.Routing("1/rank")) for tokens in (moe.SAMPLE, 10**11 + 7))
    assert few.sum() == 6 * moe.SAMPLE
    assert many.sum() == 6 * (10**11 + 7)
    assert np.allclose(many / many.sum(), few / few.sum(), rtol=0, atol=1e-9)


def test_no_tokens_are_refused() -> None:
    with pytest.raises(PerfError, match="tokens must"):
        regimes.regime(0, 1, None)


def test_experts_without_tokens_cost_nothing() -> None:
    matrices = [(1408, 2048), (2048, 1408)]
    loads = np.array([4, 0, 0, 4])
    assert moe.experts_seconds(loads, matrices, "cublas", 1.0, A100) == pytest.approx(
        moe.experts_seconds(np.array([4, 4]), matrices, "cublas", 1.0, A100)
    )
    assert moe.experts_seconds(np.zeros(4, np.int64), matrices, "cublas", 1.0, A100) == 0.0


@pytest.mark.parametrize("kernel", ["cublas", "flash-llm", "lscd"])
def test_many_alike_experts_cost_as_one_large_matmul(kernel: str) -> None:
    """27 experts of 1024 rows are one matrix of 27,648 rows: the grouped form agrees with the kernel model."""
    grouped = moe.experts_seconds(np.full(27, 8), [(1024, 9216)], kernel, 0.2, A100)
    assert grouped == pytest.approx(predict(kernel, 27648, 8, 9216, 0.8).seconds, rel=0.1)


def test_busiest_gpu_decides() -> None:
    matrices = [(2816, 2048), (2048, 1408)]
    even = moe.expert_parallel(np.full(64, 100), matrices, "cublas", 1.0, A100, 8)
    loads = np.full(64, 100)
    loads[:8] += 700
    skewed = moe.expert_parallel(loads, matrices, "cublas", 1.0, A100, 8)
    assert len(skewed.experts) == 8
    assert skewed.experts[1:] == even.experts[1:]
    assert skewed.seconds == skewed.experts[0] + skewed.all_to_all
    # dispatch and combination: 7/8 of 8 x 800 tokens of 2048 halves at 216 GB/s each way, and a base of 15.4 us
    assert skewed.all_to_all == pytest.approx(2 * (15.4e-6 + 2 * 2048 * 6400 * 7 / 8 / 216e9))
    with pytest.raises(PerfError, match="choose a divisor"):
        moe.expert_parallel(loads, matrices, "cublas", 1.0, A100, 7)


def test_a_regime_says_what_was_never_measured() -> None:
    notes = regimes.regime(16, 1, "sign", "bitmap", 0.5, gpu="h100-sxm").notes
    for part in ("none was timed", "other numbers of tokens than the measured 8 to 32", "extrapolated to H100",
                 "sparsity 0.5 is outside", "bitmap was counted by the simulator and never timed", "M = "):  # fmt: skip
        assert any(part in note for note in notes), (part, notes)


def test_two_regimes() -> None:
    """Balance hurts small-batch decode on one GPU, helps expert parallelism, and is neutral for large dense batches."""
    assert regimes.regime(16, 1, "proportional").verdict == "hurts"
    assert regimes.regime(4096, 8, "proportional").verdict == "helps"
    assert regimes.regime(4096, 1, "proportional", "cublas", 0.0).verdict == "neutral"
    with pytest.raises(PerfError, match="no experts"):
        regimes.regime(16, 1, None, model="opt-66b")


def test_imbalance_costs_time_in_a_whole_model() -> None:
    even = end_to_end("deepseek-moe-16b", "flash-llm", 1, 16, routing="uniform")
    skewed = end_to_end("deepseek-moe-16b", "flash-llm", 1, 16, routing="1/rank")
    assert skewed.step["experts"] < 0.9 * even.step["experts"]  # fewer experts are read
    assert fitted().call > 0
