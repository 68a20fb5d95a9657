"""A stranger's Python file in a process of its own, under limits of time and memory; only files come back.

This contains accidents (endless loops, run-away memory, a crash, output on stdout), not malice: the file runs with the
rights of the user who names it, as any Python script does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


class Process:
    """A child that calls `serve(folder)` of a module of this project; `serve` is its name as "module:function".

    It runs in a session of its own, with no input and its output thrown away; leaving the `with` block ends it and
    whatever it started.
    """

    def __init__(self, serve: str, folder: Path) -> None:
        module, _, function = serve.partition(":")
        start = f"import sys; from pathlib import Path; from {module} import {function}; {function}(Path(sys.argv[1]))"
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """End the child and whatever it started."""
        if hasattr(os, "killpg"):
            import signal

            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Exit code (negative: the signal that ended it), or None if it did not end within `seconds`."""
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None


def limit(memory: int, seconds: float, file_bytes: int) -> None:
    """Applied by a child to itself before the stranger's code is imported; no core files.

    memory: bytes of address space (Linux; Windows has no such limit and macOS refuses it); seconds: of CPU time;
    file_bytes: of the largest file it may write.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, hard))
        except (ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def load(path: Path) -> ModuleType:
    """The stranger's file, imported as the module `submission`.  Raises whatever the file raises."""
    spec = spec_from_file_location("submission", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = module_from_spec(spec)
    sys.modules["submission"] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def line_of(error: BaseException, path: Path) -> int | None:
    """Line of the innermost frame in the stranger's file."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return lines[-1] if lines else None


def one_line(error: BaseException, path: Path) -> str:
    """ "line 7: ZeroDivisionError: division by zero"."""
    line, text = line_of(error, path), " ".join(str(error).split())[:400]
    return (f"line {line}: " if line else "") + type(error).__name__ + (f": {text}" if text else "")
