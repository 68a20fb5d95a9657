"""Build the claims ledger from the tests: `make claims` writes cli/claims.json.

A test backs a claim by carrying ``@pytest.mark.claim(id=..., phrase=..., status=..., assumption=..., function=...,
source=...)``; several tests may carry one id (the others may give the id alone).  promises.json lists, phrase by
phrase, what the two papers' abstracts and this project promise.  A promise names the claims that carry it (`by`) and
takes the weakest of their statuses, or `not yet` while one of them is missing; it names tests and states a status; or
it is `cited`, with its place.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "cli" / "claims.json"
PROMISES = ROOT / "tests" / "promises.json"
FIELDS = ("id", "source", "phrase", "assumption", "function", "status")
STRENGTH = ("not yet", "false without condition", "cited", "predicted", "measured", "compiled", "counted", "proved")
"""Weakest first."""


class ClaimError(ValueError):
    """A claim that contradicts itself, another claim, or the rules above."""


def tested(marked: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Rows by id from (test id, marker fields) pairs."""
    rows: dict[str, dict[str, Any]] = {}
    for test, fields in marked:
        unknown = set(fields) - set(FIELDS)
        if unknown or "id" not in fields:
            raise ClaimError(f"{test}: a claim has an id and {', '.join(FIELDS[1:])}, not {', '.join(sorted(unknown))}")
        row = rows.setdefault(fields["id"], {"id": fields["id"], "tests": []})
        for name, value in fields.items():
            if row.setdefault(name, value) != value:
                raise ClaimError(f"{test}: claim {fields['id']} has another {name} elsewhere")
        name = test.split("[")[0]
        if name not in row["tests"]:
            row["tests"].append(name)
    for row in rows.values():
        missing = [name for name in FIELDS if not isinstance(row.get(name), str)]
        if missing:
            raise ClaimError(f"claim {row['id']} lacks {', '.join(missing)}")
        if row["status"] not in STRENGTH[1:]:
            raise ClaimError(f"claim {row['id']}: a test cannot carry status {row['status']!r}")
        row["tests"].sort()
    return rows


def promised(promise: dict[str, Any], rows: dict[str, dict[str, Any]], collected: set[str]) -> dict[str, Any]:
    """The row of one promise, resting on the claims that exist."""
    if promise["id"] in rows:
        raise ClaimError(f"promise {promise['id']} and a claim share an id")
    base = {name: promise.get(name, "") for name in ("id", "source", "phrase", "assumption", "function")}
    if "tests" in promise:
        absent = [test for test in promise["tests"] if test not in collected]
        if absent or not promise["tests"]:
            raise ClaimError(f"promise {promise['id']}: no such test {', '.join(absent)}")
        if promise.get("status") not in STRENGTH[1:] or not all(base.values()):
            raise ClaimError(f"promise {promise['id']}: with tests, every field is stated")
        return {**base, "status": promise["status"], "tests": sorted(promise["tests"])}
    if "status" in promise:
        if promise["status"] != "cited" or not promise["source"]:
            raise ClaimError(f"promise {promise['id']}: without a test only 'cited', with its source, can be stated")
        return {**base, "status": "cited", "tests": []}
    carried = [rows[name] for name in promise["by"] if name in rows]
    if not carried:
        return {**base, "status": "not yet", "tests": []}
    missing = [name for name in promise["by"] if name not in rows]
    base["assumption"] = base["assumption"] or "see " + ", ".join(row["id"] for row in carried)
    base["function"] = base["function"] or carried[0]["function"]
    status = "not yet" if missing else min((row["status"] for row in carried), key=STRENGTH.index)
    return {**base, "status": status, "tests": sorted({test for row in carried for test in row["tests"]})}


def merge(
    marked: list[tuple[str, dict[str, Any]]], promises: list[dict[str, Any]], collected: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The ledger: promises in their order, then the claims of the tests by id; `collected` names every test."""
    rows, known = tested(marked), set(collected)
    if len({promise["id"] for promise in promises}) != len(promises):
        raise ClaimError("two promises share an id")
    ranked = [promised(promise, rows, known) for promise in promises] + [rows[name] for name in sorted(rows)]
    return [{name: row[name] for name in (*FIELDS, "tests")} for row in ranked]


class Collector:
    """Pytest plugin that keeps the claim markers of all collected tests."""

    def __init__(self) -> None:
        self.marked: list[tuple[str, dict[str, Any]]] = []
        self.collected: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.collected.add(item.nodeid.split("[")[0])
            for marker in item.iter_markers("claim"):
                self.marked.append((item.nodeid, dict(marker.kwargs)))


def collect() -> list[dict[str, Any]]:
    """The ledger as the tests state it now.  Raises ClaimError, also when a test file cannot be collected."""
    collector = Collector()
    arguments = ["--collect-only", "-qq", "-p", "no:cacheprovider", "--rootdir", str(ROOT), str(ROOT / "tests")]
    code = pytest.main(arguments, plugins=[collector])
    if code != pytest.ExitCode.OK:
        raise ClaimError(f"the tests cannot be collected (pytest exit code {int(code)})")
    return merge(collector.marked, json.loads(PROMISES.read_text(encoding="utf-8")), collector.collected)


def main() -> int:
    rows = collect()
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else LEDGER
    temporary = target.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
