"""The expected dual per token, its gradient and Hessian, by quadrature (statement D8).

    f(p) = E[sum of the K largest S_k + p_k] - (K/E) sum_k p_k,    d f / d p_k = pi_k(p) - K/E,  pi_k = P(k selected),
    d pi_k / d p_j = -w_kj (k != j), rows sum to 0: the Hessian is the Laplacian of a graph on the experts,
    w_kj = int f_k(t - p_k) f_j(t - p_j) P(exactly K - 1 of the other E - 2 exceed t) dt >= 0.
On the complement of (1, ..., 1) the smallest eigenvalue mu = lambda_2 is the strong convexity, the largest beta the
smoothness, both only near p: starved experts are nearly flat directions. Scores are independent here; see
`sampled_load` for others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from loadsparse.reference import routing
from loadsparse.theory.score_laws import Law

Floats = npt.NDArray[np.float64]
NODES = 384  # quadrature nodes in all, at least 6 per smooth piece


def nodes(p: Floats, count: int = NODES) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights [M] on [min p, 1 + max p], split where a density starts or ends."""
    edges = np.unique(np.concatenate([p, p + 1.0]))
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-12])]
    share = np.diff(edges) / (edges[-1] - edges[0])
    points, weights = [], []
    for low, high, part in zip(edges[:-1], edges[1:], share, strict=True):
        x, w = special.roots_legendre(max(6, math.ceil(count * part)))
        points.append((high + low) / 2 + (high - low) / 2 * x)
        weights.append((high - low) / 2 * w)
    return np.concatenate(points), np.concatenate(weights)


def counts_below(above: Floats, k: int) -> Floats:
    """P(exactly j of the experts exceed t) for j < K, [K, ...], from the probabilities `above` [..., E]
    (Poisson-binomial)."""
    exactly = np.zeros((k, *above.shape[:-1]))
    exactly[0] = 1.0
    for e in range(above.shape[-1]):
        q = above[..., e]
        for j in range(k - 1, 0, -1):
            exactly[j] = exactly[j] * (1 - q) + exactly[j - 1] * q
        exactly[0] = exactly[0] * (1 - q)
    return exactly


def value(law: Law, k: int, p: npt.ArrayLike) -> float:
    """f(p) = K min p + int E[min(K, number above t)] dt - (K/E) sum p.

    >>> from loadsparse.theory.score_laws import Uniform
    >>> round(value(Uniform(2), 1, [0.0, 0.0]), 12)
    0.666666666667
    """
    bias = np.asarray(p, dtype=np.float64)
    t, weight = nodes(bias)
    exactly = counts_below(1 - law.cdf(t[:, None] - bias), k)
    expected = k - np.arange(k, 0, -1) @ exactly
    return float(k * bias.min() + weight @ expected - k / bias.size * bias.sum())


def values(law: Law, k: int, biases: Floats, count: int = 96) -> Floats:
    """f at many biases [B, E] at once with one fixed set of nodes: float64 [B], to about 1e-6 for smooth laws."""
    low, high = biases.min(axis=1), biases.max(axis=1) + 1
    x, w = special.roots_legendre(count)
    t = (high + low)[:, None] / 2 + (high - low)[:, None] / 2 * x
    exactly = counts_below(1 - law.cdf(t[:, :, None] - biases[:, None, :]), k)
    expected = k - np.tensordot(np.arange(k, 0, -1), exactly, axes=1)
    integral = (high - low) / 2 * (expected @ w)
    return np.asarray(k * low + integral - k / biases.shape[1] * biases.sum(axis=1), dtype=np.float64)


def _ends(above: Floats, k: int) -> tuple[list[Floats], list[Floats]]:
    """Counts of the first e and of the experts from e + 1 on, for every e: two lists of [K, M]."""
    experts = above.shape[1]
    one = np.zeros((k, above.shape[0]))
    one[0] = 1.0

    def grown(exactly: Floats, q: Floats) -> Floats:
        more = exactly * (1 - q)
        more[1:] += exactly[:-1] * q
        return np.asarray(more)

    before, after = [one], [one]
    for e in range(experts - 1):
        before.append(grown(before[-1], above[:, e]))
        after.append(grown(after[-1], above[:, experts - 1 - e]))
    return before, after[::-1]


def selected(law: Law, k: int, p: npt.ArrayLike) -> Floats:
    """pi_k(p) = P(expert k is among the K largest), float64 [E]: int f_k(t - p_k) P(fewer than K others exceed t)
    dt."""
    bias = np.asarray(p, dtype=np.float64)
    t, weight = nodes(bias)
    above, density = 1 - law.cdf(t[:, None] - bias), law.pdf(t[:, None] - bias)
    before, after = _ends(above, k)
    chance = np.empty(bias.size)
    for e in range(bias.size):
        few = sum((before[e][a] * after[e][: k - a].sum(axis=0) for a in range(k)), np.zeros(t.size))
        chance[e] = weight @ (density[:, e] * few)
    return chance


def edge_weights(law: Law, k: int, p: npt.ArrayLike) -> Floats:
    """w_kj(p), symmetric float64 [E, E] with zero diagonal."""
    bias = np.asarray(p, dtype=np.float64)
    experts = bias.size
    t, weight = nodes(bias)
    above, density = 1 - law.cdf(t[:, None] - bias), law.pdf(t[:, None] - bias)
    w = np.zeros((experts, experts))
    for e in range(experts - 1):
        rest = np.delete(above, e, axis=1)
        before, after = _ends(rest, k)
        for j in range(e + 1, experts):
            exact = (before[j - 1] * after[j - 1][::-1]).sum(axis=0)  # exactly K - 1 of the others
            w[e, j] = w[j, e] = weight @ (density[:, e] * density[:, j] * exact)
    return w


def laplacian(weights: Floats) -> Floats:
    """diag(row sums) - weights: the Hessian, with v'Hv = sum_{k<j} w_kj (v_k - v_j)^2."""
    return np.asarray(np.diag(weights.sum(axis=1)) - weights)


@dataclass(frozen=True)
class Curvature:
    """mu = lambda_2 and beta = lambda_max of the Hessian at one p; total = sum_{k<j} w_kj."""

    mu: float
    beta: float
    total: float


def curvature(law: Law, k: int, p: npt.ArrayLike) -> Curvature:
    """Eigenvalues of the Hessian on the complement of (1, ..., 1).

    >>> from loadsparse.theory.score_laws import Uniform
    >>> round(curvature(Uniform(4), 2, [0.0] * 4).mu, 9)
    1.333333333
    """
    w = edge_weights(law, k, p)
    eigenvalues = np.linalg.eigvalsh(laplacian(w))
    return Curvature(float(eigenvalues[1]), float(eigenvalues[-1]), float(w.sum() / 2))


def equal_weight(law: Law, k: int) -> float:
    """Closed form of w_kj for i.i.d. scores at p = 0: E[f(F^-1(Q))] / (E - 1), Q ~ Beta(E - K, K); 1 / (E - 1) if
    uniform."""
    experts = law.experts
    t, weight = nodes(np.zeros(experts))
    cdf, pdf = (
        law.cdf(np.repeat(t[:, None], experts, axis=1))[:, 0],
        law.pdf(np.repeat(t[:, None], experts, axis=1))[:, 0],
    )
    log_beta = special.betaln(experts - k, k)
    with np.errstate(divide="ignore"):  # log 0 where the density is 0 too
        shape = np.exp(special.xlogy(experts - k - 1, cdf) + special.xlog1py(k - 1, -cdf) - log_beta)
    return float(weight @ (pdf * pdf * np.where(pdf > 0, shape, 0.0)) / (experts - 1))


def minimiser(law: Law, k: int, steps: int = 60) -> Floats:
    """p* with pi_k(p*) = K/E for all k, centred, by damped Newton; RuntimeError if it is not reached to 1e-8."""
    experts = law.experts
    p = np.zeros(experts)
    gradient = selected(law, k, p) - k / experts
    for _ in range(steps):
        if np.abs(gradient).max() < 1e-8:
            return p
        hessian = laplacian(edge_weights(law, k, p)) + 1 / experts
        change = np.linalg.solve(hessian, -gradient)
        length = 1.0
        while length > 1e-6:
            trial = p + length * change
            slope = selected(law, k, trial) - k / experts
            if np.linalg.norm(slope) < np.linalg.norm(gradient):
                break
            length /= 2
        p, gradient = trial - trial.mean(), slope
    raise RuntimeError(f"no minimiser of the expected dual within {steps} Newton steps")


def sampled_load(scores: npt.ArrayLike, k: int, p: npt.ArrayLike) -> Floats:
    """pi(p) estimated from scores [T, E] of any law, correlated ones too: loads / T, standard error below 1 / (2 sqrt
    T)."""
    s = np.asarray(scores)
    return np.asarray(routing.loads(routing.top_k(s, k, p), s.shape[1]) / s.shape[0], dtype=np.float64)
