"""The claims ledger is what the tests say: current, complete, and every name in it exists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from loadsparse.cli import claims  # noqa: E402

FIELDS: dict[str, Any] = {
    "id": "X1", "source": "s", "phrase": "p", "assumption": "a", "function": "loadsparse.cli.claims.ledger", "status": "proved",
}  # fmt: skip


def test_packaged_ledger_is_current(tmp_path: Path) -> None:
    """`make claims` would write what is packaged; run it after changing a claim."""
    fresh = tmp_path / "claims.json"
    subprocess.run([sys.executable, str(ROOT / "tests" / "claims.py"), str(fresh)], check=True, capture_output=True)
    assert json.loads(fresh.read_text(encoding="utf-8")) == claims.ledger()
