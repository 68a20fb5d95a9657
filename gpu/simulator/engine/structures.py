"""What native code works on: a launch's table of allocations, each thread's counts and records, each live block's memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.engine import layout as L
from loadsparse.gpu.simulator.engine.arena import Memory, words
from loadsparse.gpu.simulator.engine.compiled import Compiled
from loadsparse.gpu.simulator.recurrence import Recurrence
from loadsparse.gpu.simulator.request import Request


@dataclass(slots=True)
class Worker:
    """One thread's own structures: host addresses of a block to reuse, of its state and hazard records; and its counts."""

    block: int
    state: int
    counters: NDArray[np.int64]
    counts: NDArray[np.int64]
    hazards: int
    rounds: dict[int, Recurrence] = field(default_factory=dict)
    """Those of its present block, by linear index."""

    @property
    def words(self) -> NDArray[np.int64]:
        """Its state, by `L.K_... // 8`."""
        return words(self.state, L.WORKER_BYTES // 8)

    @property
    def stopped(self) -> int:
        """1 + the hazard that stopped it, or 0."""
        return int(self.words[L.K_STOPPED // 8])


class Structures:
    """Fills in the structures of one launch; `layout.py` says where every field lies."""

    def __init__(self, request: Request, compiled: Compiled, exact: bool, memory: Memory) -> None:
        self.request, self.compiled, self.exact, self.memory = request, compiled, exact, memory
        self.halt = memory.take(8)
        self.threads = math.prod(request.block)
        self.warps = -(-self.threads // 32)
        self.table = self._table()
        parameters = np.zeros(max(compiled.param_bytes, request.parameters.size, 8), np.uint8)
        parameters[: request.parameters.size] = request.parameters
        self.parameters = memory.hold(parameters)

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
        own[L.K_LEVELS // 8] = max(1, -(-(math.prod(self.request.grid) - 1).bit_length() // 5))
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
