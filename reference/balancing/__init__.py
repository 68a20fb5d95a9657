"""Balancers: rules that keep the loads of experts even. One file each; which to choose:

| name | sees | causal | exact balance | tune |
|---|---|---|---|---|
| SignBias | loads | yes | up to a band | rate, schedule |
| ProportionalBias | loads | yes | up to sampling | rate and its unit |
| QuantileBalancing | scores | yes | up to sampling | nothing |
| Sinkhorn | scores | `step` yes, `assign` no | of the plan | temperature |
| Auction (BASE) | scores | no | yes, K = 1 | epsilon |
| ExpertChoice | scores | no | yes | nothing |
| switch_loss, sequence_loss, z_loss | the router's gradient | yes | no | coefficient |
"""

from __future__ import annotations

from collections.abc import Callable

from loadsparse.reference.balancing.auction import Auction
from loadsparse.reference.balancing.auxiliary import Loss, sequence_loss, switch_loss, z_loss
from loadsparse.reference.balancing.expert_choice import ExpertChoice, leaked_bits
from loadsparse.reference.balancing.proportional import ProportionalBias
from loadsparse.reference.balancing.protocol import Balancer, State
from loadsparse.reference.balancing.quantile import QuantileBalancing
from loadsparse.reference.balancing.sign import SignBias
from loadsparse.reference.balancing.sinkhorn import Sinkhorn

# name -> balancer for K experts per token; what `loadsparse balance` and `theory.compare` offer
BALANCERS: dict[str, Callable[[int], Balancer]] = {
    "sign": lambda k: SignBias(),
    "sign-1/sqrt(n)": lambda k: SignBias(rate=0.01, schedule="1/sqrt(n)"),
    "proportional": lambda k: ProportionalBias(),
    "proportional-1/sqrt(n)": lambda k: ProportionalBias(rate=0.1, schedule="1/sqrt(n)"),
    "quantile": lambda k: QuantileBalancing(k=k),
    "sinkhorn": lambda k: Sinkhorn(temperature=0.05, tolerance=1e-3),
}


def get(name: str, k: int) -> Balancer:
    """The balancer of that name in BALANCERS, for K experts per token; ValueError lists the names.

    >>> get("sign", 8)
    SignBias(rate=0.001, schedule='constant', offset=0.0, centred=False)
    """
    if name not in BALANCERS:
        raise ValueError(f"unknown balancer {name!r}; known: {', '.join(BALANCERS)}")
    return BALANCERS[name](k)


__all__ = [
    "BALANCERS",
    "Auction",
    "Balancer",
    "ExpertChoice",
    "Loss",
    "ProportionalBias",
    "QuantileBalancing",
    "SignBias",
    "Sinkhorn",
    "State",
    "get",
    "leaked_bits",
    "sequence_loss",
    "switch_loss",
    "z_loss",
]
