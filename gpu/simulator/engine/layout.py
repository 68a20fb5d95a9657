"""Where the fields of the engine's structures lie, in bytes.  Generated code and run-time functions share these.

`B` is a block on its worker (all fields 64 bits), `W` a warp of it.  Pointers are host addresses.
"""

from __future__ import annotations

from loadsparse.gpu.simulator.bypass import MOST
from loadsparse.gpu.simulator.request import HazardKind

# block: launch constants
B_NTID = 0
B_CTAID = 24
B_NCTAID = 48
B_LINEAR = 72
B_WARP_COUNT = 80
B_THREADS = 88
B_WARPS = 96
B_WARP_BYTES = 104
B_TABLE = 112
B_TABLE_COUNT = 120
B_SHARED = 128
B_SHARED_BYTES = 136
B_SHARED_DEFINED = 144
B_DYNAMIC_SHARED = 152
B_PARAM = 160
B_PARAM_BYTES = 168
B_LOCAL = 176
B_LOCAL_BYTES = 184
B_LOCAL_DEFINED = 192
# block: bookkeeping
B_COUNTERS = 200
B_BLOCK_COUNTS = 208
B_HAZARDS = 216
B_WORKER = 224
B_TURN = 232
B_STATE = 240
B_RUN = 248
B_LIVE_WARPS = 256
B_GRID_THREADS = 264
# block: races
B_CLOCK = 272
B_FLOOR = 280
B_CELLS = 288
B_CLOCK_BASE = 304
B_PENDING_LOW = 312
B_PENDING_HIGH = 320
B_GRANULE = 328
B_THREAD_FLOOR = 336
B_ORDER = 344
# block: cp.async
B_PENDING = 352
B_PENDING_COUNT = 360
B_QUEUE = 368
B_EAGER = 376
B_SOURCE_LOW = 384
B_SOURCE_HIGH = 392
B_ISSUED = 400
# block: races, the whole history
B_GLOBAL_GRANULE = 408
B_EXACT = 416
B_HEADS = 424
B_STAMP = 432
B_VIEWS = 440
# block: barriers, 16 of BARRIER_BYTES; bits of those that some thread went past
B_BARRIERS = 448
BARRIER_BYTES = 64
BARRIER_ARRIVED = 0
BARRIER_NEEDED = 8
BARRIER_WARPS = 16
BARRIER_POPC = 24
BARRIER_FALSE = 32
BARRIER_REDUCES = 40
B_PASSED = B_BARRIERS + 16 * BARRIER_BYTES
BLOCK_BYTES = B_PASSED + 64

# worker
K_BUDGET = 0
K_STOPPED = 8
K_STEALS = 16
K_INSTRUCTIONS = 24
K_POLL = 32
K_HEAR = 40
K_TRANSLATE = 48
K_MASKED = 56
# worker: races
K_ARGUMENT = 64
K_NUMBER = 72
K_NARROW = 80
K_FIRST_WRITE = 88
K_MORE = 96
K_NEXT = 104
K_LIMIT = 112
K_FREE = 120
K_FREE_NODE = 128
K_STAMP = 136
K_LEVELS = 144
K_MESSAGES = 152
K_MESSAGE_LIMIT = 160
K_MESSAGE_COUNT = 168
K_AGAIN = 176
K_HALT = 184
K_TIME = 192
K_PRINT = 200
K_BLOCK = 208
K_LANES = 216
K_GAVE_WAY = 224
WORKER_BYTES = 256
"""K_HEAR, K_TRANSLATE: callbacks into Python; K_MASKED: the masked form of the kernel, or 0 until it is needed.
K_FIRST_WRITE, K_MORE: callbacks when allocation K_ARGUMENT is written for the first time, and when records need
K_ARGUMENT bytes; K_PRINT: when lanes K_LANES of warp K_ARGUMENT of block K_BLOCK print; K_GAVE_WAY: when the block gave
way, 1 if it would do so for ever.  K_HALT points to a word that
all workers share: no further block is started."""

# K_AGAIN: why the launch must run again (the filter suspects a race; reads were not recorded; a register that is not
# wholly defined reached a use; a function of the CUDA run time is called, which the interpreter knows) or cannot go on
SUSPECTED, UNRECORDED, EXHAUSTED, DOUBTFUL, CALLED = 1, 2, 3, 4, 5

# warp
W_PC = 0
W_LIVE = 128
W_WAITING = 132
W_INDEX = 136
W_STATUS = 144
W_BARRIER = 152
W_RESULT = 160
W_BARRED = 168
W_STEPPED = 176
W_ASIDE = 184
W_SLOT = 188
W_TID = 192
W_ADDRESS = 576
W_DATA = 832
W_DEFINED = 1856
W_MMA = 1920
W_SCRATCH = 3968
W_MATRIX_DEFINED = 12288
W_ARRIVALS = 12800
W_ARRIVED_AT = 12864
W_KNOWN = 12928
W_PASSED = 13952
W_PRINTED = -(-(W_PASSED + 4 * MOST) // 64) * 64
W_REGISTERS = W_PRINTED + 128
"""W_BARRED: lanes that wait at `barrier.sync 0` for the rest of their warp; W_STEPPED: the warp's clock;
W_ASIDE: lanes that stand back because their loop or sleep ended a turn.
W_PASSED: for each barrier of `bypass.py` the lanes that went past it; W_SLOT: 1 + the number there of the barrier at
which the warp waits, or 0.
W_ARRIVALS, W_ARRIVED_AT: for each barrier the lanes that came, and when they did not wait.
W_DATA: up to 4 elements of 32 lanes, 256 bytes apart; W_DEFINED: their masks;
W_KNOWN: in the fine form, their defined bits; W_SCRATCH: bank and segment lists."""

POLL_INTERVAL = 10_000_000
"""Thread instructions between two looks for signals, where the calling thread itself runs native code."""

# warp status
READY, AT_BARRIER, FINISHED = 0, 1, 2

# why the code of a warp returned; AGAIN: from the masked form to the full one
EXITED, WAITS, YIELDED, STOPPED, AGAIN = 0, 1, 2, 3, 4

# allocation table entries
T_DATA, T_BYTES, T_DEFINED, T_READ_ONLY, T_READS, T_HISTORY, T_ROW, T_ENTRY_BYTES = 0, 8, 16, 24, 32, 40, 48, 64
"""T_HISTORY: race cells (rows of writes and reads, T_ROW bytes each, for every worker) or heads, from the first write."""
UNREAD, READ_BLINDLY, RECORDED = 0, 1, 2
"""T_READS: whether reads of the allocation have happened, and are remembered."""

# hazard records, after a count at offset 0
H_COUNT, H_RECORDS, H_CAPACITY = 0, 64, 8192
(
    H_KIND, H_SITE, H_OTHER, H_BLOCK, H_THREAD, H_ADDRESS, H_SIZE, H_DETAIL, H_EVENTS, H_OTHER_BLOCK, H_OTHER_THREAD,
    H_BYTES,
) = range(0, 96, 8)  # fmt: skip

KINDS: tuple[HazardKind, ...] = (
    "bounds", "alignment", "uninitialized", "race", "pending", "convergence", "deadlock", "budget", "trap",
)  # fmt: skip
BOUNDS, ALIGNMENT, UNINITIALIZED, RACE, PENDING, CONVERGENCE, DEADLOCK, BUDGET, TRAP = range(9)
DETAILS = (
    "", "guard", "address", "value", "write after write", "read after write", "write after read", "read", "write",
    "source", "unwaited", "stuck", "guards differ", "not in own mask", "inactive source", "trap", "stale read",
    "lanes missing", "went past", "spins", "kinds mixed",
)  # fmt: skip
(
    NO_DETAIL, GUARD, ADDRESS, VALUE, WRITE_WRITE, READ_WRITE, WRITE_READ, READ, WRITE, SOURCE, UNWAITED, STUCK,
    GUARDS_DIFFER, NOT_IN_MASK, INACTIVE, TRAPPED, STALE_READ, MISSING, PASSED, SPINS, MIXED,
) = range(21)  # fmt: skip

# how a warp arrives at a barrier; WATCHES: and reports those that arrived otherwise
WAITS, REDUCES, WATCHES = 1, 2, 4

# counters per instruction
C_REQUESTS, C_SECTORS, C_BYTES, C_WAVEFRONTS, C_IDEAL, C_DIVERGENT, C_LOCAL_REQUESTS, C_LOCAL_SECTORS = range(0, 64, 8)
C_SITE_BYTES = 64

# block counts per basic block: executions by full warps; executions and lanes of other groups
N_FULL, N_GROUPS, N_LANES, N_BYTES = 0, 8, 16, 32

# races, filter: a cell is clock << CELL_CLOCK | MANY | STRONG | thread, 32 bits; 0 is "none".  Cells of global memory
# have 1 + block (SEVERAL: more than one) in the upper 32 bits.  Of shared memory the cells of a granule lie side by side
# (one load sees both): its last write, and CELL_READS further its reads.
CELL_READS, CELL_PAIR = 4, 8
THREAD_MASK = 1023
STRONG = 1 << 10
MANY = 1 << 11
CELL_CLOCK = 12
CLOCK_LIMIT = (1 << 20) - 4
LOW = (1 << 32) - 1
SEVERAL = LOW << 32
# how an access takes part beside STRONG: scope of one block; `.nc`
NARROW, STALE = 1, 2

# races, history: a granule's head has its last weak write and lists of accesses, the latest first
HEAD_WRITE, HEAD_READS, HEAD_STRONG_WRITES, HEAD_STRONG_READS, HEAD_BYTES = 0, 8, 16, 24, 32
R_NEXT, R_BLOCK, R_THREAD, R_CLOCK, R_SITE, R_KIND, R_STAMP, R_TIME, R_BYTES = range(0, 72, 8)

# views of a thread: what it knows, what its last fences came after, what its relaxed reads saw
V_KNOWN, V_FENCED, V_FENCED_BLOCK, V_SEEN, V_SEEN_BLOCK, V_BYTES = range(0, 48, 8)
NODE_CHILDREN, NODE_BYTES = 32, 256
M_ADDRESS, M_READER, M_VIEW, M_BYTES = 0, 8, 16, 24
EVERYONE = -1

# cp.async: per thread a ring of copies
QUEUE_HEADER = 32
QUEUE_CAPACITY = 256
Q_FIRST, Q_COUNT, Q_OPEN, Q_SPARE = 0, 8, 16, 24
Q_TARGET, Q_SOURCE, Q_BYTES, Q_READ, Q_SITE, Q_GROUP, Q_DATA, Q_DEFINED, Q_MARK = 0, 8, 16, 24, 32, 40, 48, 64, 72
Q_COPY_BYTES = 80
QUEUE_BYTES = QUEUE_HEADER + QUEUE_CAPACITY * Q_COPY_BYTES

# where an access lands; GENERIC addresses say it themselves
GENERIC, GLOBAL, SHARED, LOCAL, PARAM = range(5)
OFFSET_MASK = (1 << 36) - 1
ALLOCATION_SHIFT = 36

# bits of the checks that a run-time function is specialised for
CHECK_BOUNDS, CHECK_ALIGNMENT, CHECK_UNINITIALIZED, CHECK_RACES, CHECK_PENDING, CHECK_FINE = 1, 2, 4, 8, 16, 32
CHECK_CELL = 6
"""CHECK_FINE: loads and stores exchange defined bits; the bits from CHECK_CELL on: bytes of the cells of padding, or 0."""
