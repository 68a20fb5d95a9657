# %% [markdown]
# # Your first ten minutes: a GPU program on a computer without a GPU
#
# *You have a laptop and no GPU. Can you write a GPU program, run it, and know that it is right?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, cells, flow, show

show(
    flow(
        [
            "a Python\nfunction",
            "PTX, the GPU's\nassembly",
            "32 lanes at a time,\non your CPU",
            "result, counts,\nhazards",
        ],
        ["a GPU compiler", "the simulator", "compared with NumPy"],
    ),
    "Four boxes joined by arrows: a Python function becomes PTX, is executed on the CPU, and gives a result with counts and hazards.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | NumPy; no CUDA |
# | Time | 20 minutes; your kernel runs after ten |
# | A common misconception | "A kernel is called once and works on the whole array, like a NumPy function." It is called once for every *thread*, and each call sees one element. |
#
# ## You will learn
#
# 1. to write a [kernel](glossary.md#kernel), one small function that thousands of [threads](glossary.md#thread) execute;
# 2. to run it without a GPU and to read what the report says;
# 3. to break it on purpose and to find the line.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# A GPU has no loop over the elements. You write the *body* of the loop, and say how often it runs. Threads come in [blocks](glossary.md#block-thread-block); here four blocks of 32 threads share 100 elements, so 28 threads must do nothing.

# %%
import numpy as np


def body(block, thread, x, out):
    i = 32 * block + thread  # which element is mine?
    if i < x.size:
        out[i] = x[i] + 1


x = np.arange(100, dtype=np.float32)
out = np.zeros_like(x)
for block in range(4):  # on a GPU these two loops are the hardware,
    for thread in range(32):  # and no order is promised
        body(block, thread, x, out)
assert np.array_equal(out, x + 1)

# %% [markdown]
# ## Build it
#
# ### The kernel
#
# The same body in [Numba-CUDA](https://nvidia.github.io/numba-cuda/). `cuda.grid(1)` is the number of this thread in the whole [grid](glossary.md#grid). `float32(1)` keeps the sum in 32 bits: a bare `1.0` would be a 64-bit number, and so would the addition.

# %%
from numba import cuda, float32

from loadsparse.gpu import simulator


def add_one(x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = x[i] + float32(1)


out = np.zeros_like(x)
report = simulator.run(add_one)[4, 32](x, out)  # [blocks, threads per block]
assert np.array_equal(out, x + 1)
assert report.ok
print(out[:5], "...", out[-1])

# %% [markdown]
# That was a real GPU compiler, NVIDIA's own where it is installed (else LLVM's: counts of instructions then differ a little from those on this page), and every instruction that it made was executed. Here is the middle of the kernel, in [PTX](glossary.md#ptx), the assembly language of NVIDIA GPUs; beside it how many *[warps](glossary.md#warp)* (groups of 32 threads that step together) executed the line, and how many threads.

# %%
for row in report.lines[10:]:
    print(f"{row['executions']:3} warps {row['threads']:4} threads   {row['ptx']}")
assert [row["threads"] for row in report.lines if row["ptx"].startswith("st.global")] == [100]

# %% [markdown]
# Read it from the bottom: `st.global` stores, `add.f32` adds, `ld.global` loads, and `@%p1 bra` is the `if`: 128 threads arrive there and 100 go on.
#
# ### Who does what
#
# Every thread finds its own element from two numbers: its block and its place in the block.

# %%
text = np.array([[f"{32 * b + t}" if 32 * b + t < 100 else "idle" for t in (0, 1, 2, 3, 4, 30, 31)] for b in range(4)])
figure, axis = canvas(height=2.0)
cells(axis, text, text == "idle", [f"block {b}" for b in range(4)], [f"thread {t}" for t in (0, 1, 2, 3, 4, 30, 31)])
show(
    figure,
    "A table of four blocks and some of their 32 threads: element 32 b + t in each, the last block is idle from thread 4 on.",
)

# %% [markdown]
# ### Break it
#
# Forget the `if`. On a GPU the 28 surplus threads would write into whatever lies behind the array, silently. Here the report names the line, the block, the thread and the bytes.

# %%


def careless(x, out):
    i = cuda.grid(1)
    out[i] = x[i] + float32(1)


broken = simulator.run(careless)[4, 32](x, np.zeros_like(x))
hazard = broken.hazards[0]
print(
    f"{hazard.kind}, line {hazard.source_line} of the cell, block {hazard.block}, thread {hazard.thread}, {hazard.count} times"
)
print(hazard.message)
assert not broken.ok
assert (hazard.kind, hazard.thread, hazard.count) == ("bounds", (4, 0, 0), 28)

# %% [markdown]
# ## Check it against the oracle
#
# An *[oracle](glossary.md#oracle)* is a short, obvious definition of the right answer that shares no code with what it judges. For `add_one` it was `x + 1`. For the kernels of this project it is NumPy in `loadsparse.reference`, and the comparison is bit for bit. Here is the project's main kernel, in
# exactly the way you ran your own: sparse weights A times a few columns B.

# %%
from loadsparse.gpu import kernels
from loadsparse.reference import pruning, spmm

rng = np.random.default_rng(seed=0)
A = pruning.magnitude(rng.standard_normal((128, 128)).astype(np.float16), 0.8)  # 80 % zeros
B = rng.standard_normal((128, 8)).astype(np.float16)
lscd = kernels.get("lscd")
launch = lscd.plan(lscd.encode(A), B, arch="sm_80")
C, product = launch.run()
assert product.ok
assert np.array_equal(C, spmm.lscd(A, B, arch="sm_80", splits=launch.splits))
print(
    f"{product.thread_instructions:,} thread instructions, {len(product.hazards)} hazards, all {C.size} elements equal in every bit"
)

# %% [markdown]
# The same from a terminal: `loadsparse verify lscd`, and for your own kernel `loadsparse verify mine.py:kernel`.
#
# ## Numbers
#
# A report also *counts*. Memory is fetched in *[sectors](glossary.md#sector)* of 32 bytes. If neighbouring threads read neighbouring numbers, a warp needs 4 sectors for its 32 floats. What if thread i reads element s·i?

# %%


def strided(x, out, s):
    i = cuda.grid(1)
    out[i] = x[i * s]


LOADS = "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum"  # the name that NVIDIA's profiler uses
strides = (1, 2, 4, 8, 16)
data, sink = np.arange(512, dtype=np.float32), np.zeros(32, np.float32)
sectors = [simulator.run(strided)[1, 32](data, sink, s).metrics[LOADS] for s in strides]
figure, axis = canvas(height=3.0)
axis.plot(strides, sectors, marker="o")
axis.set_xscale("log", base=2)
axis.set_xticks(strides, strides)
axis.set(
    xlabel="stride s",
    ylabel="sectors fetched by one warp",
    ylim=(0, 35),
    title="Counted: what one load costs",
    yticks=(4, 8, 16, 32),
)
show(
    figure,
    "Sectors against stride: 4, 8, 16, 32 at strides 1, 2, 4, 8, and still 32 at 16, when every thread has a sector of its own.",
)
assert sectors == [4, 8, 16, 32, 32]

# %% [markdown]
# These counts are exact. What they cost in *time* no simulator can tell: see [what a simulator cannot tell you](22_what_a_simulator_cannot_tell_you.ipynb).
#
# ## Exercises
#
# 1. 1,000 elements, blocks of 32 threads: how many blocks do you need, and how many threads are idle?
# 2. Add 0.1 instead of 1, once as `float32(0.1)`, once as a bare `0.1`. How many instructions of the PTX work on 64-bit floats (`f64`)? (Addresses have 64 bits in both.)
# 3. Let thread i read element 31 − i. How many sectors does the warp fetch?
#
# <details><summary>Answers</summary>
#
# 1. 32 blocks (1,000 / 32 = 31.25, rounded up), and 1,024 − 1,000 = 24 idle threads.
# 2. None, and three: convert to 64 bits, add, convert back. On many GPUs 64-bit arithmetic is 32 or 64 times slower.
# 3. Four: the order inside the warp does not matter, only which sectors are touched.
#
# </details>

# %%
assert -(-1000 // 32) == 32
assert 32 * 32 - 1000 == 24


def in_double(x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = x[i] + 0.1


lines = simulator.run(in_double)[4, 32](x, out).lines
assert sum("f64" in row["ptx"] for row in lines) == 3


def backwards(x, out):
    i = cuda.grid(1)
    out[i] = x[31 - i]


assert simulator.run(backwards)[1, 32](data, sink).metrics[LOADS] == 4

# %% [markdown]
# ## Summary
#
# A kernel is the body of a loop; the grid says how often it runs; each thread finds its element itself. The simulator executes the compiler's real output, compares, counts and names what is wrong. Next: why [skinny matmuls starve Tensor
# Cores](01_skinny_matmuls.ipynb), the problem that the rest of this door solves, or [threads, blocks, barriers](03_threads_blocks_barriers.ipynb), if you want to write kernels first.
