"""The engine's run-time library: compiled once, called by the code of every kernel."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from loadsparse.gpu.simulator.engine import (
    accesses,
    cache,
    copies,
    counting,
    history,
    jit,
    matrices,
    native,
    order,
    places,
    races,
    races_global,
    records,
    scheduler,
    transfers,
    views,
)

MODULES = (
    records,
    views,
    order,
    history,
    races,
    races_global,
    copies,
    places,
    counting,
    accesses,
    transfers,
    scheduler,
    matrices,
)


@functools.cache
def engine_hash() -> str:
    """Hash of the engine's own source and the parser's: code compiled by another version is never reused."""
    digest = hashlib.sha256()
    engine = Path(__file__).parent
    for path in sorted([*engine.glob("*.py"), *engine.parent.glob("*.py"), engine.parent / "ptx.lark"]):
        digest.update(path.name.encode() + b"\\0" + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def prefix() -> str:
    """What distinguishes the names of this version's functions in the process."""
    return f"loadsparse_{engine_hash()[:12]}_"


@functools.cache
def inline_text() -> str:
    """IR that the module of a helper starts with: declarations, and the inlined run-time functions."""
    return native.DECLARATIONS + native.translate(MODULES, prefix(), only_inline=True)


@functools.cache
def declarations() -> str:
    """IR that a kernel's module starts with: what of the run-time it may call."""
    return "\n".join(line for line in inline_text().splitlines() if line.startswith("declare"))


@functools.cache
def helper(name: str, text: str) -> jit.Loaded:
    """A run-time function specialised for one kind of access; `text` defines `name`.  All kernels share it."""
    whole = f"{inline_text()}\n{text}"
    return jit.Loaded(cache.compiled("helper", lambda: whole), library().addresses, (name,))


@functools.cache
def library() -> jit.Loaded:
    """The loaded run-time; `addresses` are keyed by prefixed names."""
    names = tuple(prefix() + name for name in native.exported(MODULES))
    image = cache.compiled("runtime", lambda: native.DECLARATIONS + native.translate(MODULES, prefix()))
    return jit.Loaded(image, {}, names)
