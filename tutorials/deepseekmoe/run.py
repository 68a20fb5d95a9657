"""One run: one arm, one seed. It may be killed at any time and continues from its last checkpoint, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from loadsparse.gpu.simulator.engine import cache
from loadsparse.reference.balancing import State

from . import checkpoint, data, measure, model
from .arms import Arm, arms, slug


@dataclass(frozen=True)
class Setting:
    """Everything that decides the numbers of a run; plain values."""

    arm: str = "sign 1e-3"
    seed: int = 0
    steps: int = 800
    sequences: int = 8  # per batch
    rate: float = 3e-3  # of AdamW: warmed up over 5% of the steps, then a cosine to a tenth
    log_every: int = 20  # steps between measured batches
    evaluate_every: int = 200
    windows: int = 512  # of the validation text at the end; an eighth of them before
    corpus: str = ""  # SHA-256 of the text
    model: dict[str, int] = field(default_factory=lambda: model.Config().to_dict())

    def __post_init__(self) -> None:
        known = arms(self.config.k)
        if self.arm not in known:
            raise ValueError(f"unknown arm {self.arm!r}; known: {', '.join(known)}")
        if min(self.steps, self.sequences, self.log_every, self.evaluate_every, self.windows // 8) < 1 or self.seed < 0:
            raise ValueError(
                "steps, sequences and intervals must be at least 1, windows at least 8, the seed at least 0"
            )
        if self.sequences * self.config.sequence >= 2**16:
            raise ValueError("a batch must hold fewer than 65,536 bytes: its loads are kept in 16 bits")

    @property
    def config(self) -> model.Config:
        """The model."""
        return model.Config(**self.model)

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{slug(self.arm)}-{self.seed}"


def optimiser(setting: Setting) -> optax.GradientTransformation:
    """AdamW on matrices with decay 0.1, on norms without; gradients clipped to norm 1."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, setting.rate, max(1, setting.steps // 20), setting.steps, setting.rate / 10
    )
    adam = optax.adamw(schedule, b2=0.95, weight_decay=0.1, mask=lambda w: jax.tree.map(lambda x: x.ndim > 1, w))
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def keep_programs() -> None:
    """XLA's programs stay on disk beside the simulator's: runs in other processes, and resumed ones, need not compile."""
    folder = cache.directory()
    if folder is not None and jax.config.jax_compilation_cache_dir is None:
        folder /= cache.key("xla", jax.__version__)
        cache.trim(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))


@lru_cache(maxsize=4)
def compiled(config: model.Config, steps: int, rate: float) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(training step, bits and routings of a text): the same programs for every arm, so that all cost the same."""
    keep_programs()
    rule = optimiser(Setting(steps=steps, rate=rate))

    def step(weights: Any, moments: Any, text: Any, biases: Any, alpha: Any) -> tuple[Any, Any, Any, Any]:
        gradient, (bits, routings) = jax.grad(model.loss, has_aux=True)(weights, text, biases, alpha, config)
        updates, moments = rule.update(gradient, moments, weights)
        return optax.apply_updates(weights, updates), moments, bits, routings

    return jax.jit(step, donate_argnums=(0, 1)), jax.jit(lambda w, t, b: model.loss(w, t, b, 0.0, config)[1])


@dataclass
class Progress:
    """What a run knows after `step` steps; the arrays are filled up to there."""

    weights: Any
    moments: Any
    biases: np.ndarray  # float64 [layers, E]
    step: int
    bits: np.ndarray  # float32 [steps], of each training batch
    loads: np.ndarray  # uint16 [steps, layers, E]
    met: np.ndarray  # float64 [steps, layers, E]: the biases each batch was routed with
    measured: np.ndarray  # float64 [logs, layers, fields of Measured]
    validation: np.ndarray  # float64 [evaluations]: bits per byte
    validation_loads: np.ndarray  # int64 [evaluations, layers, E]
    seconds: np.ndarray  # float64 [1]: CPU seconds so far

    RECORDS = ("bits", "loads", "met", "measured", "validation", "validation_loads", "seconds")

    def to_arrays(self) -> checkpoint.Arrays:
        """Named arrays for a checkpoint."""
        kept = {name: getattr(self, name) for name in (*self.RECORDS, "biases")} | {"step": np.asarray(self.step)}
        return kept | checkpoint.flatten("weights", self.weights) | checkpoint.flatten("moments", self.moments)


def start(setting: Setting) -> Progress:
    """Before the first step."""
    config = setting.config
    weights = model.init(config, setting.seed)
    layers, experts, steps = config.layers, config.routed, setting.steps
    logs, evaluations = len(range(0, steps, setting.log_every)), -(-steps // setting.evaluate_every)
    return Progress(
        weights, optimiser(setting).init(weights), np.zeros((layers, experts)), 0,
        np.zeros(steps, np.float32), np.zeros((steps, layers, experts), np.uint16), np.zeros((steps, layers, experts)),
        np.full((logs, layers, len(measure.FIELDS)), np.nan),
        np.zeros(evaluations), np.zeros((evaluations, layers, experts), np.int64), np.zeros(1),
    )  # fmt: skip


def resume(setting: Setting, path: Path) -> Progress:
    """From the checkpoint if there is one; ValueError if it belongs to another setting."""
    fresh, arrays = start(setting), checkpoint.load(path)
    if arrays is None:
        return fresh
    expected = fresh.to_arrays()
    for name in (*Progress.RECORDS, "biases", "step"):
        fits = name in arrays and (arrays[name].shape, arrays[name].dtype) == (
            expected[name].shape,
            expected[name].dtype,
        )
        if not fits or (name == "step" and not 0 <= arrays[name] <= setting.steps):
            raise ValueError(f"{path} belongs to another setting: {name} does not fit; remove it to start anew")
    records = {name: arrays[name] for name in Progress.RECORDS}
    weights = checkpoint.restore("weights", arrays, fresh.weights)
    moments = checkpoint.restore("moments", arrays, fresh.moments)
    return Progress(weights, moments, arrays["biases"], int(arrays["step"]), **records)


def moved_biases(arm: Arm, biases: np.ndarray, step: int, routings: list[model.Routing]) -> np.ndarray:
    """The biases [layers, E] after one batch, by the reference balancer itself."""
    if arm.balancer is None:
        return biases
    new = []
    for bias, routing in zip(biases, routings, strict=True):
        seen = routing.scores if arm.balancer.needs == "scores" else routing.loads
        new.append(arm.balancer.step(State(bias, step), np.asarray(seen)).bias)
    return np.asarray(new)


def evaluate(weights: Any, biases: np.ndarray, text: data.Bytes, sequences: int, look: Callable[..., Any]) -> Any:
    """(bits per byte, loads [layers, E]) over text [windows, sequence + 1], `sequences` windows at a time."""
    p = jnp.asarray(biases, jnp.float32)
    bits, loads = 0.0, np.zeros(biases.shape, np.int64)
    for first in range(0, len(text), sequences):
        part = text[first : first + sequences]
        mean, routings = look(weights, jnp.asarray(part), p)
        bits += float(mean) * len(part) / len(text)
        loads += np.asarray([routing.loads for routing in routings])
    return bits, loads


def scores_file(path: Path, shape: tuple[int, ...], fresh: bool) -> np.ndarray:
    """The logged scores float32 [logs, layers, T, E], mapped from a file; ValueError where a resumed run's do not fit."""
    if fresh:
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    try:
        found = np.lib.format.open_memmap(path, mode="r+")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not the record of this run ({error}): remove its folder to start anew") from None
    if found.shape != shape or found.dtype != np.float32:
        raise ValueError(f"{path} belongs to another setting: remove its folder to start anew")
    return found


def run(setting: Setting, folder: Path, checkpoint_every: int = 50) -> tuple[Progress, np.ndarray]:
    """Train to the end; the final progress and the logged scores float32 [logs, layers, T, E] (mapped from a file).

    Files: `folder`/NAME/checkpoint.npz and scores.npy. ValueError where the text is not the setting's.
    """
    text = data.standard_library()
    if setting.corpus not in ("", text.sha256):
        raise ValueError("this Python's standard library is not the text of that setting: use the same Python version")
    config, arm = setting.config, arms(setting.config.k)[setting.arm]
    place = folder / setting.name / "checkpoint.npz"
    now = resume(setting, place)
    train, look = compiled(config, setting.steps, setting.rate)
    place.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(now.measured), config.layers, setting.sequences * config.sequence, config.routed)
    logged = scores_file(place.with_name("scores.npy"), shape, fresh=now.step == 0)
    alpha, since = jnp.float32(arm.alpha), time.process_time()
    for step in range(now.step, setting.steps):
        batch = jnp.asarray(text.batch(setting.seed, step, setting.sequences, config.sequence))
        p = jnp.asarray(now.biases, jnp.float32)
        now.weights, now.moments, bits, routings = train(now.weights, now.moments, batch, p, alpha)
        now.bits[step], now.loads[step], now.met[step] = bits, [r.loads for r in routings], now.biases
        new = moved_biases(arm, now.biases, step, routings)
        if step % setting.log_every == 0:
            row = step // setting.log_every
            _, then = look(now.weights, batch, jnp.asarray(new, jnp.float32))
            for layer, (routing, after) in enumerate(zip(routings, then, strict=True)):
                logged[row, layer] = routing.scores
                change = None if arm.balancer is None else new[layer] - now.biases[layer]
                now.measured[row, layer] = measure.measure(
                    routing.scores, config.k, now.biases[layer], change, after.scores
                )
        now.biases, now.step = new, step + 1
        last = now.step == setting.steps
        if now.step % setting.evaluate_every == 0 or last:
            windows = text.windows(setting.windows if last else setting.windows // 8, config.sequence)
            at = -(-now.step // setting.evaluate_every) - 1
            now.validation[at], now.validation_loads[at] = evaluate(
                now.weights, now.biases, windows, setting.sequences, look
            )
        if now.step % checkpoint_every == 0 or last:
            since, spent = time.process_time(), time.process_time() - since
            now.seconds += spent
            logged.flush()
            checkpoint.save(place, now.to_arrays())
    return now, logged


def summary(task: dict[str, Any], folder: str) -> dict[str, Any]:
    """A setting as a task for `theory.experiment`: the run's record as plain numbers, curves at every log step."""
    setting = Setting(**task)
    now, logged = run(setting, Path(folder))
    layers = range(setting.config.layers)
    batch_violation = measure.max_violations(now.loads)  # [steps, layers]
    regrets = [
        measure.regret(logged[:, layer], setting.config.k, now.met[:: setting.log_every, layer]) for layer in layers
    ]
    every, late = setting.log_every, now.loads[3 * setting.steps // 4 :]
    means = [float(now.bits[first : first + every].mean()) for first in range(0, setting.steps, every)]
    violations = [
        batch_violation[first : first + every].mean(axis=0).tolist() for first in range(0, setting.steps, every)
    ]
    return {
        "bits": rounded(means),
        "max_violation": rounded(violations),
        "validation": rounded(now.validation.tolist()),
        "pooled_max_violation": rounded(measure.max_violations(late.sum(axis=0, dtype=np.int64)).tolist()),
        "validation_max_violation": rounded(measure.max_violations(now.validation_loads).tolist()),
        "measured": {
            name: rounded(now.measured[:, :, i].tolist(), 6) for i, name in enumerate(measure.FIELDS)
        },
        "regret": rounded(regrets, 6),
        "spread": rounded([float(np.ptp(now.met[:, layer], axis=1).max()) for layer in layers]),
        "biases": rounded(now.biases.tolist(), 6),
        "cpu_seconds": round(float(now.seconds[0]), 1),
    }  # fmt: skip


def rounded(values: Any, digits: int = 5) -> Any:
    """Nested lists with floats rounded, NaN as None (JSON has none)."""
    if isinstance(values, list):
        return [rounded(value, digits) for value in values]
    return None if values != values else round(values, digits)


def to_task(setting: Setting) -> dict[str, Any]:
    """The setting as JSON keeps it."""
    return asdict(setting)
