"""Auxiliary losses: balance by a term of the training loss, with value and hand-written gradient.

Their gradient reaches the router's weights and disturbs the language loss, which is what ALF-LB avoids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """value without unit; gradient float64, d value / d input, of the input's shape."""

    value: float
    gradient: Floats


def switch_loss(
    probabilities: npt.ArrayLike, choices: npt.ArrayLike, alpha: float = 1e-2, counts: npt.ArrayLike | None = None
) -> Loss:
    """alpha E sum_k f_k P_k with f_k = A_k / (T K), P_k = mean_i probabilities_ik; gradient for the probabilities [T,
    E].

    f is a count and has no gradient. counts: loads int [E] to use for f instead of this batch's own; the sum over all
    micro-batches and devices makes it the global-batch loss. 1 per alpha at perfect balance with even P.
    Source: Switch Transformer, GShard; global batch: arXiv 2501.11873.

    >>> switch_loss([[0.5, 0.5], [0.5, 0.5]], [[0], [1]], alpha=1.0).value
    1.0
    """
    prob = np.asarray(probabilities, dtype=np.float64)
    tokens, experts = prob.shape
    used = routing.loads(choices, experts) if counts is None else routing.checked_loads(counts)
    share = used / used.sum()
    value = alpha * experts * float(share @ prob.mean(axis=0))
    return Loss(value, np.tile(alpha * experts * share / tokens, (tokens, 1)))


def sequence_loss(scores: npt.ArrayLike, k: int, sequences: int = 1, alpha: float = 1e-4) -> Loss:
    """alpha sum_k f_k P_k per sequence, averaged; f_k = E / (K T) #{top-K of s WITHOUT bias}, P_k = mean_i s_ik /
    sum_j s_ij.

    scores [sequences * T, E], positive, one sequence after the other; the gradient is for the scores.
    Source: DeepSeek-V3, arXiv 2412.19437.

    >>> sequence_loss([[0.5, 0.5], [0.5, 0.5]], 1, alpha=1.0).value
    1.0
    """
    s = routing.checked_scores(scores, k).astype(np.float64)
    if sequences < 1 or s.shape[0] % sequences:
        raise ValueError(f"{s.shape[0]} tokens are not {sequences} sequences of equal length")
    tokens, experts = s.shape[0] // sequences, s.shape[1]
    total = s.sum(axis=1, keepdims=True)
    share = s / total
    value, gradient = 0.0, np.empty_like(s)
    for start in range(0, s.shape[0], tokens):
        rows = slice(start, start + tokens)
        f = routing.loads(routing.top_k(s[rows], k), experts) * (experts / (k * tokens))
        value += alpha * float(f @ share[rows].mean(axis=0)) / sequences
        # d(s_k / sum s) = (ds_k - share_k sum ds) / sum s
        gradient[rows] = alpha * (f - share[rows] @ f[:, None]) / (total[rows] * s.shape[0])
    return Loss(value, gradient)


def z_loss(logits: npt.ArrayLike, coefficient: float = 1e-3) -> Loss:
    """coefficient mean_i (log sum_k exp x_ik)^2 and its gradient for the logits [T, E]. Source: ST-MoE.

    >>> z_loss([[0.0]], 1.0).value
    0.0
    """
    x = np.asarray(logits, dtype=np.float64)
    top = x.max(axis=1, keepdims=True)
    z = top + np.log(np.exp(x - top).sum(axis=1, keepdims=True))
    return Loss(coefficient * float((z**2).mean()), 2 * coefficient * z * np.exp(x - z) / x.shape[0])
