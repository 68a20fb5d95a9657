"""Run every benchmark of this folder, one process each, so that none disturbs the next: `make bench`.

A benchmark is a script `bench_*.py` that prints a table: what was measured, the bar, and ratios of two measurements of the
same run where it claims a speed.  `python -m tests.benchmarks mma theory` runs those whose names contain a word.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(words: list[str]) -> int:
    failed = []
    for script in sorted(HERE.glob("bench_*.py")):
        if words and not any(word in script.stem for word in words):
            continue
        print(f"\n== {script.stem.removeprefix('bench_')}", flush=True)
        if subprocess.run([sys.executable, str(script)], check=False).returncode:
            failed.append(script.stem)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
