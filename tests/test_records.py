"""Promises of speed in the claims ledger: a record of tests/benchmarks/record.py carries one where it meets every bar."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pytest

RECORDS: dict[str, Any] = json.loads((Path(__file__).parent / "benchmarks" / "records.json").read_text())


def meets(record: dict[str, Any]) -> bool:
    """Whether every number is on the good side of its bar."""
    return all(
        one["measured"] >= one["bar"] if one["least"] else one["measured"] <= one["bar"] for one in record["numbers"]
    )


def claimed(name: str, record: dict[str, Any]) -> dict[str, str]:
    """The ledger's row of a record."""
    found = "; ".join(
        f"{one['what']}: {one['measured']:g} (bar {'at least' if one['least'] else 'at most'} {one['bar']:g})"
        for one in record["numbers"]
    )
    return {
        "id": name, "source": "ours", "phrase": found, "status": "measured", "function": record["function"],
        "assumption": f"{record['how']} {record['machine']}, load {record['load']:g}, {record['date']}; "
        f"repeat: python tests/benchmarks/record.py {name}",
    }  # fmt: skip


def marked() -> list[Any]:
    return [
        pytest.param(record, id=name, marks=[pytest.mark.claim(**claimed(name, record))] if meets(record) else [])
        for name, record in RECORDS.items()
    ]


@pytest.mark.parametrize("record", marked())
def test_record_is_whole(record: dict[str, Any]) -> None:
    """Somebody else can repeat it; numbers are finite, and none is zero, which nothing real measures."""
    assert record["numbers"]
    assert all(math.isfinite(one["measured"]) and one["measured"] > 0 < one["bar"] for one in record["numbers"])
    assert record["machine"].strip()
    assert record["how"].strip()
    assert record["load"] >= 0
    datetime.date.fromisoformat(record["date"])


def test_the_bars_are_those_promised() -> None:
    promises = json.loads((Path(__file__).parent / "promises.json").read_text())
    carried = {name: promise["phrase"] for promise in promises for name in promise.get("by", ()) if name in RECORDS}
    assert set(carried) == set(RECORDS)
    bars = {name: [f"{one['bar']:g}" for one in record["numbers"]] for name, record in RECORDS.items()}
    assert bars["simulator-speed"] == ["1e+09"]
    assert "1e9 thread-instructions per second" in carried["simulator-speed"]
    assert bars["largest-layer"] == ["15", "8"]
    assert "at most 15 s and 8 GB" in carried["largest-layer"]
    assert set(bars["packing-speed"]) == {"5"}
    assert "at least 5 times" in carried["packing-speed"]
    assert bars["assignment-speed"][0] == "10"
    assert "is 10 times as fast" in carried["assignment-speed"]


@pytest.mark.parametrize(("measured", "bar", "least"), [(0.99, 1, True), (1.01, 1, False), (math.nan, 1, True)])
def test_a_missed_bar_carries_no_claim(measured: float, bar: float, least: bool) -> None:
    good = {"what": "x", "measured": 2.0, "bar": 1, "least": True}
    assert meets({"numbers": [good]})
    assert not meets({"numbers": [good, {"what": "y", "measured": measured, "bar": bar, "least": least}]})
