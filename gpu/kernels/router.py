"""The router of a mixture of experts in one kernel: gate, biased top-K, expert loads, and the ALF-LB bias step.

One warp routes one token: lane l holds experts l, l + 32, ...; K times the warp finds the largest key by two maxima
and one minimum over its lanes (redux.sync).  A key is s + p in float64, mapped to a uint64 of the same order, so the
choices equal `routing.top_k(s, K, p)` bit for bit, ties to the lower index included.  Loads are counted in shared memory,
then once per block in global memory; the last block to finish moves the bias, in integers up to the sign.

The gate, if fused, is float32 where the oracle is float64: a choice may differ only between experts whose
biased scores are no further apart than `margin_bound`, 7.2e-7 for the sigmoid, 8.8e-6 for a softmax of 64 experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import cuda, float32, float64, int64, uint32, uint64
from numpy.typing import NDArray

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import (
    add_global,
    add_shared,
    barrier,
    bits_of_f64,
    fence,
    load_global_f32,
    load_global_f64,
    load_shared,
    redux_max,
    redux_min,
    shared_base,
    store_global,
    store_global_f32,
    store_global_f64,
    store_shared,
)
from loadsparse.gpu.kernels.shelf import shelved

Gate = Literal["none", "sigmoid", "softmax"]

WARPS = 8
MAX_EXPERTS, MAX_K = 512, 16
ALL = 0xFFFFFFFF


@dataclass(frozen=True)
class Routed:
    """choices int32 [T, K] in descending s + p; scores float32 [T, K] of the choices, without bias; loads int32 [E];
    bias float64 [E] after the step."""

    choices: NDArray[np.int32]
    scores: NDArray[np.float32]
    loads: NDArray[np.int32]
    bias: NDArray[np.float64]


def margin_bound(gate: Gate, experts: int, *, largest_bias: float = 1.0) -> float:
    """Largest difference of two biased float64 scores whose order the float32 gate can reverse, where |p| <= largest_bias.

    Scores are at most 1, and with p = 0 each is off by at most half the bound.  Units of 2^-24 relative: exp 4 (2 ulp, CUDA C++
    Programming Guide), one for each of addition and division; softmax adds the rounding of x - max, whose effect on exp(-d) is
    d exp(-d) <= 1/e of one unit, and of E - 1 additions in the denominator, where each rounds by at most one unit and exp's 4
    recur.  Four sums s + p are compared, each rounded by half a step of float64.

    >>> [f"{margin_bound('sigmoid', 64, largest_bias=p):.1e}" for p in (1, 2.0**34)]
    ['7.2e-07', '8.3e-06']
    """
    if gate == "none":
        return 0.0
    units = {"sigmoid": 4 + 1 + 1, "softmax": 4 + 1 + 4 + (experts - 1) + 1 + 1}[gate]
    gated = 2 * units * 2.0**-24 * (1 + 2.0**-10)  # the last factor covers products of roundings
    return gated + 2 * float(np.spacing(largest_bias + 1))


@shelved
def compiled(per_lane: int, k: int, gate: Gate, arch: str) -> str:
    """PTX for up to 32 * per_lane experts and K choices."""
    sigmoid, softmax = gate == "sigmoid", gate == "softmax"

    def router(x, bias, choices, scores, loads, moved, ticket, tokens, experts, rate):
        thread = uint32(cuda.threadIdx.x)
        lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
        counts = shared_base()
        for e in range(thread, experts, uint32(32 * WARPS)):
            store_shared(uint32(counts + uint32(uint32(e) << uint32(2))), 0, uint32(0))
        barrier()

        keys = cuda.local.array(per_lane, uint64)
        values = cuda.local.array(per_lane, float32)
        token = uint32(uint32(cuda.blockIdx.x) * uint32(WARPS) + warp)
        while token < tokens:
            row = x + uint64(token) * uint64(experts) * uint64(4)
            for i in range(per_lane):
                e = uint32(lane + uint32(32 * i))
                values[i] = float32(-math.inf)
                if e < experts:
                    values[i] = load_global_f32(row + uint64(e) * uint64(4), 0)
            if sigmoid:
                for i in range(per_lane):
                    small = math.exp(-abs(values[i]))
                    above = float32(1) if values[i] >= float32(0) else small
                    values[i] = above / (float32(1) + small)
            if softmax:
                top = values[0]
                for i in range(1, per_lane):
                    top = max(top, values[i])
                for step in (16, 8, 4, 2, 1):
                    top = max(top, cuda.shfl_xor_sync(ALL, top, step))
                total = float32(0)
                for i in range(per_lane):
                    values[i] = math.exp(values[i] - top)
                    total += values[i]
                for step in (16, 8, 4, 2, 1):
                    total += cuda.shfl_xor_sync(ALL, total, step)
                for i in range(per_lane):
                    values[i] = values[i] / total
            for i in range(per_lane):
                e = uint32(lane + uint32(32 * i))
                keys[i] = uint64(0)  # below the key of every finite number
                if e < experts:
                    # the sum of two zeros of either sign may be -0: + 0.0 makes it +0, as comparison wants
                    bits = bits_of_f64(float64(values[i]) + load_global_f64(bias + uint64(e) * uint64(8)) + 0.0)
                    flip = uint64(0x8000000000000000)
                    if bits >= flip:
                        flip = uint64(0xFFFFFFFFFFFFFFFF)
                    keys[i] = bits ^ flip
            for r in range(k):
                best, where = uint64(0), uint32(ALL)
                for i in range(per_lane):
                    if keys[i] > best:
                        best, where = keys[i], uint32(lane + uint32(32 * i))
                high, low = uint32(best >> uint64(32)), uint32(best & uint64(ALL))
                top_high = redux_max(high)
                if high != top_high:
                    low, where = uint32(0), uint32(ALL)
                top_low = redux_max(low)
                if low != top_low:
                    where = uint32(ALL)
                winner = redux_min(where)
                for i in range(per_lane):
                    if uint32(lane + uint32(32 * i)) == winner:
                        keys[i] = uint64(0)
                        at = (uint64(token) * uint64(k) + uint64(r)) * uint64(4)
                        store_global(choices + at, 0, winner)
                        store_global_f32(scores + at, 0, values[i])
                        add_shared(uint32(counts + uint32(winner << uint32(2))), uint32(1))
            token = uint32(token + uint32(uint32(cuda.gridDim.x) * uint32(WARPS)))

        barrier()
        for e in range(thread, experts, uint32(32 * WARPS)):
            add_global(loads + uint64(e) * uint64(4), load_shared(uint32(counts + uint32(uint32(e) << uint32(2))), 0))
        fence()  # this thread's counts before its block's ticket
        barrier()
        if thread == uint32(0):
            store_shared(uint32(counts + uint32(experts << uint32(2))), 0, add_global(ticket, uint32(1)))
        barrier()
        if load_shared(uint32(counts + uint32(experts << uint32(2))), 0) == uint32(uint32(cuda.gridDim.x) - uint32(1)):
            fence()  # the last ticket before the other blocks' counts
            for e in range(thread, experts, uint32(32 * WARPS)):
                load = int64(add_global(loads + uint64(e) * uint64(4), uint32(0)))  # reads what other blocks added
                lacking = int64(tokens) * int64(k) - int64(experts) * load  # E (L - A), an integer
                p = load_global_f64(bias + uint64(e) * uint64(8))
                sign = float64(int64(lacking > int64(0)) - int64(lacking < int64(0)))
                store_global_f64(moved + uint64(e) * uint64(8), p + rate * sign)

    signature = "void(uint64, uint64, uint64, uint64, uint64, uint64, uint64, uint32, uint32, float64)"
    return compiler.numba(router, signature, arch, launch_bounds=32 * WARPS)


def check(x: NDArray[Any], bias: NDArray[Any], k: int, gate: str, rate: float) -> None:
    """Raise ValueError with one line unless x float32 [T, E], bias float64 [E] and rate are finite and E and K in reach."""
    if x.ndim != 2 or x.dtype != np.float32 or 0 in x.shape:
        raise ValueError(
            f"the router takes a float32 matrix [tokens, experts], one of each or more, got {x.dtype} of shape {x.shape}"
        )
    experts = x.shape[1]
    if experts > MAX_EXPERTS:
        raise ValueError(f"the router supports up to {MAX_EXPERTS} experts, got {experts}")
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= min(MAX_K, experts):
        raise ValueError(f"the router supports K from 1 to {min(MAX_K, experts)} for {experts} experts, got {k!r}")
    if bias.shape != (experts,) or bias.dtype != np.float64:
        raise ValueError(f"bias must be float64 of shape ({experts},), got {bias.dtype} of shape {bias.shape}")
    if not (np.isfinite(x).all() and np.isfinite(bias).all()):
        raise ValueError("the router takes finite scores and biases: there is a NaN or an infinity")
    if gate not in ("none", "sigmoid", "softmax"):
        raise ValueError(f"unknown gate {gate!r}: use 'none', 'sigmoid' or 'softmax'")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"rate must be a finite number >= 0, got {rate}: 0 leaves the bias")


def route(
    x: NDArray[np.float32],
    bias: NDArray[np.float64],
    k: int,
    *,
    gate: Gate = "none",
    rate: float = 0.0,
    arch: str = "sm_80",
    blocks: int | None = None,
    **options: Any,
) -> tuple[Routed, Any]:
    """Route T tokens in the simulator: (Routed, Report).

    x: float32 [T, E], scores with gate "none", logits otherwise.  bias: float64 [E], added to choose, never to weigh.  rate: u
    of the sign rule p + u sign(L - A); 0 leaves the bias.  blocks: grid size, by default enough for one token per warp,
    at most one wave of 108 x 8.  With a fused gate, choices differ from `routing.top_k` of the float64 gate only between
    experts whose s + p lie within `margin_bound`.  `options` go to the simulator's launch.
    Raises ValueError for what the kernel does not support.  Source: arXiv 2408.15664, Algorithm 1.

    >>> routed, report = route(np.float32([[0.3, 0.5, 0.5]]), np.zeros(3), 2, rate=0.5)
    >>> routed.choices.tolist(), routed.loads.tolist(), routed.bias.tolist(), report.ok
    ([[1, 2]], [0, 1, 1], [0.5, -0.5, -0.5], True)
    """
    from loadsparse.gpu import simulator

    x, bias = np.ascontiguousarray(x), np.ascontiguousarray(bias)
    check(x, bias, k, gate, rate)
    if compiler.capability(arch) < (8, 0):
        raise ValueError(f"architecture {arch} has no redux.sync: the router needs sm_80 or newer")
    tokens, experts = x.shape
    grid = blocks or min(-(-tokens // WARPS), 108 * 8)
    choices, scores = np.full((tokens, k), -1, np.int32), np.full((tokens, k), np.nan, np.float32)
    loads, moved, ticket = np.zeros(experts, np.int32), np.full(experts, np.nan), np.zeros(1, np.uint32)
    kernel = simulator.load(compiled(-(-experts // 32), k, gate, arch), arch=arch)["router"]
    report = kernel.launch(
        grid,
        32 * WARPS,
        x,
        bias,
        simulator.empty(choices),
        simulator.empty(scores),
        loads,
        simulator.empty(moved),
        ticket,
        np.uint32(tokens),
        np.uint32(experts),
        np.float64(rate),
        shared_bytes=4 * experts + 4,
        **options,
    )
    return Routed(choices, scores, loads, moved), report
