"""What a learner's file may not do to its surroundings while it is judged: an audit hook, which Python cannot remove.

The hook stops what a student might try (kill the judge, write into its files, start programs, read other processes,
import the oracle).  It is no wall against native code; the wall is that no answer exists in this process or on disk.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_NEVER = (
    "os.kill", "os.killpg", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "subprocess.Popen", "pty.spawn", "signal.pthread_kill", "socket.connect", "socket.bind", "os.chdir", "os.fchdir",
)  # fmt: skip
_NATIVE = ("ctypes.dlopen", "ctypes.dlsym", "ctypes.cdata", "ctypes.string_at")
_CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.utime", "os.setxattr", "shutil.rmtree", "shutil.move", "shutil.copyfile",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROCESSES = "/proc"


class Forbidden(PermissionError):
    """The learner's file tried to leave its place."""


def guard(folder: Path, sealed: tuple[Path, ...], *, numpy_only: bool) -> None:
    """Forbid from now on: other processes, writing outside of `folder`, and reading below the `sealed` folders.

    numpy_only: also forbid importing this project, and native code through ctypes.
    """
    home = os.path.realpath(folder)
    closed = tuple(os.path.realpath(path) for path in sealed)

    def inside(path: Any, places: tuple[str, ...]) -> bool:
        real = os.path.realpath(os.fsdecode(path))
        return any(real == place or real.startswith(place + os.sep) for place in places)

    def opened(path: Any, mode: Any, flags: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        writes = isinstance(mode, str) and any(c in mode for c in "wax+")
        writes |= isinstance(flags, int) and bool(flags & _WRITING)
        if writes and not inside(path, (home, os.devnull)):
            raise Forbidden(f"writes to {os.fsdecode(path)}")
        if inside(path, (_PROCESSES, *closed)):
            raise Forbidden(f"reads {os.fsdecode(path)}")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            opened(*arguments)
        elif event in _NEVER:
            raise Forbidden(f"calls {event}")
        elif event in _CHANGES:
            if not all(inside(a, (home,)) for a in arguments if isinstance(a, (str, bytes, os.PathLike))):
                raise Forbidden(f"calls {event} outside of its folder")
        elif numpy_only and event in _NATIVE:
            raise Forbidden("calls native code")
        elif numpy_only and event == "import" and str(arguments[0]).split(".")[0] == "loadsparse":
            raise Forbidden(f"imports {arguments[0]}")

    sys.addaudithook(hook)
