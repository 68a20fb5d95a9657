"""Runs a whole numba.cuda script, unmodified, on a simulated GPU and reports the hazards of its kernels."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadsparse.gpu.simulator.frontend.gpu import GPUS
from loadsparse.gpu.simulator.frontend.install import Unsupported, install
from loadsparse.gpu.simulator.report import Report
from loadsparse.gpu.simulator.request import Checks


def main(arguments: list[str] | None = None) -> int:
    """Exit status: the script's own if it fails, 2 when it cannot be run, 1 after hazards, else 0.

    Hazards go to standard error after the launch that caused them.  With --json the last line of standard error is an
    object {"ok", "launches", "hazards"}.
    """
    parser = argparse.ArgumentParser(
        prog="python -m loadsparse.gpu.simulator",
        description="Run a numba.cuda script on the CPU and check its kernels.",
    )
    parser.add_argument("--arch", default="sm_80", choices=sorted(GPUS), help="the GPU to simulate (default: sm_80)")
    parser.add_argument("--no-checks", action="store_true", help="execute without looking for hazards (faster)")
    parser.add_argument("--no-lines", action="store_true", help="compile kernels as Numba would, without source lines")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on standard error")
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module")
    parser.add_argument("script", help="the script, or with -m the module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the script")
    chosen = parser.parse_args(arguments)
    if not chosen.module and not Path(chosen.script).is_file():
        print(f"no such script: {chosen.script}", file=sys.stderr)
        return 2
    log = Log()
    try:
        install(arch=chosen.arch, launched=log.heard, lines=not chosen.no_lines, **_options(chosen))
    except (Unsupported, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    status = _execute(chosen)
    if chosen.json:
        print(json.dumps({"ok": status == 0 and not log.hazards, **log.as_dict()}), file=sys.stderr)
    return status or (1 if log.hazards else 0)


def _options(chosen: argparse.Namespace) -> dict[str, Any]:
    return {"checks": Checks.none()} if chosen.no_checks else {}


def _execute(chosen: argparse.Namespace) -> int:
    sys.argv = [chosen.script, *chosen.arguments]
    try:
        if chosen.module:
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(chosen.script, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(chosen.script).resolve().parent))
            runpy.run_path(chosen.script, run_name="__main__")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        print("".join(_own_frames(error)), end="", file=sys.stderr)
        return 1
    return 0


def _own_frames(error: BaseException) -> list[str]:
    """The traceback from the script's first frame on."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        frame = frame.tb_next
    return traceback.format_exception(type(error), error, frame or error.__traceback__)


class Log:
    """What the launches of a script did."""

    def __init__(self) -> None:
        self.launches = 0
        self.hazards: list[dict[str, Any]] = []

    def heard(self, name: str, report: Report) -> None:
        """Print what a kernel printed, and its hazards."""
        self.launches += 1
        if report.printed:
            print(report.printed, end="", flush=True)
        for finding in report.hazards:
            finding = replace(finding, kernel=plain_name(finding.kernel))
            self.hazards.append(asdict(finding))
            print(finding, file=sys.stderr)

    def as_dict(self) -> dict[str, Any]:
        """{"launches", "hazards"}."""
        return {"launches": self.launches, "hazards": self.hazards}


def plain_name(symbol: str) -> str:
    """The Python name in a symbol that Numba mangled: "module.function"; other symbols come back as they are.

    >>> plain_name("_ZN8__main__5scaleB2v1B100xyzE5ArrayIfLi1E1C7mutable7alignedE")
    '__main__.scale'
    """
    if not symbol.startswith("_ZN"):
        return symbol
    parts, rest = [], symbol[3:]
    while found := re.match(r"(\d+)", rest):
        start, length = found.end(), int(found.group())
        parts.append(rest[start : start + length])
        rest = rest[start + length :]
    return re.sub(r"_([0-9a-f]{2})", lambda code: chr(int(code.group(1), 16)), ".".join(parts)) or symbol
