"""Cost of answering: prefill and decode of a model on tensor-parallel GPUs, out of kernels, cache, all-reduce and memory.

    step = layers * (matmuls + attention + small kernels + 2 all-reduces) + logits,
    attention = keys and values of all sequences at read bandwidth,    tokens/s = batch * output / (prefill + sum of steps).

A small kernel (layer norm, bias, activation, residual) costs what every call costs beyond its bytes, the fitted `call`.
How many of them a framework launches per layer, the memory it reserves and the all-reduce are priors, never fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from loadsparse.gpu.perfmodel import kernel as kernels
from loadsparse.gpu.perfmodel import moe
from loadsparse.gpu.perfmodel.constants import fitted
from loadsparse.gpu.perfmodel.gpu import Gpu, PerfError, load
from loadsparse.gpu.perfmodel.models import Model, get
from loadsparse.gpu.perfmodel.tile import encoded_bytes

SMALL_PER_LAYER = {"fastertransformer": 5, "deepspeed": 8}
"""Small kernels per layer, attention included.  FasterTransformer fuses layer norm, bias and residual; for DeepSpeed three
more are assumed (bias, transposition, cache copy apart)."""
PER_STEP = 10
"""Small kernels outside of the layers: two embeddings, last layer norm, transposition of gathered logits, penalties, two
stages of top-k, sampling, update of the sequences, stop test."""
RESERVED = 1.5 * 2**30
"""Bytes of CUDA context, communication buffers and matmul workspace on each GPU: a prior."""
PROTOCOLS = ((6.6e-6, 0.6e-6, 0.5), (14e-6, 1.9e-6, 0.95), (8.4e-6, 3.4e-6, 1.0))
"""NCCL ring protocols LL, LL128 and Simple: base latency, latency per hop, share of the bandwidth."""
CALL = 7e-6
"""Seconds that a framework adds to an all-reduce: 20 to 25 us are seen on 8 GPUs where NCCL's LL needs 15."""
PCIE = 25e9
"""Bytes per second between GPUs without NVLink."""
MEASURED = {"gpus": (2, 4), "batch": (8, 64), "prompt": (64, 64), "output": (512, 512), "sparsity": (0.8, 0.8)}
"""Least and most of the end-to-end measurements that judged the model (data/published.json)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    cache: float
    activations: float
    reserved: float
    available: float

    @property
    def total(self) -> float:
        """Bytes needed."""
        return self.weights + self.cache + self.activations + self.reserved


@dataclass(frozen=True)
class EndToEnd:
    """Predicted cost of one configuration; `tokens_per_gpu_second` is 0 where it does not fit.

    step       part -> seconds of a decode step of mean length
    notes      in what the question leaves the measurements that the model was judged on
    """

    model: str
    kernel: str
    gpus: int
    batch: int
    tokens_per_gpu_second: float
    fits: bool
    memory: Memory
    prefill_seconds: float
    decode_seconds: float
    step: Mapping[str, float] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def bound(self) -> str:
        """What most of a decode step goes to, or "memory" where it does not fit."""
        return max(self.step, key=lambda name: self.step[name]) if self.fits else "memory"

    def dollars_per_million_tokens(self, dollars_per_gpu_hour: float) -> float:
        """Price of a million output tokens; infinite where the model does not fit."""
        if not 0 <= dollars_per_gpu_hour < float("inf"):
            raise PerfError(f"a GPU-hour costs 0 dollars or more, got {dollars_per_gpu_hour}")
        if not self.fits:
            return float("inf")
        return dollars_per_gpu_hour / 3600 / self.tokens_per_gpu_second * 1e6


def all_reduce(size: float, gpus: int, gpu: Gpu) -> float:
    """Seconds to add `size` bytes over GPUs: base + 2 (g - 1) hops + 2 (g - 1)/g bytes / bandwidth, the best protocol.

    NVLink carries 0.72 of its one-way bandwidth (215 of 300 GB/s on an A100).
    """
    if gpus == 1:
        return 0.0
    bandwidth = 0.72 * gpu.nvlink_gbs * 1e9 / 2 if gpu.nvlink_gbs else PCIE
    moved = 2 * (gpus - 1) / gpus * size
    return CALL + min(base + 2 * (gpus - 1) * hop + moved / (share * bandwidth) for base, hop, share in PROTOCOLS)


@lru_cache(maxsize=65536)
def _matmul(kernel: str, m: int, n: int, k: int, density: float, gpu: Gpu) -> float:
    """Seconds of one call; weights of a model never stay in L2 from step to step."""
    constants = fitted()
    return kernels.work(kernel, m, n, k, density, gpu, constants, l2="flushed").seconds(constants.join)


def memory(
    model: Model, kernel: str, gpus: int, batch: int, gpu: Gpu, sparsity: float, length: int, prompt: int
) -> Memory:
    """Bytes on each GPU: encoded weights and embedding, keys and values of `length` tokens, activations of the prefill."""
    weights = sum(many * encoded_bytes(kernel, m, k, 1 - sparsity) for m, k, many in model.matrices(gpus))
    weights += (
        2.0 * model.vocab * model.hidden * (2 if model.gated else 1) / gpus
    )  # OPT ties input and output embedding
    cache = 2.0 * 2 * model.layers * model.kv_width * length * batch / gpus
    widest = max(m for m, _, _ in model.matrices(gpus))
    activations = 2.0 * batch * prompt * (4 * model.hidden + widest)
    return Memory(weights, cache, activations, RESERVED, gpu.memory_gib * 2**30)


def _layers(
    model: Model, kernel: str, gpus: int, tokens: int, gpu: Gpu, density: float, routed: moe.Routing, small: int
) -> dict[str, float]:
    """Seconds of all layers for `tokens` tokens at once, without attention over the cache."""
    moe_layers, call = model.layers - model.dense_layers if model.experts else 0, fitted().call
    parts = {
        "attention matmuls": model.layers
        * sum(_matmul(kernel, m, tokens, k, density, gpu) for m, k in model.attention_matmuls(gpus)),
        "mlp matmuls": (model.layers - moe_layers)
        * sum(_matmul(kernel, m, tokens, k, density, gpu) for m, k in model.mlp_matmuls(gpus)),
        "all-reduce": model.layers * 2 * all_reduce(2.0 * tokens * model.hidden, gpus, gpu),
        "small kernels": model.layers * small * (call + 4.0 * tokens * model.hidden / gpu.dram_bytes_per_second),
    }
    if moe_layers:
        matrices = model.mlp_matmuls(gpus, model.expert_ffn)
        expert = moe.mean_seconds(tokens, model.experts, model.top_k, routed, matrices, kernel, density, gpu)
        shared = (
            sum(
                _matmul(kernel, m, tokens, k, density, gpu)
                for m, k in model.mlp_matmuls(gpus, model.expert_ffn * model.shared)
            )
            if model.shared
            else 0.0
        )
        parts["experts"] = moe_layers * (expert + shared)
        parts["small kernels"] += moe_layers * 3 * call  # gate, permutation, combination
    return parts


def end_to_end(
    model: str | Model,
    kernel: str,
    gpus: int,
    batch: int,
    *,
    gpu: str | Gpu = "a100-80gb",
    sparsity: float = 0.8,
    prompt: int = 64,
    output: int = 512,
    routing: moe.Routing | str = "uniform",
) -> EndToEnd:
    """Tokens per GPU-second of `batch` sequences answered together on `gpus` tensor-parallel GPUs.

    kernel: a name of `kernel.NAMES`, or "fastertransformer" or "deepspeed": dense inference by those frameworks.  All
    other kernels run inside FasterTransformer, as Flash-LLM's does.  routing: how a MoE's tokens choose (see `moe`).
    Raises PerfError.

    >>> end_to_end("opt-66b", "fastertransformer", 2, 64).fits
    False
    """
    shape, device = get(model), load(gpu)
    framework = kernel if kernel in SMALL_PER_LAYER else "fastertransformer"
    name = "cublas" if kernel in SMALL_PER_LAYER else kernels.canonical(kernel)
    for what, value in (("gpus", gpus), ("batch", batch), ("prompt", prompt), ("output", output)):
        if not kernels.is_whole(value, 1, 2**24):
            raise PerfError(f"{what} must be a whole number from 1 to 16,777,216, got {value!r}")
    if (shape.kv_heads % gpus and gpus % shape.kv_heads) or shape.heads % gpus:
        raise PerfError(f"{gpus} GPUs cannot share the {shape.heads} heads of {shape.name}: choose a divisor")
    kernels.check_shape(1, 1, 1, sparsity)
    kernels.check_holds(name, sparsity)
    density = 1 - sparsity
    needs = memory(shape, name, gpus, batch, device, sparsity, prompt + output, prompt)
    routed = moe.Routing(routing) if isinstance(routing, str) else routed_as_given(routing)
    small = SMALL_PER_LAYER[framework]

    step = _layers(shape, name, gpus, batch, device, density, routed, small)
    length = prompt + (output - 1) / 2
    step["cache"] = 2 * 2.0 * shape.layers * shape.kv_width * length * batch / gpus / device.dram_bytes_per_second
    step["logits"] = _matmul("cublas", shape.vocab // gpus, batch, shape.hidden, 1.0, device) + PER_STEP * fitted().call
    step["logits"] += all_reduce(
        2.0 * shape.vocab * batch / 2, gpus, device
    )  # gathering moves half of what adding does
    decode = output * sum(step.values())

    many = batch * prompt
    prefill_parts = _layers(shape, name, gpus, many, device, density, routed, small)
    scores = 4.0 * batch * prompt**2 * shape.hidden * shape.layers / gpus / (0.5 * device.tensor_tflops * 1e12)
    prefill = sum(prefill_parts.values()) + scores + step["logits"]

    fits = needs.total <= needs.available
    rate = batch * output / (prefill + decode) / gpus if fits else 0.0
    return EndToEnd(
        shape.name,
        kernel,
        gpus,
        batch,
        rate,
        fits,
        needs,
        prefill,
        decode,
        step,
        _notes(shape, name, device, gpus=gpus, batch=batch, prompt=prompt, output=output, sparsity=sparsity),
    )


def routed_as_given(routing: moe.Routing) -> moe.Routing:
    """The routing itself; PerfError for anything else."""
    if not isinstance(routing, moe.Routing):
        raise PerfError(f"routing must be a name or a Routing, got {type(routing).__name__}")
    return routing


def _notes(model: Model, kernel: str, gpu: Gpu, **asked: float) -> tuple[str, ...]:
    notes = kernels.outside(kernel, int(asked["batch"]), asked["sparsity"], gpu)
    for what, (least, most) in MEASURED.items():
        if not least <= asked[what] <= most and not (what == "sparsity" and kernel == "cublas"):
            span = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            notes.append(f"{what} = {asked[what]:g} is outside the end-to-end measurements: {span}")
    if model.name != "opt-66b":
        notes.append(f"{model.name}: a prediction; end-to-end measurements that judged the model are of opt-66b only")
    if model.experts:
        notes.append("experts run as one grouped kernel per matrix, as if perfectly spread over the multiprocessors")
    return tuple(notes)


def batch_sweep(
    model: str | Model,
    kernel: str,
    gpus: int,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    **options: object,
) -> list[EndToEnd]:
    """end_to_end for several batches."""
    return [end_to_end(model, kernel, gpus, batch, **options) for batch in batches]  # type: ignore[arg-type]
