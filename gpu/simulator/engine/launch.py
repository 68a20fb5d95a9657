"""One launch: memory for blocks and tables, workers on threads, and the outcome put together."""

from __future__ import annotations

import _thread
import ctypes
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine import runtime, scheduler, states
from loadsparse.gpu.simulator.engine.arena import Memory, words
from loadsparse.gpu.simulator.engine.compiled import Compiled, prepare
from loadsparse.gpu.simulator.engine.ir import Unsupported
from loadsparse.gpu.simulator.engine.printing import Printer
from loadsparse.gpu.simulator.engine.watch import EXHAUSTED, Watch
from loadsparse.gpu.simulator.limits import LaunchError
from loadsparse.gpu.simulator.recurrence import Recurrence, outside
from loadsparse.gpu.simulator.request import COUNTERS, DEFAULT_BUDGET, Hazard, HazardKind, Outcome, Request

_WORD = ctypes.c_int64


def function(address: int, arguments: int) -> ctypes._FuncPointer:
    """A native function of int64 arguments; it runs without the GIL."""
    return ctypes.CFUNCTYPE(_WORD, *([_WORD] * arguments))(address)


@dataclass(slots=True)
class Worker:
    """One thread's own structures."""

    block: int
    state: int
    counters: NDArray[np.int64]
    counts: NDArray[np.int64]
    hazards: int
    rounds: dict[int, Recurrence] = field(default_factory=dict)
    """Those of its present block, by linear index."""


def _state(worker: Worker) -> NDArray[np.int64]:
    """The words of a worker (`L.K_...`)."""
    return words(worker.state, L.WORKER_BYTES // 8)


def _stopped(worker: Worker) -> int:
    """1 + the hazard that stopped this worker, or 0."""
    return int(words(worker.state, 8)[L.K_STOPPED // 8])


class Launch:
    """Everything that one run needs.

    `exact`: races are looked for with the whole history instead of the filter; `recorded` numbers the allocations
    whose reads are remembered.
    """

    def __init__(self, request: Request, compiled: Compiled, exact: bool, recorded: frozenset[int]) -> None:
        self.request, self.compiled, self.exact = request, compiled, exact
        self.memory = Memory()
        self.halt = self.memory.take(8)
        self.blocks = math.prod(request.grid)
        self.threads = math.prod(request.block)
        self.warps = -(-self.threads // 32)
        self.table = self._table()
        self.watch = Watch(request, compiled, exact, self.worker_count(), words(self.table[0], self.table[1] * 8))
        self.watch.record(recorded)
        parameters = np.zeros(max(compiled.param_bytes, request.parameters.size, 8), np.uint8)
        parameters[: request.parameters.size] = request.parameters
        self.parameters = self.memory.hold(parameters)
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

    def _table(self) -> tuple[int, int]:
        """The allocation table: (address, entries)."""
        allocations = self.request.allocations
        count = max(allocations, default=0) + 1
        if count > 2**20:
            raise ValueError("too many allocations")
        address = self.memory.take(count * L.T_ENTRY_BYTES)
        table = words(address, count * 8).reshape(count, 8)
        for number, allocation in allocations.items():
            if number in (1, 2, 4) or allocation.data.size == 0:
                continue
            data = allocation.data
            if data.dtype != np.uint8 or not data.flags.c_contiguous or not data.flags.writeable:
                raise ValueError(f"allocation {allocation.name} is not a writable contiguous byte array")
            table[number, 0] = self.memory.hold(data)
            table[number, 1] = data.size
            if allocation.defined is not None:
                table[number, 2] = self.memory.hold(allocation.defined)
            table[number, 3] = allocation.read_only
        return address, count

    def worker(self, number: int) -> Worker:
        """Structures of one thread: counters, hazards, budget, and a block to reuse."""
        memory, compiled = self.memory, self.compiled
        sites, blocks = compiled.instruction_count, compiled.block_count
        counters, counts = memory.take(sites * L.C_SITE_BYTES), memory.take((blocks + 1) * L.N_BYTES)
        records = np.empty(L.H_RECORDS + L.H_CAPACITY * L.H_BYTES, np.uint8)
        records[: L.H_RECORDS] = 0
        hazards = memory.hold(records)
        state = memory.take(L.WORKER_BYTES)
        own = words(state, L.WORKER_BYTES // 8)
        own[L.K_BUDGET // 8] = min(self.request.limit(), 2**62)
        own[L.K_HALT // 8] = self.halt
        own[L.K_NUMBER // 8] = number
        own[L.K_NARROW // 8] = compiled.narrow_scopes
        own[L.K_LEVELS // 8] = max(1, -(-(self.blocks - 1).bit_length() // 5))
        worker = Worker(
            0,
            state,
            words(counters, sites * 8).reshape(sites, 8),
            words(counts, (blocks + 1) * 4).reshape(-1, 4),
            hazards,
        )
        worker.block = self.block(worker)
        return worker

    def block(self, worker: Worker) -> int:
        """Memory of one live block."""
        request, memory, compiled = self.request, self.memory, self.compiled
        address = memory.take(L.BLOCK_BYTES)
        b = words(address, L.BLOCK_BYTES // 8)

        def put(offset: int, value: int) -> None:
            b[offset // 8] = value

        for axis in range(3):
            put(L.B_NTID + 8 * axis, request.block[axis])
            put(L.B_NCTAID + 8 * axis, request.grid[axis])
        shared = request.static_shared_bytes + request.dynamic_shared_bytes
        padded = 32 * self.warps
        put(L.B_WARP_COUNT, self.warps)
        put(L.B_THREADS, self.threads)
        put(L.B_WARP_BYTES, compiled.warp_bytes)
        put(L.B_TABLE, self.table[0])
        put(L.B_TABLE_COUNT, self.table[1])
        put(L.B_SHARED, memory.take(shared))
        put(L.B_SHARED_BYTES, shared)
        put(L.B_SHARED_DEFINED, memory.take(shared))
        put(L.B_DYNAMIC_SHARED, request.dynamic_shared_bytes)
        put(L.B_PARAM, self.parameters)
        put(L.B_PARAM_BYTES, max(compiled.param_bytes, request.parameters.size))
        put(L.B_LOCAL, memory.take(padded * request.local_bytes))
        put(L.B_LOCAL_BYTES, request.local_bytes)
        put(L.B_LOCAL_DEFINED, memory.take(padded * request.local_bytes))
        put(L.B_COUNTERS, worker.counters.ctypes.data)
        put(L.B_BLOCK_COUNTS, worker.counts.ctypes.data)
        put(L.B_HAZARDS, worker.hazards)
        put(L.B_WORKER, worker.state)
        put(L.B_RUN, compiled.address)
        put(L.B_GRANULE, compiled.granule)
        put(L.B_GLOBAL_GRANULE, compiled.global_granule)
        put(L.B_EXACT, self.exact)
        races, granules = request.checks.races, shared // compiled.granule + 1
        put(L.B_CELLS, memory.take(L.CELL_PAIR * granules) if races else 0)
        put(L.B_HEADS, memory.take(L.HEAD_BYTES * granules) if self.exact else 0)
        put(L.B_THREAD_FLOOR, memory.take(4 * 1024))
        put(L.B_ORDER, memory.take(4 * padded * padded) if compiled.partial_order and races else 0)
        put(L.B_VIEWS, memory.take(L.V_BYTES * padded) if compiled.orders_by_atomics and races else 0)
        if compiled.has_copies:
            put(L.B_PENDING, memory.take(2 * shared + 8))
            put(L.B_QUEUE, memory.take(padded * L.QUEUE_BYTES))
        put(L.B_EAGER, request.cp_async == "eager")
        put(L.B_SOURCE_LOW, -1)
        put(L.B_PENDING_LOW, -1)
        warps = memory.take(self.warps * compiled.warp_bytes)
        put(L.B_WARPS, warps)
        # word i of warp w: the index, and x, y, z of its threads
        held = words(warps, self.warps * compiled.warp_bytes // 8).reshape(self.warps, -1)
        held[:, L.W_INDEX // 8] = np.arange(self.warps)
        bx, by, _ = request.block
        tid = held.view(np.int32)[:, L.W_TID // 4 : L.W_TID // 4 + 96].reshape(self.warps, 3, 32)
        rest, tid[:, 0] = np.divmod(np.arange(padded).reshape(self.warps, 32), bx)
        tid[:, 2], tid[:, 1] = np.divmod(rest, by)
        return address

    def run(self) -> None:
        """Executes every block."""
        count = self.worker_count()
        workers = self.workers = [self.worker(number) for number in range(count)]
        clear = self.compiled.clear_bytes
        first = workers[0]
        if threading.current_thread() is threading.main_thread():
            self._callback(first, L.K_HEAR, self._answers(lambda: 0))
        for worker in workers:
            words(worker.state, 8)[L.K_MASKED // 8] = self.compiled.masked.address
            self._callback(worker, L.K_TRANSLATE, self._answers(self._translate))
            self._callback(worker, L.K_GAVE_WAY, self._answers(partial(self._standstill, worker)))
            state = _state(worker)
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
                if alone < self.blocks and not _stopped(first):
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
        _state(worker)[place // 8] = ctypes.cast(callback, ctypes.c_void_p).value or 0

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
        return rounds.found(
            lambda: states.threads(live, self._counts()[0][self.outside] if self.outside else self.outside),
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
            state = words(worker.state, 8)
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
                block = idle.pop() if idle else self.block(worker)
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

    # results

    def again(self) -> int:
        """Why the launch must run again, 0 if it need not (L.SUSPECTED, ...)."""
        reasons = {int(_state(worker)[L.K_AGAIN // 8]) for worker in self.workers}
        for reason in (L.EXHAUSTED, L.CALLED, L.DOUBTFUL, L.UNRECORDED, L.SUSPECTED):
            if reason in reasons:
                return reason
        if self.watch.unrecorded():
            return L.UNRECORDED
        return L.SUSPECTED if self.watch.suspects() else 0

    def outcome(self, seconds: float) -> Outcome:
        """Counts and hazards of all workers."""
        workers = self.workers
        counters = sum((w.counters for w in workers), np.zeros_like(workers[0].counters))
        executions, lanes = self._counts()
        by_name = {name: np.ascontiguousarray(counters[:, i]) for i, name in enumerate(COUNTERS)}
        stopped: HazardKind | None = None
        for worker in workers:
            code = _stopped(worker)
            if code:
                stopped = L.KINDS[code - 1]
        return Outcome(
            executions, lanes, by_name, self._hazards(workers), stopped, self.printer.text, execute_seconds=seconds
        )

    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Executions of each instruction so far, by warps and by threads."""
        counts = sum((w.counts for w in self.workers), np.zeros_like(self.workers[0].counts))
        executions = np.zeros(self.compiled.instruction_count, np.int64)
        lanes = np.zeros_like(executions)
        for number, (start, stop, coarse_stop) in enumerate(self.compiled.ranges):
            full, groups, active, _ = counts[number]
            executions[start:coarse_stop] += full
            lanes[start:coarse_stop] += 32 * full
            executions[start:stop] += groups
            lanes[start:stop] += active
        return executions, lanes

    def _hazards(self, workers: list[Worker]) -> list[Hazard]:
        """Records of all workers: the lowest block's is the first occurrence."""
        merged: dict[tuple[str, int, int | None], Hazard] = {}
        for worker in workers:
            count = int(words(worker.hazards, 1)[0])
            fields = L.H_BYTES // 8
            records = words(worker.hazards + L.H_RECORDS, max(1, count) * fields).reshape(-1, fields)[:count]
            for kind, site, other, block, thread, address, size, detail, events, *theirs in records.tolist():
                if other == -2:
                    site, other = self.compiled.ranges[site][0], -1
                hazard = Hazard(
                    L.KINDS[kind], site, None if other < 0 else other, block, thread,
                    None if size < 0 else address & (2**64 - 1), None if size < 0 else size, L.DETAILS[detail], events,
                    *(None if n < 0 else n for n in theirs),
                )  # fmt: skip
                key = (hazard.kind, hazard.instruction, hazard.other)
                earlier = merged.get(key)
                if earlier is None:
                    merged[key] = hazard
                else:
                    first, later = (earlier, hazard) if earlier.block <= hazard.block else (hazard, earlier)
                    first.count += later.count
                    merged[key] = first
        return sorted(merged.values(), key=lambda h: (h.block, h.instruction, h.kind, h.other or 0))


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
    outcome = launch.outcome(time.perf_counter() - started - translating)
    launch.memory.end_of_use()
    outcome.translate_seconds = translated + translating
    return outcome
