"""Where the two papers meet: sparse weights inside sparse experts, in the two regimes that behave in opposite ways.

Decode on one GPU: every expert that any token chose must be read, so time follows the bytes of the *activated* experts,
and balance, which activates more of them, can hurt.  Training, prefill and expert parallelism: every GPU waits for the
busiest one, and balance pays.

Assumptions: the experts of a layer run as one grouped kernel per matrix, spread evenly over the multiprocessors, as
`gpu.kernels.grouped` does (busiest over mean for 16 to 512 tokens, counted: 1.01 with lscd, 1.01 to 1.03 with bitmap:
gpu/kernels/NOTES.md); experts are placed on GPUs in order; a token's activation crosses the network once in each direction
per chosen remote GPU slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.perfmodel import tile as tiles
from loadsparse.gpu.perfmodel.constants import fitted
from loadsparse.gpu.perfmodel.gpu import Gpu, PerfError, load
from loadsparse.gpu.perfmodel.kernel import canonical, norm
from loadsparse.gpu.perfmodel.pipes import busy
from loadsparse.gpu.perfmodel.tile import COUNTED_PEERS, OURS, encoded_bytes
from loadsparse.reference import balancing, traces
from loadsparse.reference import routing as route

POPULARITIES = ("uniform", "1/rank")
TRACE = "trace:"
TRAIN_TOKENS, TRAIN_STEPS = 512, 600
DRAWS = 8
SAMPLE = 1 << 16
"""Most tokens that are drawn; of more, the shares of the experts are those of the sample."""


@dataclass(frozen=True)
class Routing:
    """How tokens choose experts: score = log popularity + Gumbel noise + bias, the K best; or as a trained layer did.

    popularity  "uniform", "1/rank" (the r-th most popular expert is wanted in proportion to 1/r), "trace:ARM/LAYER" or
                "trace:FILE.npz:ARM/LAYER": tokens drawn from a trace (`reference.traces`), with the bias of its training
    balancer    None, or a name of `balancing.BALANCERS` that first learns a bias on 600 batches of 512 tokens
    """

    popularity: str = "uniform"
    balancer: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.popularity.startswith(TRACE):
            _trace(self.popularity)
        elif self.popularity not in POPULARITIES:
            raise PerfError(
                f"unknown popularity {self.popularity!r}: known are {', '.join(POPULARITIES)}, {TRACE}ARM/LAYER, "
                f"{TRACE}FILE.npz:ARM/LAYER"
            )
        if self.balancer is not None and self.balancer not in balancing.BALANCERS:
            raise PerfError(f"unknown balancer {self.balancer!r}: known are {', '.join(balancing.BALANCERS)}")


@lru_cache(maxsize=16)
def _trace(popularity: str) -> traces.Trace:
    try:
        return traces.find(popularity.removeprefix(TRACE))
    except ValueError as error:
        raise PerfError(str(error)) from None


def scores(rng: np.random.Generator, tokens: int, experts: int, popularity: str) -> NDArray[np.float64]:
    """float64[tokens, experts]: sigmoid of log popularity + Gumbel noise, minus its mean; of a trace s + p of tokens drawn
    with replacement, PerfError if its experts are not as many."""
    if popularity.startswith(TRACE):
        trace = _trace(popularity)
        if trace.scores.shape[1] != experts:
            raise PerfError(
                f"{popularity} has {trace.scores.shape[1]} experts and the model {experts}: they must be equal"
            )
        drawn = rng.integers(0, len(trace.scores), tokens)
        return np.asarray(trace.scores[drawn] + trace.bias, dtype=np.float64)
    rank = np.random.default_rng(experts).permutation(experts) + 1  # popular experts lie anywhere
    wanted = -np.log(rank) if popularity == "1/rank" else np.zeros(experts)
    return route.sigmoid(wanted - wanted.mean() + rng.gumbel(size=(tokens, experts)))


@lru_cache(maxsize=256)
def _bias(experts: int, k: int, popularity: str, balancer: str, seed: int) -> NDArray[np.float64]:
    """The bias that a balancer learns on TRAIN_STEPS batches of TRAIN_TOKENS tokens."""
    rng = np.random.default_rng([seed, experts, k])
    rule = balancing.get(balancer, k)
    state = rule.init(experts)
    for _ in range(TRAIN_STEPS):
        s = scores(rng, TRAIN_TOKENS, experts, popularity)
        seen = s if rule.needs == "scores" else route.loads(route.top_k(s, k, state.bias), experts)
        state = rule.step(state, seen)
    return state.bias


@lru_cache(maxsize=4096)
def _loads(tokens: int, experts: int, k: int, routing: Routing, draw: int) -> tuple[int, ...]:
    bias = None if routing.balancer is None else _bias(experts, k, routing.popularity, routing.balancer, routing.seed)
    sample = min(tokens, SAMPLE)
    rng = np.random.default_rng([routing.seed, sample, experts, k, draw])
    drawn = route.loads(route.top_k(scores(rng, sample, experts, routing.popularity), k, bias), experts)
    whole, rest = divmod(tokens, sample)  # each load times tokens / sample, in whole numbers of the right sum
    return tuple((drawn * whole + np.diff(np.cumsum(drawn) * rest // sample, prepend=0)).tolist())


def loads(tokens: int, experts: int, k: int, routing: Routing, draw: int = 0) -> NDArray[np.int64]:
    """int64[experts]: tokens that each expert receives in the batch number `draw` of this routing; they sum to tokens * k."""
    return np.array(_loads(tokens, experts, k, routing, draw), dtype=np.int64)


def mean_seconds(
    tokens: int,
    experts: int,
    k: int,
    routing: Routing,
    matrices: Sequence[tuple[int, int]],
    kernel: str,
    density: float,
    gpu: str | Gpu,
) -> float:
    """experts_seconds, the mean over DRAWS batches."""
    batches = (loads(tokens, experts, k, routing, draw) for draw in range(DRAWS))
    return fmean(experts_seconds(batch, matrices, kernel, density, gpu) for batch in batches)


def experts_seconds(
    received: NDArray[np.int64], matrices: Sequence[tuple[int, int]], kernel: str, density: float, gpu: str | Gpu
) -> float:
    """Seconds of one GPU's experts: each (M, K) of `matrices` times the tokens that each expert received, grouped.

    Experts without tokens are neither read nor computed.  Raises PerfError.
    """
    device, constants, name = load(gpu), fitted(), canonical(kernel)
    widths, many = np.unique(received[received > 0], return_counts=True)
    total = 0.0
    for m, k in matrices if len(widths) else ():
        parts: dict[str, float] = {}
        for n, count in zip(widths.tolist(), many.tolist(), strict=True):
            for part, seconds in _spread(name, m, n, k, density, device).items():
                parts[part] = parts.get(part, 0.0) + count * seconds
        total += constants.call + norm(parts, constants.join)
    return total


@lru_cache(maxsize=65536)
def _spread(kernel: str, m: int, n: int, k: int, density: float, gpu: Gpu) -> dict[str, float]:
    """Parts of one matmul in seconds of the whole GPU, its blocks spread evenly: no waves, no split."""
    constants = fitted()
    bandwidth = gpu.dram_bytes_per_second
    parts = {"dram": (encoded_bytes(kernel, m, k, density) + 2.0 * n * (k + m)) / bandwidth}
    if kernel in OURS or kernel in COUNTED_PEERS:
        shape = tiles.tile(kernel, n, density)
        resident = gpu.resident_blocks(shape.threads, shape.registers, shape.shared_bytes)
        blocks, steps = m / shape.rows * -(-n // shape.columns), -(-k // shape.depth)
        counts = blocks / gpu.sms * (shape.block + steps * shape.step)
        rate = min(1.0, resident * shape.threads / 128 / constants.issue_latency)
        exposed = (
            steps
            * shape.step.barriers
            / (shape.threads / 32)
            * constants.exposed_share
            * gpu.dram_latency
            / shape.ahead
        )
        parts["issue"] = (counts.instructions / 4 / rate + exposed * blocks / gpu.sms / resident) / gpu.hertz
        parts |= {pipe: spent / gpu.hertz for pipe, spent in busy(counts, gpu).items()}
    elif kernel == "cublas":
        parts["tensor"] = 2.0 * m * n * k / (0.85 * gpu.tensor_tflops * 1e12)
    elif kernel == "sputnik":
        cycles = density * m * k * (constants.item_cycles + 2 * n / gpu.shared_bytes_per_clock)
        parts["cuda cores"] = cycles / gpu.sms / gpu.hertz
    else:
        raise PerfError(f"kernel {kernel!r} has no grouped form here: choose cublas, sputnik or a tiled kernel")
    return parts


@dataclass(frozen=True)
class Parallel:
    """Expert parallelism: seconds of every GPU's experts, and of the exchange of activations before and after."""

    experts: tuple[float, ...]
    all_to_all: float

    @property
    def seconds(self) -> float:
        """The busiest GPU plus the exchange."""
        return max(self.experts) + self.all_to_all


def expert_parallel(
    received: NDArray[np.int64],
    matrices: Sequence[tuple[int, int]],
    kernel: str,
    density: float,
    gpu: str | Gpu,
    gpus: int,
) -> Parallel:
    """Experts placed in order on `gpus` GPUs, tokens spread evenly over them before.

    all_to_all = 2 (base + busiest GPU's bytes that come from elsewhere / bandwidth): dispatch and combination.
    Raises PerfError unless gpus divides the experts.
    """
    from loadsparse.gpu.perfmodel.endtoend import CALL, PCIE, PROTOCOLS

    device = load(gpu)
    if gpus < 1 or len(received) % gpus:
        raise PerfError(f"{gpus} GPUs cannot share {len(received)} experts evenly: choose a divisor")
    shares = received.reshape(gpus, -1)
    times = tuple(experts_seconds(share, matrices, kernel, density, device) for share in shares)
    if gpus == 1:
        return Parallel(times, 0.0)
    hidden = matrices[0][1]
    bandwidth = 0.72 * device.nvlink_gbs * 1e9 / 2 if device.nvlink_gbs else PCIE
    moved = 2.0 * hidden * float(shares.sum(axis=1).max()) * (gpus - 1) / gpus
    base = CALL + PROTOCOLS[2][0]
    return Parallel(times, 2 * (base + moved / bandwidth))
