"""Score matrices to experiment on: laws of independent scores with density and distribution, and files.

A law knows its density and distribution function, so that the expected dual can be integrated as well as sampled (D8).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from loadsparse.reference import routing, traces

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class Law(Protocol):
    """Independent scores S_k in [0, 1], one distribution per expert."""

    @property
    def experts(self) -> int:
        """E."""

    def sample(self, rng: np.random.Generator, tokens: int) -> Floats:
        """Scores float64 [tokens, E]."""

    def cdf(self, x: Floats) -> Floats:
        """P(S_k <= x_k) for x [..., E]."""

    def pdf(self, x: Floats) -> Floats:
        """Density of S_k at x_k for x [..., E]; 0 outside [0, 1]."""


@dataclass(frozen=True)
class Uniform:
    """S_k uniform on [0, 1], independent and equal for all experts: the law with closed forms."""

    experts: int

    def sample(self, rng: np.random.Generator, tokens: int) -> Floats:
        """Scores float64 [tokens, E]."""
        return rng.random((tokens, self.experts))

    def cdf(self, x: Floats) -> Floats:
        """min(max(x, 0), 1)."""
        return np.clip(x, 0.0, 1.0)

    def pdf(self, x: Floats) -> Floats:
        """1 inside [0, 1], else 0."""
        return np.asarray((x >= 0) & (x <= 1), dtype=np.float64)


@dataclass(frozen=True)
class LogitNormal:
    """S_k = sigmoid(Z_k), Z_k normal with mean means[k] and standard deviation `deviation`: what a router's gate
    gives."""

    means: tuple[float, ...]
    deviation: float = 1.0

    @property
    def experts(self) -> int:
        """E."""
        return len(self.means)

    def sample(self, rng: np.random.Generator, tokens: int) -> Floats:
        """Scores float64 [tokens, E]."""
        noise = rng.standard_normal((tokens, self.experts))
        return np.asarray(special.expit(np.asarray(self.means) + self.deviation * noise), dtype=np.float64)

    def cdf(self, x: Floats) -> Floats:
        """Phi((logit x - mean) / deviation)."""
        inside = np.clip(x, 1e-300, 1 - 1e-16)
        value = special.ndtr((special.logit(inside) - np.asarray(self.means)) / self.deviation)
        return np.where(x <= 0, 0.0, np.where(x >= 1, 1.0, value))

    def pdf(self, x: Floats) -> Floats:
        """phi((logit x - mean) / deviation) / (deviation x (1 - x))."""
        inside = np.clip(x, 1e-300, 1 - 1e-16)
        z = (special.logit(inside) - np.asarray(self.means)) / self.deviation
        value = np.exp(-(z**2) / 2) / (np.sqrt(2 * np.pi) * self.deviation * inside * (1 - inside))
        return np.where((x <= 0) | (x >= 1), 0.0, value)


def skewed(experts: int, skew: float = 0.5, deviation: float = 1.0) -> LogitNormal:
    """Logit-normal scores whose means rise evenly from -skew to skew over the experts."""
    return LogitNormal(tuple(np.linspace(-skew, skew, experts).tolist()), deviation)


def load(path: str | Path, name: str | None = None) -> Array:
    """A score matrix from .npy (mapped, not read) or .npz (array `name`, or its only one); never a pickle.

    Raises ValueError that names the file and what is wrong with it.
    """
    file = Path(path)
    try:
        found = np.load(file, mmap_mode="r" if file.suffix == ".npy" else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            matrix: Array = found
        else:
            with found:
                names = list(found.files)
                if name is None and len(names) != 1:
                    raise ValueError(f"it holds {len(names)} arrays ({', '.join(names)}); say which")
                matrix = found[names[0] if name is None else name]
    except (OSError, EOFError, KeyError) as error:
        raise ValueError(f"cannot read {file}: {error}") from None
    except ValueError as error:
        raise ValueError(f"cannot read {file}: {error}") from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(
            f"{file} holds {matrix.dtype} of shape {matrix.shape}; scores are a real matrix [tokens, experts]"
        )
    return matrix


def named(text: str, seed: int = 0) -> Array:
    """Scores by name: a .npy or .npz file, ``trace:ARM/LAYER`` or ``trace:FILE.npz:ARM/LAYER`` of a trained layer
    (`reference.traces`), or ``skewed:T,E`` or ``skewed:T,E,SKEW`` drawn from `skewed` with the seed.

    Raises ValueError that says what is wrong.

    >>> named("skewed:5,4").shape
    (5, 4)
    """
    if text.startswith("trace:"):
        return traces.find(text.removeprefix("trace:")).scores.astype(np.float32)
    if not text.startswith("skewed:"):
        return load(text)
    try:
        tokens, experts, *more = text.removeprefix("skewed:").split(",")
        law = skewed(int(experts), *(float(skew) for skew in more))
        if len(more) > 1 or not 1 <= int(tokens) <= 2**26 or not 2 <= int(experts) <= 2**12:
            raise ValueError
        return law.sample(np.random.default_rng(seed), int(tokens))
    except ValueError:
        raise ValueError(f"{text}: give skewed:TOKENS,EXPERTS or skewed:TOKENS,EXPERTS,SKEW") from None


def check(scores: Array, k: int, block: int = 65536) -> None:
    """ValueError that names what is wrong: not a matrix, K outside 1..E-1, or the first NaN or infinity, block by
    block."""
    routing.checked_scores(scores[:1], k)
    if scores.shape[0] == 0:
        raise ValueError("scores hold no tokens")
    if k >= scores.shape[1]:
        raise ValueError(
            f"k must be below the number of experts {scores.shape[1]}, got {k}: otherwise nothing is to choose"
        )
    for start in range(0, scores.shape[0], block):
        part = np.asarray(scores[start : start + block])
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            token, expert = np.argwhere(~np.isfinite(part))[0]
            raise ValueError(f"scores[{start + token}, {expert}] is {part[token, expert]}; scores must be finite")
