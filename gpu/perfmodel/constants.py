"""The fitted constants, each with its unit, its meaning and the rows it was fitted on (data/fitted.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from loadsparse.gpu.perfmodel.gpu import DATA


@dataclass(frozen=True)
class Constants:
    """Seven fitted numbers; the bounds say what would be physical.

    call               seconds that a call costs beyond its bytes and cycles: launch, ramp, tail (cuBLAS rows)
    issue_latency      cycles between two instructions of one warp, mean (Flash-LLM rows; dependent ALU latency is 4)
    exposed_share      share of the DRAM latency that each barrier leaves in sight with one step ahead (Flash-LLM rows)
    join               exponent of the norm that joins what overlaps (Flash-LLM rows; infinite would be a plain maximum)
    item_cycles        multiprocessor cycles per CSR item (Sputnik rows)
    item_latency       cycles per item of a row walked alone (Sputnik rows)
    sparta_read_share  of the read bandwidth that SparTA's 2:4 kernel reaches (SparTA rows)
    spread             kernel -> largest relative error seen with the predicted shape left out of the fit
    """

    call: float = 14.6e-6
    issue_latency: float = 3.6
    exposed_share: float = 0.7
    join: float = 5.5
    item_cycles: float = 1.3
    item_latency: float = 65.0
    sparta_read_share: float = 0.8
    spread: Mapping[str, float] = field(default_factory=dict, compare=False)


@cache
def fitted() -> Constants:
    """The constants of data/fitted.json."""
    data = json.loads((DATA / "fitted.json").read_text(encoding="utf-8"))
    return Constants(**{name: row["value"] for name, row in data["constants"].items()}, spread=data["spread"])
