"""What a learner's file may not do to its surroundings while it is judged: an audit hook, which Python cannot remove.

The hook stops what a student might try (kill the judge, write into its files, start programs, read other processes,
import the oracle).  It is no wall against native code; the wall is that no answer exists in this process or on disk, and
on Linux `landlock`, which the kernel enforces.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

_NEVER = frozenset({
    "os.kill", "os.killpg", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "subprocess.Popen", "pty.spawn", "signal.pthread_kill", "socket.connect", "socket.bind", "os.chdir", "os.fchdir",
    "resource.prlimit", "resource.setrlimit", "sqlite3.connect", "cpython.PyInterpreterState_New",
})  # fmt: skip
_NATIVE = frozenset({
    "ctypes.dlopen", "ctypes.dlsym", "ctypes.cdata", "ctypes.string_at", "ctypes.wstring_at", "ctypes.call_function",
})  # fmt: skip
_CHANGES = frozenset({
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.utime", "os.setxattr", "os.removexattr", "shutil.rmtree", "shutil.move", "shutil.copyfile",
})  # fmt: skip
_OWN = frozenset({"__code__", "__defaults__", "__kwdefaults__"})
_CHANGING = frozenset({"object.__setattr__", "object.__delattr__"})
_PRIVATE = frozenset({"loadsparse", "_posixsubprocess", "_xxsubinterpreters", "_interpreters"})
"""What a NumPy answer may not import: the oracles, and ways around the events that a hook hears."""
_UNHEARD = (("os", "mkfifo"), ("os", "mknod"), ("signal", "pidfd_send_signal"), ("os", "pidfd_open"),
            ("_posixsubprocess", "fork_exec"), ("subprocess", "_fork_exec"))  # fmt: skip
"""Functions that raise no audit event: they are taken away."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEPTH = 32
"""Most folders between a file that is written and the process's own folder."""

Place = tuple[int, int]


class Forbidden(PermissionError):
    """The learner's file tried to leave its place."""


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise Forbidden("calls a function that starts or ends processes")


def _place(path: Any) -> Place:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _below(folders: Iterable[Path]) -> frozenset[Place]:
    """Device and inode of the folders and files, and of all that lies below: whatever name leads there, it is known."""
    found = set()
    for top in folders:
        if top.exists():
            found.add(_place(top))
            found |= {_place(path) for path in top.rglob("*") if path.exists()}
    return frozenset(found)


def guard(folder: Path, sealed: tuple[Path, ...], *, numpy_only: bool) -> None:
    """Forbid from now on: other processes, writing outside of `folder`, and reading below the `sealed` folders.

    numpy_only: also forbid importing this project, and native code through ctypes.
    """
    for module, name in _UNHEARD:
        if hasattr(sys.modules.get(module), name):
            setattr(sys.modules[module], name, _refuse)
    never = _NEVER | _NATIVE if numpy_only else _NEVER
    private = _PRIVATE if numpy_only else frozenset[str]()
    processes = os.stat("/proc").st_dev if os.path.isdir("/proc/self") else None
    sys.addaudithook(_hook(_place(folder), _place(os.devnull), _below(sealed), processes, never, private))


def _hook(home: Place, null: Place, closed: frozenset[Place], processes: int | None, never: frozenset[str],
          private: frozenset[str]) -> Any:  # fmt: skip
    """The hook.  All that it uses is a built-in or constant, bound as a default: no assignment in the process reaches it.

    Files are known by device and inode, never by name: links lead nowhere else.
    """

    space = globals()

    def real(path: Any, stat_of: Any = os.stat, link_of: Any = os.lstat, is_link: Any = stat.S_ISLNK,
             absent: Any = (OSError, ValueError)) -> tuple[Any, bool]:  # fmt: skip
        try:
            return stat_of(path), is_link(link_of(path).st_mode)
        except absent:
            return None, False

    def inside(path: str, real: Any = real, home: Any = home, null: Any = null, steps: Any = range(_DEPTH),
               split: Any = str.rpartition, replace: Any = str.replace,
               backslash: Any = os.sep if os.altsep else None) -> bool:  # fmt: skip
        found, link = real(path)
        if link or (found is not None and (found.st_dev, found.st_ino) == null):
            return not link
        head, slash, _ = split(replace(path, backslash, "/") if backslash else path, "/")
        at = head or slash or "."
        for _ in steps:
            found, _link = real(at)
            if found is None:
                return False
            if (found.st_dev, found.st_ino) == home:
                return True
            at += "/.."
        return False

    def name_of(
        path: Any, of: Any = os.fspath, is_a: Any = isinstance, raw: Any = bytes, text: Any = bytes.decode
    ) -> str:
        found = of(path)
        return text(found, "utf-8", "surrogateescape") if is_a(found, raw) else found  # type: ignore[no-any-return]

    def hook(
        event: str, arguments: tuple[Any, ...], never: Any = never, changes: Any = _CHANGES, private: Any = private,
        closed: Any = closed, processes: Any = processes, inside: Any = inside, real: Any = real, name_of: Any = name_of,
        refused: Any = Forbidden, is_a: Any = isinstance, paths: Any = (str, bytes), text: Any = str, whole: Any = int,
        writing: Any = _WRITING, is_folder: Any = stat.S_ISDIR, own: Any = _OWN, changing: Any = _CHANGING, space: Any = space,
        absent: Any = AttributeError,
    ) -> None:  # fmt: skip
        if event == "open":
            path, mode, flags = arguments
            if is_a(path, whole):
                return
            path = name_of(path)
            writes = is_a(flags, whole) and flags & writing
            for letter in "wax+":
                writes = writes or (is_a(mode, text) and letter in mode)
            if writes and not inside(path):
                raise refused(f"writes to {path}")
            found, _ = real(path)
            if found is None:
                return
            if found.st_dev == processes or (found.st_dev, found.st_ino) in closed:
                raise refused(f"reads {path}")
            if is_folder(found.st_mode):  # names that are relative to an open folder would be seen by no hook
                raise refused(f"opens the folder {path}")
        elif event in never:
            raise refused(f"calls {event}")
        elif event in changes:
            for path in arguments:
                if is_a(path, paths) and not inside(name_of(path)):
                    raise refused(f"calls {event} outside of its folder")
        elif event == "import" and text.split(text(arguments[0]), ".")[0] in private:
            raise refused(f"imports {arguments[0]}")
        elif event in changing and arguments[1] in own:
            try:
                ours = arguments[0].__globals__ is space
            except absent:
                return
            if ours:
                raise refused("changes its guard")

    return hook
