# %% [markdown]
# # A tiled matmul and its race
#
# *In a product of two 64 × 64 matrices every number is needed 64 times. Must it be fetched 64 times, too?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, cells, show

text, shade = np.full((8, 8), ""), np.zeros((8, 8))
text[2:4], text[:, 4:6] = "A", "B"
shade[2:4], shade[:, 4:6] = 0.4, 0.4
text[2:4, 4:6], shade[2:4, 4:6] = "C", 1
figure, axis = canvas(width=3.4, height=3.2)
cells(axis, text, shade, [f"row {i}" for i in range(8)], range(8))
show(
    figure,
    "A tile of C, rows 2 and 3, columns 4 and 5, needs two whole rows of A and two whole columns of B, nothing else.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [threads, blocks, barriers](03_threads_blocks_barriers.ipynb) |
# | Time | 30 minutes |
# | A common misconception | "One barrier in the loop is enough: after it everybody has the new tile." It protects the *reading* of the new tile. Nothing yet keeps a fast thread from overwriting a tile that slow ones still read. |
#
# ## You will learn
#
# 1. to cut a product into tiles, so that a [block](glossary.md#block-thread-block) fetches each number once and uses it many times;
# 2. why the loop needs *two* [barriers](glossary.md#barrier), and what the [race](glossary.md#race) of the forgotten one looks like;
# 3. what a [bank conflict](glossary.md#bank-conflict) is, and how one column of padding turns 32 turns into one.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# A tile of C needs a band of rows of A and a band of columns of B. Walk along the bands in steps of one tile: fetch a tile of each, multiply, add.

# %%
TILE = 16
rng = np.random.default_rng(seed=4)
M, K, N = 64, 64, 64
A = rng.integers(-8, 8, (M, K)).astype(np.float32)  # small integers: sums are exact in any order
B = rng.integers(-8, 8, (K, N)).astype(np.float32)
C, fetched = np.zeros((M, N), np.float32), 0
for i in range(0, M, TILE):
    for j in range(0, N, TILE):  # one block of threads per tile of C
        for k in range(0, K, TILE):
            a, b = A[i : i + TILE, k : k + TILE], B[k : k + TILE, j : j + TILE]
            fetched += a.size + b.size
            C[i : i + TILE, j : j + TILE] += a @ b
assert np.array_equal(C, A @ B)
print(f"fetched {fetched:,} numbers instead of {2 * M * N * K:,}: {2 * M * N * K // fetched} times fewer")

# %% [markdown]
# ## Build it
#
# ### One thread per element, no tiles
#
# Blocks may be two-dimensional: here 16 × 16 [threads](glossary.md#thread). The *row* is on `y` and the *column* on `x`, because threads that are neighbours in `x` sit in one [warp](glossary.md#warp) and should touch neighbouring memory.

# %%
from numba import cuda, float32

from loadsparse.gpu import simulator


def plain(a, b, c):
    column, row = cuda.grid(2)
    total = float32(0)
    for k in range(a.shape[1]):
        total += a[row, k] * b[k, column]
    c[row, column] = total


GRID, BLOCK = (N // TILE, M // TILE), (TILE, TILE)
c = np.zeros((M, N), np.float32)
untiled = simulator.run(plain)[GRID, BLOCK](A, B, c)
assert untiled.ok
assert np.array_equal(c, A @ B)

# %% [markdown]
# ### With tiles in shared memory
#
# Each thread fetches one number of A's tile and one of B's; then everybody multiplies from [shared memory](glossary.md#shared-memory). Count the barriers.

# %%


def tiled(a, b, c):
    sa = cuda.shared.array((TILE, TILE), float32)
    sb = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.grid(2)
    total = float32(0)
    for k in range(0, a.shape[1], TILE):
        sa[y, x] = a[row, k + x]
        sb[y, x] = b[k + y, column]
        cuda.syncthreads()  # the tiles are complete
        for i in range(TILE):
            total += sa[y, i] * sb[i, x]
        cuda.syncthreads()  # nobody reads them any more
    c[row, column] = total


c[:] = 0
good = simulator.run(tiled)[GRID, BLOCK](A, B, c)
assert good.ok
assert np.array_equal(c, A @ B)
print(f"{good.metrics['barriers']} barriers by warps: {M * N // 32} warps x {K // TILE} steps x 2")

# %% [markdown]
# ### The race
#
# Leave the second barrier out. A warp that is early goes round the loop and overwrites `sa` and `sb` while a late warp still multiplies the old ones.

# %%


def racing(a, b, c):
    sa = cuda.shared.array((TILE, TILE), float32)
    sb = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.grid(2)
    total = float32(0)
    for k in range(0, a.shape[1], TILE):
        sa[y, x] = a[row, k + x]
        sb[y, x] = b[k + y, column]
        cuda.syncthreads()
        for i in range(TILE):
            total += sa[y, i] * sb[i, x]
    c[row, column] = total


c[:] = 0
bad = simulator.run(racing)[GRID, BLOCK](A, B, c)
first = {hazard.source_line: hazard for hazard in reversed(bad.hazards)}  # one hazard for each source line
for line, hazard in sorted(first.items()):
    print(
        f"{hazard.kind}, line {line} of the cell, thread {hazard.thread}, {hazard.count:,} times: {hazard.message.partition(', not')[0]}"
    )
print(f"wrong elements in this order of events: {np.count_nonzero(c != A @ B)} of {c.size}")
assert {hazard.kind for hazard in bad.hazards} == {"race"}
assert set(first) == {8, 9, 12}

# %% [markdown]
# *Write after read*: the store of the next round, in line 8 or 9, is not ordered after somebody's read in the last one; *read after write* is the same conflict seen from the late reader, in line 12. How wrong the result is depends on who is late. Let other legal orders run, one block of them:

# %%
left, right = np.ascontiguousarray(A[:TILE]), np.ascontiguousarray(B[:, :TILE])  # one block is enough
part, wrong = np.zeros((TILE, TILE), np.float32), []
for seed in range(4):
    other = simulator.run(racing, schedule="adversarial", seed=seed)[1, BLOCK](left, right, part)
    wrong.append(int(np.count_nonzero(part != left @ right)))
    assert not other.ok
print(f"wrong elements of {part.size} under four other orders:", wrong)
assert any(wrong)

# %% [markdown]
# A test that compares results sees a different number of errors each time, and on a quiet GPU perhaps none for a week. The report names the same three lines each time.

# %% [markdown]
# ## Check it against the oracle
#
# With small integers every order of additions gives the same bits, so `A @ B` is the [oracle](glossary.md#oracle). With real numbers the [kernel](glossary.md#kernel) adds in ascending k, in float32, and the compiler fuses each multiplication with its addition (`fma`: one rounding instead of two). An oracle that does the same agrees in every
# bit; NumPy's own product does not have to.

# %% tags=["varies"]
x, y = rng.standard_normal((M, K)).astype(np.float32), rng.standard_normal((K, N)).astype(np.float32)
simulator.run(tiled)[GRID, BLOCK](x, y, c)
fused, rounded = np.zeros((M, N), np.float32), np.zeros((M, N), np.float32)
for k in range(K):
    product = x[:, k, None].astype(np.float64) * y[k]  # exact: 24 + 24 bits fit in 53
    fused = (fused + product).astype(np.float32)  # one rounding, up to float64's own last bit
    rounded = rounded + (x[:, k, None] * y[k])  # two roundings
print(
    f"equal bits: fused {np.mean(c == fused):.2%}, rounded twice {np.mean(c == rounded):.2%}, NumPy {np.mean(c == x @ y):.2%}"
)
assert np.mean(c == fused) > 0.999
assert np.mean(c == rounded) < 0.9

# %% [markdown]
# ## Numbers
#
# What did tiles buy? *Counted*: [sectors](glossary.md#sector) of 32 bytes that warps asked [global memory](glossary.md#global-memory) for, and [wavefronts](glossary.md#wavefront), the turns that shared memory needs.

# %%
SECTORS = "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum"
TURNS = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum"
for name, found in (("plain", untiled), ("tiled", good)):
    print(
        f"{name}: {found.metrics[SECTORS]:6,} sectors from global memory, {found.metrics[TURNS]:6,} wavefronts from shared memory"
    )
assert untiled.metrics[SECTORS] == M * N * K // 32 * 4  # exercise 1
assert good.metrics[SECTORS] == fetched * 4 // 32
print(f"global memory: {untiled.metrics[SECTORS] / good.metrics[SECTORS]:.0f} times fewer sectors")

# %% [markdown]
# ### Banks
#
# Shared memory has 32 [banks](glossary.md#bank), one 4-byte word each per turn: word w lies in bank w mod 32. If two [lanes](glossary.md#lane) want *different* words of one bank, they take turns. Read a 32 × 32 tile along its columns, and all 32 lanes want the same bank. One column of padding moves each row by one bank.

# %%


def transpose(a, out, width):
    s = cuda.shared.array(1056, float32)  # 32 x 33
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    s[y * width + x] = a[y, x]
    cuda.syncthreads()
    out[y, x] = s[x * width + y]


tile, out = rng.standard_normal((32, 32)).astype(np.float32), np.zeros((32, 32), np.float32)
turns = {}
for width in (32, 33):
    found = simulator.run(transpose)[1, (32, 32)](tile, out, width)
    assert found.ok
    assert np.array_equal(out, tile.T)
    turns[width] = found.metrics[TURNS] // 32  # the block has 32 warps
print("turns per warp to read a column:", turns)
figure, axes = canvas(columns=2, width=8, height=3.0)
for axis, width in zip(axes, (32, 33), strict=True):
    banks = np.arange(8)[:, None] * width % 32 + np.arange(6)
    cells(
        axis,
        banks % 32,
        np.arange(6)[None, :].repeat(8, 0) == 0,
        [f"row {i}" for i in range(8)],
        [f"col {j}" for j in range(6)],
    )
    axis.set_xlabel(f"bank of each word, rows of {width} words")
show(
    figure,
    "Banks of a tile: with rows of 32 words column 0 lies in bank 0 throughout; with 33 words its rows lie in banks 0, 1, 2, and so on.",
)
assert turns == {32: 32, 33: 1}

# %% [markdown]
# The rule that counts them is `loadsparse.gpu.simulator.interpreter.counters.wavefronts`: the most distinct words in any one bank.
#
# ## Exercises
#
# 1. Why does a warp of `plain` ask for 4 sectors per k? (A block has 16 × 16 threads: which rows and columns do 32 lanes cover?)
# 2. With tiles of 32 × 32, how many numbers does the product of two 64 × 64 matrices fetch? And of two 1024 × 1024 ones?
# 3. Rows of 34 or of 40 words instead of 33 in `transpose`: how many turns does a column take? Write a formula for any width.
#
# <details><summary>Answers</summary>
#
# 1. They cover 2 rows × 16 columns. `a[row, k]` is one word in each of two rows: 2 sectors. `b[k, column]` is 16 consecutive floats, 64 bytes, the same for both rows: 2 sectors.
# 2. 2 · 64³ / 32 = 16,384; 2 · 1024³ / 32 = 67,108,864. Doubling the tile halves the traffic, until shared memory is full.
# 3. 2 and 8 turns. A column of 32 words at distance w visits 32 / gcd(w, 32) banks, so it takes gcd(w, 32) turns; any odd w is free of conflicts.
#
# </details>

# %%
assert (2 * 64**3 // 32, 2 * 1024**3 // 32) == (16_384, 67_108_864)
for width in (34, 40):
    banks = np.arange(32) * width % 32
    assert np.bincount(banks).max() == np.gcd(width, 32)
assert (np.gcd(34, 32), np.gcd(40, 32)) == (2, 8)

# %% [markdown]
# ## Summary
#
# A tile is fetched once and used by a whole block: traffic falls by the width of the tile. The loop needs two barriers, one before the tile is read and one before it is overwritten; the race of a missing one is named by its lines, whatever the result was. And 32 banks want 32 different words at most once each: pad, or, as the
# next chapter does, [swizzle](glossary.md#swizzle). Next: [tiled-CSL by hand](05_tiled_csl_by_hand.ipynb).
