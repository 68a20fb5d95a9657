# %% [markdown]
# # Break it and see it: eleven classic CUDA bugs
#
# *A kernel gives the right answer on your GPU, today. Is it right? Here are eleven that are not: can you find the line before the report does?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, cells, show

figure, axis = canvas(height=1.5)
story = [
    ["reads 5", "adds 1", "writes 6", "", "", ""],
    ["", "reads 5", "", "adds 1", "writes 6", ""],
    ["5", "5", "6", "6", "6", "6, not 7"],
]
cells(axis, story, [[0] * 6, [0] * 6, [1] * 6], ["thread 0", "thread 1", "memory"], [f"moment {i}" for i in range(6)])
show(figure, "Two threads add one to the same number: both read 5, both write 6, and one addition is lost.")

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [threads, blocks, barriers](03_threads_blocks_barriers.ipynb), [a tiled matmul and its race](04_a_tiled_matmul_and_its_race.ipynb); enough C to read ten lines |
# | Time | 40 minutes |
# | A common misconception | "It ran a thousand times with the right result, so it has no race." A GPU shows you one order of events out of many; a race is about the orders you did not see. |
#
# ## You will learn
#
# 1. to read a [hazard](glossary.md#hazard) report: what, where ([kernel](glossary.md#kernel), [block](glossary.md#block-thread-block), [thread](glossary.md#thread), [PTX](glossary.md#ptx) line, source line), how often;
# 2. eleven mistakes that every CUDA programmer makes once, and the one-line mend of each;
# 3. which of them no ordinary run shows, and how a search over *schedules* makes them visible.
#
# The kernels of this chapter are CUDA C++, which only NVIDIA's compiler reads. They come compiled, too (`compiled.cuda` finds them), so the chapter runs without it; to change one of them you need `pip install "loadsparse[nvidia]"`, on macOS in a Linux container.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Threads that add to the same place at the same time all read the old value first. NumPy's fancy indexing does precisely that:

# %%
import numpy as np

data = np.array([2, 0, 2, 2, 1, 2])
counts = np.zeros(3, int)
counts[data] += 1  # all "threads" read, then all write: updates are lost
assert counts.tolist() == [1, 1, 1]
counts = np.zeros(3, int)
np.add.at(counts, data, 1)  # one after the other: an atomic addition
assert counts.tolist() == [1, 1, 4]
print("the first histogram counts every value once, whatever the data; the second is right")

# %% [markdown]
# ## Build it
#
# NVIDIA's compiler turns CUDA C++ into PTX; the simulator executes the PTX and checks every access. `look` runs a kernel and prints what was found; `BUG` in a comment marks the line that we claim is wrong, and a cell fails if the
# report names another.

# %%
from loadsparse.gpu import simulator
from loadsparse.tutorials import compiled


def launch(source: str, *arguments: object, grid: int = 1, block: int = 64, **options: object) -> simulator.Report:
    """Compile the one kernel of `source` and execute it."""
    module = simulator.load(compiled.cuda(source), arch="sm_80")
    (kernel,) = module.values()
    return kernel.launch(grid, block, *arguments, **options)


def look(kind: str, source: str, *arguments: object, **options: object) -> simulator.Report:
    """Run a broken kernel: a hazard of this kind must be reported at a line marked BUG."""
    report = launch(source, *arguments, **options)
    marked = {number for number, line in enumerate(source.splitlines(), 1) if "BUG" in line}
    found = [hazard for hazard in report.hazards if hazard.kind == kind]
    assert found, f"no {kind}: {report}"
    assert any(hazard.source_line in marked for hazard in found), f"another line: {report}"
    hazard = next(hazard for hazard in found if hazard.source_line in marked)
    print(f"{hazard.kind}, line {hazard.source_line}: {source.splitlines()[hazard.source_line - 1].strip()}")
    print(f"  block {hazard.block}, thread {hazard.thread}, {hazard.count} times: {hazard.message}")
    return report


# %% [markdown]
# ### 1. The missing barrier
#
# One thread reads what another stores. Nothing says that the store comes first.

# %%
REVERSE = r"""
extern "C" __global__ void reverse(float *x) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = s[63 - threadIdx.x];                       // BUG
}"""
x = np.arange(64, dtype=np.float32)
look("race", REVERSE, x.copy())

mended = REVERSE.replace("    x[threadIdx.x] = s", "    __syncthreads();\n    x[threadIdx.x] = s")
assert launch(mended, x).ok
assert x.tolist() == list(range(63, -1, -1))

# %% [markdown]
# ### 2. Off by one
#
# The [grid](glossary.md#grid) is rounded up to whole blocks; `<=` lets one thread too many through. On a GPU the store usually lands in somebody else's array.

# %%
SCALE = r"""
extern "C" __global__ void scale(float *x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) x[i] *= 2;                                      // BUG
}"""
x = np.ones(100, np.float32)
look("bounds", SCALE, x.copy(), 100, grid=2)

assert launch(SCALE.replace("<=", "<"), x, 100, grid=2).ok
assert np.all(x == 2)

# %% [markdown]
# ### 3. A barrier that not everybody reaches
#
# `__syncthreads` inside a branch: half of the [warp](glossary.md#warp) waits for [lanes](glossary.md#lane) that have gone elsewhere.

# %%
DIVERGENT = r"""
extern "C" __global__ void half(float *x) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x % 2 == 0) {
        __syncthreads();                                        // BUG
        s[threadIdx.x] += s[threadIdx.x + 1];
    }
    __syncthreads();
    x[threadIdx.x] = s[threadIdx.x & ~1];
}"""
x = np.ones(64, np.float32)
report = look("convergence", DIVERGENT, x.copy())
assert report.stopped == "convergence"  # nothing can run after it

mended = DIVERGENT.replace("        __syncthreads();", "").replace("    if (", "    __syncthreads();\n    if (")
assert launch(mended, x).ok
assert np.all(x == 2)

# %% [markdown]
# ### 4. Shared memory that was never cleared
#
# It often *is* zero, the first time. The report comes where the garbage would leave the chip, not where it is read.

# %%
UNINITIALISED = r"""
extern "C" __global__ void count(const int *x, int *out) {
    __shared__ int total;
    if (x[threadIdx.x] > 5) atomicAdd(&total, 1);
    __syncthreads();
    if (threadIdx.x == 0) *out = total;                         // BUG
}"""
numbers, out = np.arange(64, dtype=np.int32) % 10, np.zeros(1, np.int32)
look("uninitialized", UNINITIALISED, numbers, out)

mended = UNINITIALISED.replace("    if (x", "    if (threadIdx.x == 0) total = 0;\n    __syncthreads();\n    if (x")
assert launch(mended, numbers, out).ok
assert out[0] == (numbers > 5).sum()

# %% [markdown]
# ### 5. A reduction with one barrier too few
#
# The tree halves in every step, and every step needs its own [barrier](glossary.md#barrier): inside the loop, not after it.

# %%
REDUCE = r"""
extern "C" __global__ void sum(const int *x, int *out) {
    __shared__ int s[256];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    for (int d = 128; d > 0; d /= 2) {
        if (t < d)
            s[t] += s[t + d];                                   // BUG
    }
    __syncthreads();
    if (t == 0) *out = s[0];
}"""
numbers, out = np.arange(256, dtype=np.int32), np.zeros(1, np.int32)
look("race", REDUCE, numbers, out.copy(), block=256)

mended = REDUCE.replace("// BUG", "\n        __syncthreads();")
assert launch(mended, numbers, out, block=256).ok
assert out[0] == numbers.sum()

# %% [markdown]
# ### 6. Code that is right only in lock step
#
# "The 32 lanes of a warp run together, so within a warp no barrier is needed." That was folklore until 2017; since then each thread has its own program counter. In the default order nothing goes wrong here,
# and yet:

# %%
LOCK_STEP = r"""
extern "C" __global__ void neighbours(const int *x, int *out) {
    __shared__ int s[32];
    int t = threadIdx.x, v = x[t];
    if (t % 2)                                                  // odd lanes take a side road
        s[t] = v * 3;
    else
        s[t] = v * 5;
    out[t] = s[t ^ 1];                                          // BUG
}"""
from loadsparse.gpu.simulator.explore import explore_launch

numbers, out = np.arange(32, dtype=np.int32), np.zeros(32, np.int32)
look("race", LOCK_STEP, numbers, out, block=32)
expected = [(t ^ 1) * (3 if t % 2 == 0 else 5) for t in range(32)]
assert out.tolist() == expected  # the right result, this time

(kernel,) = simulator.load(compiled.cuda(LOCK_STEP)).values()
explored = explore_launch(kernel, 1, 32, numbers, out, count=8, checks=simulator.Checks.none())
assert not explored.ok  # other legal orders give other results
print(explored.differences[0])

mended = LOCK_STEP.replace("    out[t]", "    __syncwarp();\n    out[t]")
assert launch(mended, numbers, out, block=32).ok
(kernel,) = simulator.load(compiled.cuda(mended)).values()
assert explore_launch(kernel, 1, 32, numbers, out, count=8).ok

# %% [markdown]
# ### 7. A vector load from an odd place
#
# `float4` reads 16 bytes at once and wants an address that is a multiple of 16. A row of 33 floats is not.

# %%
VECTOR = r"""
extern "C" __global__ void rows(const float *x, float *out, int width) {
    float4 v = *(const float4 *)(x + threadIdx.x * width);      // BUG
    out[threadIdx.x] = v.x + v.y + v.z + v.w;
}"""
x, out = np.ones(64 * 36, np.float32), np.zeros(64, np.float32)
look("alignment", VECTOR, x, out, 33)

assert launch(VECTOR, x, out, 36).ok  # rows padded to a multiple of four
assert np.all(out == 4)

# %% [markdown]
# ### 8. Copies that nobody waited for
#
# `cp.async` returns before the bytes arrive. Committing a group is not waiting for it; and after waiting, the *other* threads still need a barrier.

# %%
COPY = r"""
extern "C" __global__ void shift(const float *x, float *out) {
    __shared__ __align__(16) float s[64];
    unsigned to = (unsigned)__cvta_generic_to_shared(s + threadIdx.x);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(to), "l"(x + threadIdx.x) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x ^ 1];                      // BUG
    asm volatile("cp.async.wait_all;" ::: "memory");
}"""
x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
look("pending", COPY, x, out.copy())

mended = COPY.replace(
    "    __syncthreads();", '    asm volatile("cp.async.wait_all;" ::: "memory");\n    __syncthreads();'
)
assert launch(mended, x, out).ok
assert np.array_equal(out, x[np.arange(64) ^ 1])

# %% [markdown]
# ### 9. A shuffle from a lane that is not there
#
# The mask must name the lanes that take part, and every one of them must arrive. Here lanes 0 to 15 read from lanes 16 to 31, which the branch left out.

# %%
SHUFFLE = r"""
extern "C" __global__ void pairs(const int *x, int *out) {
    int v = x[threadIdx.x];
    if (threadIdx.x < 16)
        v = __shfl_sync(0x0000ffff, v, threadIdx.x + 16);       // BUG
    out[threadIdx.x] = v;
}"""
numbers, out = np.arange(32, dtype=np.int32), np.zeros(32, np.int32)
look("convergence", SHUFFLE, numbers, out.copy(), block=32)

mended = SHUFFLE.replace("    if (threadIdx.x < 16)\n", "    int w;\n").replace(
    "v = __shfl_sync(0x0000ffff", "w = __shfl_sync(0xffffffff"
)
mended = mended.replace("= v;", "= threadIdx.x < 16 ? w : v;")
assert launch(mended, numbers, out, block=32).ok
assert out.tolist() == [t + 16 if t < 16 else t for t in range(32)]

# %% [markdown]
# ### 10. The histogram of the ten lines above

# %%
HISTOGRAM = r"""
extern "C" __global__ void histogram(const int *x, int *out) {
    __shared__ int bins[8];
    if (threadIdx.x < 8) bins[threadIdx.x] = 0;
    __syncthreads();
    bins[x[threadIdx.x]]++;                                     // BUG
    __syncthreads();
    if (threadIdx.x < 8) out[threadIdx.x] = bins[threadIdx.x];
}"""
numbers, out = np.random.default_rng(1).integers(0, 8, 256).astype(np.int32), np.zeros(8, np.int32)
look("race", HISTOGRAM, numbers, out, block=256)
print("  counted", out.sum(), "of 256 values")
assert out.sum() < 256

mended = HISTOGRAM.replace("bins[x[threadIdx.x]]++;", "atomicAdd(&bins[x[threadIdx.x]], 1);")
assert launch(mended, numbers, out, block=256).ok
assert np.array_equal(out, np.bincount(numbers, minlength=8))

# %% [markdown]
# ### 11. Tensor Cores: a row address that forgets the element size
#
# `ldmatrix` takes the byte address of one row of 16 bytes from each lane. Counting in elements puts every odd row into the middle of a 16-byte piece.

# %%
MATRIX = r"""
extern "C" __global__ void load(const unsigned short *x, unsigned *out) {
    __shared__ __align__(16) unsigned short s[64];
    s[2 * threadIdx.x] = x[2 * threadIdx.x];
    s[2 * threadIdx.x + 1] = x[2 * threadIdx.x + 1];
    __syncwarp();
    unsigned base = (unsigned)__cvta_generic_to_shared(s), row = threadIdx.x % 8, v;
    unsigned at = base + row * 8;                               // 8 elements are 16 bytes
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(v) : "r"(at) : "memory");  // BUG
    out[threadIdx.x] = v;
}"""
x, out = np.arange(64, dtype=np.uint16), np.zeros(32, np.uint32)
look("alignment", MATRIX, x, out.copy(), block=32)

assert launch(MATRIX.replace("row * 8;", "row * 16;"), x, out, block=32).ok
assert np.array_equal(out.view(np.uint16), x)  # lane l holds row l / 4, columns 2 (l % 4) and the next

# %% [markdown]
# ## Check it against the oracle
#
# Who checks the checker? A check that never cries wolf is as important as one that finds the wolf. Every mended kernel above had to be silent **and** give NumPy's result. The opposite must hold, too: with its check
# switched off, a bug must go unreported, so that we know which check found it.

# %%
quiet = simulator.Checks(races=False, uninitialized=False)
report = launch(REVERSE, np.arange(64, dtype=np.float32), checks=quiet)
assert report.ok  # the race is still there; nobody looked

# %% [markdown]
# ## Numbers
#
# What does looking cost? The same reduction, mended, over many blocks, with every check and without. Times are those of this computer's processor: they say nothing about a GPU.

# %% tags=["varies"]
MANY = r"""
extern "C" __global__ void sums(const int *x, int *out) {
    __shared__ int s[256];
    int t = threadIdx.x;
    s[t] = x[blockIdx.x * 256 + t];
    __syncthreads();
    for (int d = 128; d > 0; d /= 2) {
        if (t < d) s[t] += s[t + d];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = s[0];
}"""
numbers, out = np.arange(256 * 500, dtype=np.int32), np.zeros(500, np.int32)
for name, checks in (("every check", simulator.Checks()), ("no check", simulator.Checks.none())):
    report = launch(MANY, numbers, out, grid=500, block=256, checks=checks)
    assert report.ok
    print(f"{name}: {report.thread_instructions:,} thread instructions in {1000 * report.seconds['execute']:.0f} ms")
assert np.array_equal(out, numbers.reshape(500, 256).sum(axis=1))

# %% [markdown]
# ## Exercises
#
# 1. Bug 5 with `block=32`: is the barrier still needed? Which one would do? Try `__syncwarp()` and let the report judge.
# 2. Remove the second `__syncthreads` of bug 3. Lanes that have exited do not count at a barrier, so nothing hangs: what is reported instead?
# 3. In bug 8 put the `wait_all` *before* `__syncthreads` but remove the barrier. Which hazard remains, and why is it another kind?
# 4. Write the histogram of bug 10 in *global* memory without an [atomic](glossary.md#atomic). Which two lines of PTX [race](glossary.md#race)? Does the result show it? Does `explore_launch`?
#
# <details><summary>Answers</summary>
#
# 1. It is: without one the report says "race", in the line of the addition. `__syncwarp()` is enough for 32 threads, and the sum is 496.
# 2. The barrier that half of the threads went past, at line 6, when it opens without them; and a race: the last line reads what other warps store above. It is reported three times, at lines 7 and 10 of the kernel.
# 3. A race instead of a pending copy: `wait_all` makes a thread wait for its *own* copies; only a barrier makes it wait for those of others.
# 4. The load and the store of `++`: another thread may store between them. The result is wrong in most orders, and `explore_launch` says so: the same input gives different counts.
#
# </details>

# %%
narrow, total = np.arange(32, dtype=np.int32), np.zeros(1, np.int32)
small = REDUCE.replace("d = 128", "d = 16")  # exercise 1
assert not launch(small, narrow, total, block=32).ok
assert launch(small.replace("// BUG", "\n        __syncwarp();"), narrow, total, block=32).ok
assert total[0] == 496
where = DIVERGENT.rindex("    __syncthreads();")  # exercise 2
report = launch(DIVERGENT[:where] + DIVERGENT[where + 20 :], np.ones(64, np.float32))
assert sorted((hazard.kind, hazard.source_line) for hazard in report.hazards) == [
    ("convergence", 6),
    ("race", 7),
    ("race", 7),
    ("race", 10),
]
waiting = COPY.replace("    __syncthreads();", '    asm volatile("cp.async.wait_all;" ::: "memory");')  # exercise 3
assert {hazard.kind for hazard in launch(waiting, np.ones(64, np.float32), np.zeros(64, np.float32)).hazards} == {
    "race"
}
GLOBAL = r"""
extern "C" __global__ void histogram(const int *x, int *out) { out[x[threadIdx.x]]++; }"""
(kernel,) = simulator.load(compiled.cuda(GLOBAL)).values()  # exercise 4
values = np.random.default_rng(1).integers(0, 8, 256).astype(np.int32)
assert {hazard.kind for hazard in kernel.launch(1, 256, values, np.zeros(8, np.int32)).hazards} == {"race"}
assert not explore_launch(kernel, 1, 256, values, np.zeros(8, np.int32), count=8).ok

# %% [markdown]
# ## Summary
#
# A hazard names the line; the mend is usually one line as well. Races, missing waits and lock-step assumptions give right results in the order you happen to see: let a checker watch every access, and run other legal orders. The same from
# the command line: `loadsparse profile mine.cu:kernel --grid 1 --block 64 --arg 'f32[64]' --explore 8 --html report.html`. Next: [beat it](10_beat_it.ipynb).
