"""How long a command keeps a person waiting: `loadsparse --help` (bar 0.5 s) and a cold `puzzle check 1` (bar 3 s).

Wall time of whole processes, the best of several, and their CPU time, which neighbours on the machine do not lengthen;
beside them an empty Python process, so that a slow machine is seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
SOLUTION = Path(__file__).parents[1] / "puzzles" / "solutions" / "01_one_thread_adds.py"
COMMAND = [sys.executable, "-m", "loadsparse.cli.main"]
ROWS = (
    ("python -c pass", [sys.executable, "-c", "pass"], None),
    ("loadsparse --help", [*COMMAND, "--help"], 0.5),
    ("loadsparse puzzle list", [*COMMAND, "puzzle", "list"], None),
    ("loadsparse puzzle check 1", [*COMMAND, "puzzle", "check", "1", str(SOLUTION)], 3.0),
)


def once(words: list[str]) -> tuple[float, float]:
    """(wall, CPU) seconds of a process and its children."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, cwd=tempfile.gettempdir())
    wall, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used


def main() -> int:
    passed = True
    print(f"best of {REPEATS}; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else f"best of {REPEATS}")
    print(f"{'command':28}{'wall':>9}{'CPU':>9}{'bar (wall)':>12}")
    for name, words, bar in ROWS:
        walls, cpus = zip(*(once(words) for _ in range(REPEATS)), strict=True)
        passed &= bar is None or min(walls) <= bar
        print(f"{name:28}{min(walls):7.2f} s{min(cpus):7.2f} s{f'{bar:.1f} s' if bar else '':>12}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
