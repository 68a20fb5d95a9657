"""The claims ledger is what the tests say: current, complete, and every name in it exists."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loadsparse.cli import claims
from loadsparse.cli.main import app

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("claims_builder", ROOT / "tests" / "claims.py")
assert SPEC is not None
assert SPEC.loader is not None
builder = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(builder)

CLAIM: dict[str, Any] = {
    "id": "X1",
    "source": "s",
    "phrase": "p",
    "assumption": "a",
    "function": "loadsparse.cli.claims.ledger",
    "status": "proved",
}
PROMISE: dict[str, Any] = {"id": "P", "source": "paper", "phrase": "faster", "by": ["X1", "X2"]}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The ledger that `make claims` would write now."""
    target = tmp_path_factory.mktemp("claims") / "claims.json"
    command = [sys.executable, str(ROOT / "tests" / "claims.py"), str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(target.read_text(encoding="utf-8"))
    return rows


def test_packaged_ledger_is_current(fresh: list[dict[str, Any]]) -> None:
    """Run `make claims` after changing a claim."""
    assert fresh == claims.ledger()


def test_every_named_function_exists(fresh: list[dict[str, Any]]) -> None:
    for row in fresh:
        for name in filter(None, (part.strip() for part in row["function"].split(","))):
            parts = name.split(".")
            for cut in range(len(parts), 0, -1):
                try:
                    found: Any = importlib.import_module(".".join(parts[:cut]))
                    break
                except ModuleNotFoundError:
                    continue
            for attribute in parts[cut:]:
                found = getattr(found, attribute)


def test_strong_statuses_rest_on_tests(fresh: list[dict[str, Any]]) -> None:
    for row in fresh:
        assert row["status"] in claims.STATUSES
        assert bool(row["tests"]) or row["status"] in ("cited", "not yet")
        for test in row["tests"]:
            path, name = test.split("::", 1)
            assert f"def {name.split('::')[-1]}(" in (ROOT / path).read_text(encoding="utf-8")


def test_both_abstracts_are_covered(fresh: list[dict[str, Any]]) -> None:
    sources = [row["source"] for row in fresh]
    assert sum("2309.10285" in source for source in sources) >= 12
    assert sum("2512.03915" in source for source in sources) >= 10
    assert sum(source.startswith("loadsparse") for source in sources) >= 10


def test_promise_takes_the_weakest_status() -> None:
    weak = {**CLAIM, "id": "X2", "status": "predicted"}
    row = builder.merge([("t::a", CLAIM), ("t::b[1]", weak), ("t::b[2]", weak)], [PROMISE])[0]
    assert (row["status"], row["tests"]) == ("predicted", ["t::a", "t::b"])


def test_promise_without_a_test_is_not_yet() -> None:
    assert builder.merge([], [PROMISE])[0]["status"] == "not yet"


@pytest.mark.parametrize(
    ("marked", "promises", "message"),
    [
        ([("t::a", {**CLAIM, "colour": "red"})], [], "colour"),
        ([("t::a", {key: CLAIM[key] for key in CLAIM if key != "source"})], [], "lacks source"),
        ([("t::a", CLAIM), ("t::b", {**CLAIM, "status": "cited"})], [], "another status"),
        ([("t::a", {**CLAIM, "status": "not yet"})], [], "cannot carry"),
        ([("t::a", {**CLAIM, "status": "certain"})], [], "cannot carry"),
        ([], [{**PROMISE, "status": "proved"}], "only 'cited'"),
        ([], [PROMISE, PROMISE], "share an id"),
        ([], [{**CLAIM, "tests": ["t::gone"]}], "no such test t::gone"),
        ([], [{**CLAIM, "tests": []}], "no such test"),
        ([], [{**CLAIM, "tests": ["t::known"], "status": "not yet"}], "every field is stated"),
        ([], [{**CLAIM, "tests": ["t::known"], "assumption": ""}], "every field is stated"),
        ([("t::a", CLAIM)], [{**PROMISE, "id": "X1"}], "share an id"),
    ],
)
def test_ledger_refuses_contradictions(marked: Any, promises: Any, message: str) -> None:
    with pytest.raises(builder.ClaimError, match=message):
        builder.merge(marked, promises, ["t::known"])


def test_command_lists_and_filters() -> None:
    runner = CliRunner()
    everything = json.loads(runner.invoke(app, ["claims", "--json"]).stdout)["claims"]
    assert everything == claims.ledger()
    open_rows = json.loads(runner.invoke(app, ["claims", "--json", "--status", "cited"]).stdout)["claims"]
    assert open_rows == [row for row in everything if row["status"] == "cited"]
    table = runner.invoke(app, ["claims", "--plain"])
    assert table.exit_code == 0
    assert "not yet" in table.stdout
    wrong = runner.invoke(app, ["claims", "--status", "true"])
    assert wrong.exit_code == 2
    assert "unknown status 'true'" in wrong.stderr
