"""What is ordered before what: vector clocks over the threads of a grid (SEMANTICS.md, "Races")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from loadsparse.gpu.simulator.interpreter.block import Block

Indices = NDArray[np.int64]
View = dict[int, NDArray[np.int64]]
"""Block -> latest clock of each of its threads that is ordered before.  Views are never changed in place."""
EVERYONE = -1


def merge(first: View, second: View) -> View:
    """What either view knows."""
    if not first or not second:
        return first or second
    result = dict(first)
    for block, clocks in second.items():
        result[block] = np.maximum(result[block], clocks) if block in result else clocks
    return result


class Messages:
    """What was released through each address: to everyone, and (narrow scopes included) to one block."""

    def __init__(self) -> None:
        self.sent: dict[tuple[int, int], View] = {}

    def send(self, address: int, reader: int, view: View) -> None:
        self.sent[address, reader] = merge(self.sent.get((address, reader), {}), view)

    def received(self, address: int, reader: int) -> View:
        return self.sent.get((address, reader), {})


class Order:
    """The clocks of one block.  `seen[t, u]` is the latest clock of thread u that thread t is ordered after, and
    `seen[t, t]` t's own clock; `foreign[t]` is what t knows of other blocks."""

    def __init__(self, block: Block, messages: Messages) -> None:
        self.number, self.messages = block.index, messages
        threads = len(block.coordinates[0])
        self.seen: NDArray[np.int64] = np.eye(threads, dtype=np.int64)
        self.foreign: dict[int, View] = {}
        self.fenced: dict[tuple[int, bool], View] = {}
        """(thread, wide): what its last fence (of wide scope, or of any) came after."""
        self.observed: dict[tuple[int, int], View] = {}
        """(thread, reader): what its relaxed reads saw released, for a later fence to acquire."""

    def ordered(self, thread: int, block: int, other: int, clock: int) -> bool:
        """True if what thread `other` of `block` did at its `clock` comes before what `thread` does now."""
        if block == self.number:
            return bool(self.seen[thread, other] >= clock)
        known = self.foreign.get(thread, {}).get(block)
        return known is not None and bool(known[other] >= clock)

    def view(self, thread: int) -> View:
        """All that comes before what the thread does next."""
        return {**self.foreign.get(thread, {}), self.number: self.seen[thread].copy()}

    def learn(self, thread: int, view: View) -> None:
        if self.number in view:
            self.seen[thread] = np.maximum(self.seen[thread], view[self.number])
        others = {block: clocks for block, clocks in view.items() if block != self.number}
        if others:
            self.foreign[thread] = merge(self.foreign.get(thread, {}), others)

    def tick(self, threads: Iterable[int]) -> None:
        """What the threads do next is not yet part of what they have released."""
        for thread in threads:
            self.seen[thread, thread] += 1

    @contextmanager
    def past(self, thread: int, view: View) -> Iterator[None]:
        """What the thread does inside counts as done when this view was all that came before."""
        seen, foreign = self.seen[thread].copy(), self.foreign.get(thread, {})
        self.seen[thread] = view[self.number]
        self.foreign[thread] = {block: clocks for block, clocks in view.items() if block != self.number}
        yield
        self.seen[thread], self.foreign[thread] = seen, foreign

    def join(self, members: Indices, messages: Iterable[View] = ()) -> None:
        """What the members did so far, and what the messages tell of, is ordered before what the members do next."""
        self.seen[members] = self.seen[members].max(axis=0)
        others: View = {}
        if self.foreign:
            for thread in members.tolist():
                others = merge(others, self.foreign.get(thread, {}))
        for message in messages:
            others = merge(others, message)
        if others:
            for thread in members.tolist():
                self.learn(thread, others)
        self.tick(members.tolist())

    def release(self, threads: Indices) -> View:
        """What the threads did so far, for others to learn later."""
        message: View = {}
        for thread in threads.tolist():
            message = merge(message, self.view(thread))
        self.tick(threads.tolist())
        return message

    def fence(self, threads: Indices, wide: bool) -> None:
        """A fence: later atomics release what came before it, earlier ones have acquired.  `wide`: beyond the block."""
        for thread in threads.tolist():
            for reader in (self.number, EVERYONE) if wide else (self.number,):
                self.learn(thread, self.observed.pop((thread, reader), {}))
            for scope in (True, False) if wide else (False,):
                self.fenced[thread, scope] = self.view(thread)
        self.tick(threads.tolist())

    def synchronise(
        self, thread: int, address: int, acquire: bool, release: bool, reads: bool, writes: bool, wide: bool
    ) -> None:
        """The ordering effect of one lane's strong access; `wide`: its scope reaches beyond the block."""
        readers = (self.number, EVERYONE) if wide else (self.number,)
        if reads:
            for reader in readers:
                known = self.messages.received(address, reader)
                if acquire:
                    self.learn(thread, known)
                elif known:
                    self.observed[thread, reader] = merge(self.observed.get((thread, reader), {}), known)
        if not writes:
            return
        for reader in readers:
            fenced = self.fenced.get((thread, reader == EVERYONE), {})
            message = self.view(thread) if release else fenced
            if message:
                self.messages.send(address, reader, message)
        if release:
            self.tick([thread])
