"""The arms of the experiment: how the experts' load is balanced, and nothing else, differs between them."""

from __future__ import annotations

from dataclasses import dataclass

from loadsparse.reference import balancing


@dataclass(frozen=True)
class Arm:
    """alpha: weight of the auxiliary loss, 0 for none; balancer: a rule of `reference.balancing` that moves the bias."""

    alpha: float = 0.0
    balancer: balancing.Balancer | None = None


def arms(k: int) -> dict[str, Arm]:
    """Every arm for K experts per token, those that carry the story first.

    >>> list(arms(6))[:4]
    ['none', 'loss 1e-2', 'sign 1e-3', 'quantile']
    """
    return {
        "none": Arm(),
        "loss 1e-2": Arm(alpha=1e-2),
        "sign 1e-3": Arm(balancer=balancing.SignBias(1e-3)),
        "quantile": Arm(balancer=balancing.QuantileBalancing(k)),
        "loss 1e-3": Arm(alpha=1e-3),
        "loss 1e-1": Arm(alpha=1e-1),
        "sign 1e-2": Arm(balancer=balancing.SignBias(1e-2)),
        "sign 1e-4": Arm(balancer=balancing.SignBias(1e-4)),
        "proportional 1e-2": Arm(balancer=balancing.ProportionalBias(1e-2)),
        "sign 1e-2/sqrt(n)": Arm(balancer=balancing.SignBias(1e-2, "1/sqrt(n)")),
        "sign 1e-3/n": Arm(balancer=balancing.SignBias(1e-3, "1/n")),
    }


def slug(name: str) -> str:
    """The name of an arm for files and traces.

    >>> slug("sign 1e-3/n")
    'sign-1e-3_over_n'
    """
    return name.replace(" ", "-").replace("/", "_over_")
