# %% [markdown]
# # Threads, blocks, barriers
#
# *A thousand threads want to add up a thousand numbers, but none of them can see when another has finished. How do they add without losing any?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, cells, show

numbers = np.array([3, 1, 4, 1, 5, 9, 2, 6])
rows = [numbers.copy()]
for half in (4, 2, 1):
    step = rows[-1].copy()
    step[:half] += step[half : 2 * half]
    rows.append(step)
busy = np.array([[0] * 8, [1] * 4 + [0] * 4, [1] * 2 + [0] * 6, [1] + [0] * 7])
figure, axis = canvas(height=2.0)
cells(
    axis,
    rows,
    busy,
    ["start", "barrier, then +4", "barrier, then +2", "barrier, then +1"],
    [f"thread {t}" for t in range(8)],
)
show(
    figure,
    "Eight numbers are added in three steps: four threads add the number 4 places on, then two the one 2 places on, then one; 31 remains.",
)
assert rows[-1][0] == numbers.sum() == 31

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [your first ten minutes](00_your_first_ten_minutes.ipynb) |
# | Time | 30 minutes |
# | A common misconception | "A barrier makes all threads of the GPU wait for each other." It holds the threads of one *block*. Blocks never wait for each other: some may not even have started. |
#
# ## You will learn
#
# 1. what the [threads](glossary.md#thread) of a [block](glossary.md#block-thread-block) share, and why blocks share only slow memory;
# 2. what a [barrier](glossary.md#barrier) promises, and what happens without one, or with one that not everybody reaches;
# 3. why *which* threads are idle matters as much as how many: [warps](glossary.md#warp).

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Add in a tree: in each step the first half of the threads adds what the second half holds. Ten steps for 1,024 numbers instead of 1,023 additions in a row. Between two steps *everybody* must have finished: that is a barrier.

# %%
rng = np.random.default_rng(seed=3)
values = rng.integers(0, 100, 1024).astype(np.int32)
shared = values.copy()
half, steps = 512, 0
while half > 0:
    shared[:half] += shared[half : 2 * half]  # all threads of this step, at once
    half, steps = half // 2, steps + 1  # the barrier
print(f"sum {shared[0]} in {steps} steps")
assert (shared[0], steps) == (values.sum(), 10)

# %% [markdown]
# ## Build it
#
# ### Shared memory
#
# The threads of one block own a small, fast piece of *[shared memory](glossary.md#shared-memory)*; everybody else cannot see it. Each thread first copies one number into it. `cuda.syncthreads()` is the barrier: nobody passes until all threads of the block have arrived, and what was written before it is seen after it.

# %%
from numba import cuda, int32

from loadsparse.gpu import simulator

WIDTH = 256


def block_sum(x, out):
    s = cuda.shared.array(WIDTH, int32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.blockIdx.x * WIDTH + t]
    cuda.syncthreads()
    half = WIDTH // 2
    while half > 0:
        if t < half:
            s[t] += s[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        out[cuda.blockIdx.x] = s[0]


partial = np.zeros(4, np.int32)
report = simulator.run(block_sum)[4, WIDTH](values, partial)
print(report.ok, partial, partial.sum())
assert report.ok
assert partial.tolist() == values.reshape(4, WIDTH).sum(axis=1).tolist()

# %% [markdown]
# Four blocks leave four sums. There is no barrier across blocks, so the last addition is another [kernel](glossary.md#kernel), an [atomic](glossary.md#atomic) addition, or, as here, NumPy's.
#
# ### Without the barrier
#
# Take the barrier in the loop away. Thread 0 may now add `s[64]` before thread 64 has put its own sum there.

# %%


def hasty_sum(x, out):
    s = cuda.shared.array(WIDTH, int32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.blockIdx.x * WIDTH + t]
    cuda.syncthreads()
    half = WIDTH // 2
    while half > 0:
        if t < half:
            s[t] += s[t + half]
        half //= 2
    if t == 0:
        out[cuda.blockIdx.x] = s[0]


hasty = simulator.run(hasty_sum)[4, WIDTH](values, partial)
race = next(hazard for hazard in hasty.hazards if hazard.kind == "race")
print(f"{race.kind}, line {race.source_line} of the cell, block {race.block}, thread {race.thread}: {race.message}")
print("right by luck" if np.array_equal(partial, values.reshape(4, WIDTH).sum(axis=1)) else f"and wrong: {partial}")
assert race.source_line == 9

# %% [markdown]
# A *[race](glossary.md#race)*: two threads touch the same place, at least one writes, and nothing orders them. The simulator reports it from the accesses themselves, whatever the result was in this order of events.
#
# ### A barrier that not everybody reaches
#
# Put the barrier under an `if`, and those who wait there wait for threads that never come. On a GPU that is undefined: it may hang, or go on with garbage. Here half a warp waits, and the other half waits elsewhere.

# %%


def lonely(x, out):
    s = cuda.shared.array(WIDTH, int32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    if t < 16:
        cuda.syncthreads()  # 240 threads never come here
        s[t] += 1
    cuda.syncthreads()
    out[t] = s[WIDTH - 1 - t]


stuck = simulator.run(lonely)[1, WIDTH](values, np.zeros(WIDTH, np.int32))
for hazard in stuck.hazards:
    print(f"{hazard.kind}, line {hazard.source_line} of the cell: {hazard.message}")
assert not stuck.ok

# %% [markdown]
# ## Check it against the oracle
#
# Sums of integers have one right answer, in any order. Sums of floats do not: the tree adds in another order than a loop. The [oracle](glossary.md#oracle) therefore has to add in the tree's order, and then the bits agree.

# %%
from numba import float32


def float_sum(x, out):
    s = cuda.shared.array(WIDTH, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    half = WIDTH // 2
    while half > 0:
        if t < half:
            s[t] += s[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        out[0] = s[0]


floats = rng.standard_normal(WIDTH).astype(np.float32)
tree = floats.copy()
half = WIDTH // 2
while half > 0:
    tree[:half] += tree[half : 2 * half]
    half //= 2
loop = np.float32(0)
for value in floats:
    loop += value
total = np.zeros(1, np.float32)
assert simulator.run(float_sum)[1, WIDTH](floats, total).ok
print(f"kernel {total[0]!r}, tree {tree[0]!r}, loop {loop!r}, float64 {floats.astype(float).sum()!r}")
assert total[0] == tree[0]

# %% [markdown]
# ## Numbers
#
# Hardware issues instructions for *warps*: 32 threads with consecutive numbers. A warp with one busy thread costs as much as a warp with 32. So compare two trees: the one above, where the busy threads are the first ones, and the
# textbook's first try, where thread t works if t is a multiple of 2, then 4, then 8.

# %%


def scattered_sum(x, out):
    s = cuda.shared.array(WIDTH, int32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.blockIdx.x * WIDTH + t]
    cuda.syncthreads()
    gap = 1
    while gap < WIDTH:
        if t % (2 * gap) == 0:
            s[t] += s[t + gap]
        cuda.syncthreads()
        gap *= 2
    if t == 0:
        out[cuda.blockIdx.x] = s[0]


def stores(report):
    """Stores of sums to shared memory: warp instructions, and threads that took part (the first copy is not counted)."""
    rows = [row for row in report.lines if "st.shared" in row["ptx"]]
    return sum(row["executions"] for row in rows) - 4 * WIDTH // 32, sum(row["threads"] for row in rows) - 4 * WIDTH


scattered = simulator.run(scattered_sum)[4, WIDTH](values, partial)
assert scattered.ok
assert partial.sum() == values.sum()
for name, found in (("first threads", report), ("every 2nd, 4th, ...", scattered)):
    warps, threads = stores(found)
    print(f"{name:20} {threads} additions took {warps} warp instructions; {found.instructions} in the whole kernel")
first = [max(1, WIDTH // 2 ** (s + 1) // 32) for s in range(8)]  # warps with a busy thread, per block and step
every = [min(8, WIDTH // 2 ** (s + 1)) for s in range(8)]
assert stores(report)[0] == 4 * sum(first)
assert stores(scattered)[0] == 4 * sum(every)
figure, axis = canvas(height=3.0)
axis.step(range(1, 9), first, where="mid", label="first threads work")
axis.step(range(1, 9), every, where="mid", label="every 2nd, 4th, 8th ... thread works")
axis.set(xlabel="step of the tree", ylabel="busy warps of a block", ylim=(0, 11), title="The same 255 additions")
axis.legend()
show(
    figure,
    "Busy warps per step: 4, 2, 1, then 1 when the first threads work; 8 for five steps, then 4, 2, 1 when every 2nd, 4th, ... works.",
)

# %% [markdown]
# Both add 255 times in a block. The second needs four times the warp instructions for it. Both numbers are *counted*; that the formula in the cell gives the same is the check.
#
# ## Exercises
#
# 1. How many barriers does a block of 256 threads execute in `block_sum`? And one of 1,024?
# 2. How many warp instructions do the additions take in a block of 1,024 threads, in either version?
# 3. Is the last barrier in the loop of `block_sum` needed? Stop the loop at `half == 1` without it, and let the report judge.
#
# <details><summary>Answers</summary>
#
# 1. 1 + 8 = 9, and 1 + 10 = 11: one after the copy and one per step.
# 2. First threads: 16 + 8 + 4 + 2 + 1 + 1 + 1 + 1 + 1 + 1 = 36. Scattered: 32 in the first five steps and in the sixth 16, then 8, 4, 2, 1: 191.
# 3. No: after the last addition only thread 0 reads `s[0]`, which it wrote itself. A barrier orders *different* threads.
#
# </details>

# %%
assert report.metrics["barriers"] == 4 * 8 * 9  # counted per warp: 4 blocks of 8 warps
assert sum(max(1, 1024 // 2 ** (s + 1) // 32) for s in range(10)) == 36
assert sum(min(32, 1024 // 2 ** (s + 1)) for s in range(10)) == 191


def one_barrier_less(x, out):
    s = cuda.shared.array(WIDTH, int32)
    t = cuda.threadIdx.x
    s[t] = x[cuda.blockIdx.x * WIDTH + t]
    cuda.syncthreads()
    half = WIDTH // 2
    while half > 1:
        if t < half:
            s[t] += s[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        s[0] += s[1]
        out[cuda.blockIdx.x] = s[0]


assert simulator.run(one_barrier_less)[4, WIDTH](values, partial).ok
assert partial.sum() == values.sum()

# %% [markdown]
# ## Summary
#
# A block shares memory and barriers; blocks share neither. A barrier orders what different threads do; without one there is a race, even where the result is right. Work is issued in warps of 32, so keep the busy threads together. Next: [a tiled
# matmul and its race](04_a_tiled_matmul_and_its_race.ipynb).
