"""One launch: blocks on threads, what native code asks Python for, and the runs that a launch may need."""

from __future__ import annotations

import _thread
import ctypes
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine import results, runtime, scheduler, states
from loadsparse.gpu.simulator.engine.arena import Memory, words
from loadsparse.gpu.simulator.engine.compiled import Compiled, prepare
from loadsparse.gpu.simulator.engine.ir import Unsupported
from loadsparse.gpu.simulator.engine.printing import Printer
from loadsparse.gpu.simulator.engine.structures import Structures, Worker
from loadsparse.gpu.simulator.engine.watch import EXHAUSTED, Watch
from loadsparse.gpu.simulator.limits import LaunchError
from loadsparse.gpu.simulator.recurrence import Recurrence, outside
from loadsparse.gpu.simulator.request import DEFAULT_BUDGET, Outcome, Request

_WORD = ctypes.c_int64


def function(address: int, arguments: int) -> ctypes._FuncPointer:
    """A native function of int64 arguments; it runs without the GIL."""
    return ctypes.CFUNCTYPE(_WORD, *([_WORD] * arguments))(address)


class Launch:
    """Everything that one run needs.

    `exact`: races are looked for with the whole history instead of the filter; `recorded` numbers the allocations
    whose reads are remembered.
    """

    def __init__(self, request: Request, compiled: Compiled, exact: bool, recorded: frozenset[int]) -> None:
        self.request, self.compiled, self.exact = request, compiled, exact
        self.memory = Memory()
        self.blocks = math.prod(request.grid)
        self.structures = Structures(request, compiled, exact, self.memory)
        table, entries = self.structures.table
        self.watch = Watch(request, compiled, exact, self.worker_count(), words(table, entries * 8))
        self.watch.record(recorded)
        library = runtime.library()
        self.run_blocks, self.start_block, self.run_block, self.spin = (
            function(library.addresses[runtime.prefix() + name], arguments)
            for name, arguments in (("run_blocks", 5), ("start_block", 3), ("run_block", 1), ("spin", 1))
        )
        self.workers: list[Worker] = []
        self.printer = Printer(request)
        self.outside = outside(request.kernel.instructions)
        self.failure: BaseException | None = None
        self.callbacks: list[object] = []
        self.translating = 0.0

    def run(self) -> None:
        """Executes every block."""
        count = self.worker_count()
        workers = self.workers = [self.structures.worker(number) for number in range(count)]
        clear = self.compiled.clear_bytes
        first = workers[0]
        if threading.current_thread() is threading.main_thread():
            self._callback(first, L.K_HEAR, self._answers(lambda: 0))
        for worker in workers:
            worker.words[L.K_MASKED // 8] = self.compiled.masked.address
            self._callback(worker, L.K_TRANSLATE, self._answers(self._translate))
            self._callback(worker, L.K_GAVE_WAY, self._answers(partial(self._standstill, worker)))
            state = worker.words
            if self.compiled.calls:
                self._callback(worker, L.K_PRINT, self._answers(partial(self.printer.lanes, state)))
            if self.request.checks.races:
                self._callback(worker, L.K_FIRST_WRITE, self._answers(partial(self.watch.first_write, state)))
                self._callback(worker, L.K_MORE, self._answers(partial(self.watch.more, state)))
        try:
            if self.compiled.observable_order:
                self._in_order(first)
            else:
                # a kernel that deadlocks or gets stuck does so in its first block as a rule: nothing else has run then
                alone = 1 if count > 1 else self.blocks
                self.run_blocks(first.block, 0, alone, 1, clear)
                if alone < self.blocks and not first.stopped:
                    self._spread(workers, alone)
        except BaseException as error:
            self._stop(error)
        self.callbacks.clear()  # they hold this launch
        if self.failure is not None:
            raise self.failure

    def _spread(self, workers: list[Worker], done: int) -> None:
        """The remaining blocks: the calling thread takes every n-th, threads of their own the others.

        The threads hold this launch, and with it all memory that native code touches, until they end.
        """
        count, clear = len(workers), self.compiled.clear_bytes
        started: list[int] = []
        finished: list[int] = []
        news = [_thread.allocate_lock() for _ in workers]

        def execute(number: int) -> None:
            self.run_blocks(workers[number].block, done + number, self.blocks, count, clear)
            finished.append(number)
            news[number].release()

        try:
            for lock in news:
                lock.acquire()
            # `map` and `zip` run no bytecode, so no signal is heard between a thread's start and its entry in the list
            started.extend(map(_thread.start_new_thread, repeat(execute), zip(range(1, count), strict=False)))
            self.run_blocks(workers[0].block, done, self.blocks, count, clear)
        except BaseException as error:
            self._stop(error)
        for number in range(1, len(started) + 1):
            while number not in finished:
                try:  # in steps: where a wait cannot be interrupted, a signal is heard between them
                    news[number].acquire(timeout=0.2)
                except BaseException as error:
                    self._stop(error)

    def _callback(self, worker: Worker, place: int, answers: Iterator[int]) -> None:
        """Lets native code resume a generator."""
        next(answers)
        callback = ctypes.CFUNCTYPE(_WORD)(answers.__next__)
        self.callbacks.append(callback)
        worker.words[place // 8] = ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _translate(self) -> int:
        """The masked form, which no launch has needed before."""
        begin = time.perf_counter()
        address = self.compiled.masked.compile()
        self.translating = max(self.translating, time.perf_counter() - begin)
        return address

    def _standstill(self, worker: Worker) -> int:
        """1 if the block of this worker, which gave way to nobody, would do so for ever."""
        linear = int(words(worker.block, L.BLOCK_BYTES // 8)[L.B_LINEAR // 8])
        if linear not in worker.rounds:
            worker.rounds = {linear: Recurrence()}
        return int(self._recurs(worker.rounds[linear], [worker.block]))

    def _recurs(self, rounds: Recurrence, live: list[int]) -> bool:
        """True if everything is as it was after an earlier round of these blocks."""
        acting = self.outside
        return rounds.found(
            lambda: states.threads(live, results.counts(self.compiled, self.workers)[0][acting] if acting else ()),
            lambda: states.memory(live, self.request.allocations.values()),
        )

    def _answers(self, answer: Callable[[], int]) -> Iterator[int]:
        """Native code resumes this for an answer.  Python runs pending signal handlers where a generator resumes, which
        is inside the `try` (a plain callback would run them before its first line); in the main thread native code asks
        now and then for no other reason.  An exception stops the launch.
        """
        result = 0
        while True:
            try:
                while True:
                    yield result
                    result = answer()
            except GeneratorExit:
                return
            except BaseException as error:
                self._stop(error)
                result = 0

    def _stop(self, error: BaseException) -> None:
        """Ends all native code at its next backward branch or end of a turn; `run` raises the first error."""
        self.failure = self.failure or error
        for worker in self.workers:
            state = worker.words
            state[L.K_BUDGET // 8], state[L.K_STOPPED // 8] = 0, L.BUDGET + 1

    def worker_count(self) -> int:
        """Threads over which blocks are spread: one if their order could be observed."""
        if self.exact or self.compiled.observable_order or (self.request.budget or DEFAULT_BUDGET) < DEFAULT_BUDGET:
            return 1
        return max(1, min(os.cpu_count() or 1, self.blocks, 8))

    def _in_order(self, worker: Worker) -> None:
        """Blocks in linear order; one that only yields gives way to the next."""
        idle = [worker.block]
        live: list[int] = []
        following = 0
        rounds = Recurrence()
        while following < self.blocks or live:
            for block in list(live):
                state = self.run_block(block)
                if state == scheduler.STOPPED:
                    return
                if state == scheduler.FINISHED:
                    live.remove(block)
                    idle.append(block)
            while following < self.blocks and len(live) < max(1, self.request.max_live_blocks):
                block = idle.pop() if idle else self.structures.block(worker)
                if self.start_block(block, following, self.compiled.clear_bytes) == scheduler.STOPPED:
                    return
                following += 1
                state = self.run_block(block)
                if state == scheduler.STOPPED:
                    return
                if state == scheduler.FINISHED:
                    idle.append(block)
                else:
                    live.append(block)
            if live and self._recurs(rounds, live):
                self.spin(live[0])
                return

    def again(self) -> int:
        """Why the launch must run again, 0 if it need not (L.SUSPECTED, ...)."""
        reasons = {int(worker.words[L.K_AGAIN // 8]) for worker in self.workers}
        for reason in (L.EXHAUSTED, L.CALLED, L.DOUBTFUL, L.UNRECORDED, L.SUSPECTED):
            if reason in reasons:
                return reason
        if self.watch.unrecorded():
            return L.UNRECORDED
        return L.SUSPECTED if self.watch.suspects() else 0


def run(request: Request) -> Outcome:
    """Executes one launch natively.

    Raises `Unsupported` for kernels that only the interpreter executes: before anything has run, or with memory as it
    was before, where an assertion fails.
    """
    if request.schedule != "default":
        raise Unsupported("the LLVM engine only runs the default schedule")
    started = time.perf_counter()
    compiled = prepare(request)
    translated = time.perf_counter() - started
    started = time.perf_counter()
    exact, recorded, translating = compiled.orders_by_atomics and request.checks.races, frozenset[int](), 0.0
    while True:
        launch = Launch(request, compiled, exact, recorded)
        launch.run()
        translating += launch.translating
        match launch.again():
            case L.UNRECORDED:
                recorded |= launch.watch.unrecorded()
            case L.SUSPECTED:
                exact = True
            case L.DOUBTFUL:
                begin = time.perf_counter()
                compiled = prepare(request, fine=True)
                translating += time.perf_counter() - begin
            case L.CALLED:
                launch.watch.restore()
                raise Unsupported("the LLVM engine does not fail assertions")
            case L.EXHAUSTED:
                launch.watch.restore()
                raise LaunchError(EXHAUSTED)
            case _:
                break
        launch.watch.restore()
    outcome = results.outcome(
        compiled, launch.workers, launch.printer.text, time.perf_counter() - started - translating
    )
    launch.memory.end_of_use()
    outcome.translate_seconds = translated + translating
    return outcome
