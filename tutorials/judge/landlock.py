"""The walls that the Linux kernel keeps, native code included: no program is started, nothing is written but in one folder.

A process below a Landlock ruleset also cannot read or stop processes above it, and from ABI 4 and 6 on it opens no TCP
connection and sends them no signal.  Elsewhere, and on kernels without Landlock, nothing happens.
Source: the kernel's documentation, userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVILEGES = 38
_EXECUTE, _WRITE, _TRUNCATE, _REFER = 1 << 0, 1 << 1, 1 << 14, 1 << 13
_REMOVE, _MAKE = 1 << 4 | 1 << 5, sum(1 << bit for bit in range(6, 13))
_MAKE_FOLDER, _MAKE_FILE = 1 << 7, 1 << 8


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """What the running kernel offers: the version of Landlock's interface, 0 for none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def confine(folder: Path) -> bool:
    """Confine this process, and all that it starts, for ever; False where the system offers no Landlock."""
    abi = version()
    if not abi:
        return False
    libc = ctypes.CDLL(None)
    newer = (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    rules = _Ruleset(_EXECUTE | _WRITE | _REMOVE | _MAKE | newer, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    writing = _WRITE | newer & _TRUNCATE
    for path, allowed in ((folder, writing | _REMOVE | _MAKE_FOLDER | _MAKE_FILE), (Path(os.devnull), writing)):
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        libc.syscall(_ADD, ruleset, 1, ctypes.byref(_Beneath(allowed, at)), 0)
        os.close(at)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done: bool = libc.syscall(_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return done
