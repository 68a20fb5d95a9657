"""What one process simulates, known to all stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadsparse.gpu.simulator.frontend.driver import Driver

Launched = Callable[[str, Any], None]
"""Called after every launch with the kernel's name and its Report."""


class Session:
    """What one process simulates: one GPU, its driver, and who wants to hear of launches."""

    def __init__(self, driver: Driver, options: dict[str, Any], launched: Launched) -> None:
        self.driver, self.options, self.launched = driver, options, launched


_session: Session | None = None


def begin(new: Session) -> None:
    """Make `new` the session that all stand-ins work on."""
    global _session
    _session = new


def session() -> Session:
    """The session that was begun.  Raises RuntimeError before."""
    if _session is None:
        raise RuntimeError("no GPU is being simulated: call frontend.install() first")
    return _session
