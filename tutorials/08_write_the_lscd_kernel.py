# %% [markdown]
# # Write the LSCD kernel
#
# *The weights arrive as a list of words; Tensor Cores want dense tiles. How does a kernel make one out of the other, and what does it do in the meantime?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, flow, show

show(
    flow(
        ["items\nin DRAM", "registers", "zeroed tile in\nshared memory", "fragments", "accumulators", "C"],
        ["load", "scatter", "ldmatrix", "mma", "round"],
    ),
    "Boxes joined by arrows: items in DRAM are loaded into registers, scattered into a zeroed tile in shared memory, read as fragments by ldmatrix, multiplied into accumulators by mma, and rounded to C.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [tiled-CSL by hand](05_tiled_csl_by_hand.ipynb), [one mma by hand](06_one_mma_by_hand.ipynb), [a warp's view](07_a_warps_view.ipynb) |
# | Time | 40 minutes |
# | A common misconception | "A sparse kernel must skip the zeros to be fast." This one multiplies every zero. It is fast because it does not *load* them: a skinny product waits for memory, not for multiplications. |
#
# ## You will learn
#
# 1. to write a [kernel](glossary.md#kernel) that loads sparse and computes dense, in three steps that are each right in every bit;
# 2. which [barrier](glossary.md#barrier) guards what, and what the report says when one is missing;
# 3. how loads of the next tile get under the products of this one, and how to see that they do.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Walk along K in tiles of 64 columns. Rebuild a dense tile from its items, multiply it, forget it.

# %%
from loadsparse.reference import formats, spmm

rng = np.random.default_rng(seed=8)
M, N, K = 128, 8, 256
A = np.where(rng.random((M, K)) < 0.2, rng.standard_normal((M, K)), 0).astype(np.float16)
B = rng.standard_normal((K, N)).astype(np.float16)
packed = formats.TiledCSL.encode(A)  # 128 rows: one row of tiles
C = np.zeros((M, N))
for step in range(K // 64):
    words = packed.items[4 * packed.tile_offsets[step] : 4 * packed.tile_offsets[step + 1]]
    tile = np.zeros(128 * 64, np.uint16)
    tile[words >> 16] = words & 0xFFFF  # load as sparse: a scatter into zeros
    row, column = np.divmod(np.arange(128 * 64), 64)
    dense = tile.view(np.float16)[row * 64 + (column ^ (row % 8 << 3))].reshape(128, 64)  # undo the swizzle
    C += dense.astype(float) @ B[64 * step : 64 * step + 64].astype(float)  # compute as dense
assert np.allclose(C, A.astype(float) @ B.astype(float), rtol=1e-12)
print(f"A needs {packed.nbytes:,} bytes instead of {A.nbytes:,}")

# %% [markdown]
# ## Build it
#
# ### Step 1: one tile
#
# One [block](glossary.md#block-thread-block) of four [warps](glossary.md#warp) makes 128 rows of C. Zero the tile, barrier, scatter the items, barrier, multiply: each warp owns 32 rows, two [fragments](glossary.md#fragment) high. Arguments are addresses, `uint64`, as in C; the helpers emit one instruction each, and `load_rows` and `load_panels` a few.

# %%
from numba import cuda, uint32, uint64

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.intrinsics import (
    barrier,
    load_global,
    load_global_x4,
    mma_m16n8k16,
    shared_base,
    store_global_f32,
    store_shared_half,
    store_shared_x4,
    zero_words,
    zeros,
)
from loadsparse.gpu.kernels.blocks import load_panels, load_rows

mma = mma_m16n8k16["f16"]
A_BYTES, B_BYTES = 128 * 64 * 2, 64 * 8 * 2


@cuda.jit(device=True, inline="always")
def clear(tile, thread):
    """16 KB of zeros: 8 stores of 16 bytes by each of 128 threads."""
    for i in range(8):
        store_shared_x4(uint32(tile + uint32(thread + uint32(128 * i)) * uint32(16)), 0, zero_words(4))


@cuda.jit(device=True, inline="always")
def scatter(tile, words):
    """Each word is a place (upper half) and a value (lower half, the one that a 16-bit store takes)."""
    w0, w1, w2, w3 = words
    store_shared_half(uint32(tile + uint32(w0 >> uint32(16)) * uint32(2)), 0, w0)
    store_shared_half(uint32(tile + uint32(w1 >> uint32(16)) * uint32(2)), 0, w1)
    store_shared_half(uint32(tile + uint32(w2 >> uint32(16)) * uint32(2)), 0, w2)
    store_shared_half(uint32(tile + uint32(w3 >> uint32(16)) * uint32(2)), 0, w3)


@cuda.jit(device=True, inline="always")
def multiply(acc, tile, b_tile, thread):
    """Four k16 steps: rows 32 warp .. 32 warp + 31 of the tile times the panel of B."""
    lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
    row = uint32(uint32(warp * uint32(32)) + uint32(lane & uint32(15)))
    for kk in range(4):
        piece = uint32(uint32(uint32(2 * kk) + uint32(lane >> uint32(4))) ^ uint32(row & uint32(7)))
        at = uint32(tile + row * uint32(128) + piece * uint32(16))
        left = load_rows(at, 0, 2, 2048)  # rows +0 and +16: two A fragments
        right = load_panels(uint32(b_tile + uint32(lane & uint32(15)) * uint32(16)), kk * 256, 1, 1024)
        acc = mma(acc, left, right)
    return acc


@cuda.jit(device=True, inline="always")
def store(c, acc, thread):
    """Eight float32 sums of each lane to C[128, 8]."""
    lane, warp = uint32(thread & uint32(31)), uint32(thread >> uint32(5))
    row = uint32(uint32(warp * uint32(32)) + uint32(lane >> uint32(2)))
    at = c + uint64(uint32(row * uint32(8)) + uint32(uint32(lane & uint32(3)) * uint32(2))) * uint64(4)
    for i in range(4):
        store_global_f32(at + uint64(i * 256), 0, acc[2 * i])
        store_global_f32(at + uint64(i * 256), 4, acc[2 * i + 1])


def one_tile(offsets, items, b, c, steps):
    thread, tile = uint32(cuda.threadIdx.x), shared_base()
    b_tile = uint32(tile + uint32(A_BYTES))
    clear(tile, thread)
    if thread < uint32(64):
        store_shared_x4(uint32(b_tile + thread * uint32(16)), 0, load_global_x4(b + uint64(thread) * uint64(16), 0))
    barrier()  # zeros are in place
    vector, stop = uint32(load_global(offsets, 0) + thread), load_global(offsets, 4)
    while vector < stop:
        scatter(tile, load_global_x4(items + uint64(vector) * uint64(16), 0))
        vector = uint32(vector + uint32(128))
    barrier()  # the tile is complete
    store(c, multiply(zeros(8), tile, b_tile, thread), thread)


def run(kernel, steps, shared=A_BYTES + B_BYTES, **options):
    """Compile, execute on `steps` tiles of K, and return C and the report."""
    ptx = compiler.numba(kernel, "void(uint64, uint64, uint64, uint64, uint32)", "sm_80", launch_bounds=128)
    c = np.zeros((M, N), np.float32)
    entry = simulator.load(ptx, arch="sm_80")[kernel.__name__]
    report = entry.launch(
        1, 128, packed.tile_offsets, packed.items, B, simulator.empty(c), np.uint32(steps),
        shared_bytes=shared, engine="interpreter", **options,
    )  # fmt: skip
    return c, report


def oracle(steps):
    """The first `steps` tiles of K, in every bit."""
    return spmm.lscd(np.ascontiguousarray(A[:, : 64 * steps]), B[: 64 * steps], arch="sm_80", out_format="f32")


c, first = run(one_tile, 1)
assert first.ok, first.hazards
assert np.array_equal(c, oracle(1))
print("one tile: every bit of C is right, no hazard")

# %% [markdown]
# ### Step 2: walk along K
#
# The accumulators stay in [registers](glossary.md#register); tile and panel are made anew in each step. That needs a third barrier: nobody may clear the tile while a slow warp still multiplies the old one. `guarded` is a constant of the compilation: leave the barrier out to see what it guards.

# %%


def walking(guarded):
    def walk(offsets, items, b, c, steps):
        thread, tile = uint32(cuda.threadIdx.x), shared_base()
        b_tile = uint32(tile + uint32(A_BYTES))
        acc = zeros(8)
        for step in range(steps):
            clear(tile, thread)
            if thread < uint32(64):
                source = b + uint64(uint32(uint32(step) * uint32(64)) + thread) * uint64(16)
                store_shared_x4(uint32(b_tile + thread * uint32(16)), 0, load_global_x4(source, 0))
            barrier()  # zeros are in place
            at = offsets + uint64(step) * uint64(4)
            vector, stop = uint32(load_global(at, 0) + thread), load_global(at, 4)
            while vector < stop:
                scatter(tile, load_global_x4(items + uint64(vector) * uint64(16), 0))
                vector = uint32(vector + uint32(128))
            barrier()  # the tile is complete
            acc = multiply(acc, tile, b_tile, thread)
            if guarded:
                barrier()  # nobody reads it any more
        store(c, acc, thread)

    return walk


c, second = run(walking(True), K // 64)
assert second.ok, second.hazards
assert np.array_equal(c, oracle(K // 64))
c, broken = run(walking(False), K // 64)
print(f"with three barriers: right. With two: {len(broken.hazards)} lines in the report, such as")
print(broken.hazards[0].kind, "-", broken.hazards[0].message[:100])
assert {hazard.kind for hazard in broken.hazards} == {"race"}

# %% [markdown]
# ### Step 3: under the products
#
# Step 2 loads, waits, multiplies, waits. But the items of tile t + 1 could be on their way *while* tile t is multiplied, if there were somewhere to put them. So: load them into registers (they are needed there anyway), keep two tiles in [shared memory](glossary.md#shared-memory), and let B come by [cp.async](glossary.md#cpasync). One order of events per step:
#
# 1. ask for the items of the next tile, start the copy of its panel of B, clear its buffer;
# 2. multiply this tile;
# 3. barrier; scatter the items, wait for the copy; barrier.
#
# Two barriers, because the buffer that is cleared is not the one that is read.

# %%
from loadsparse.gpu.intrinsics import cp_async_16, cp_async_commit, cp_async_wait
from loadsparse.gpu.kernels.blocks import load_while, scatter_items

STAGED = 4  # vectors of four items that a thread holds, 16 words; 2,048 items of a tile in all


def overlapped(offsets, items, b, c, steps):
    thread, base = uint32(cuda.threadIdx.x), shared_base()
    acc, staged = zeros(8), zero_words(16)
    start = load_global(offsets, 0)
    stop, left = start, uint32(0)
    for step in range(steps + 1):
        other = uint32(uint32(step) & uint32(1))
        tile = uint32(base + other * uint32(A_BYTES))
        b_tile = uint32(base + uint32(2 * A_BYTES) + other * uint32(B_BYTES))
        if step < steps:
            stop = load_global(offsets + uint64(step + 1) * uint64(4), 0)
            left = uint32(uint32(stop - start) - thread)
            staged = load_while(items + uint64(uint32(start + thread)) * uint64(16), STAGED, 2048, left)
            if thread < uint32(64):
                source = b + uint64(uint32(uint32(step) * uint32(64)) + thread) * uint64(16)
                cp_async_16(uint32(b_tile + thread * uint32(16)), 0, source, 0, uint32(16))
            cp_async_commit()
            clear(tile, thread)
        if step > 0:
            old, old_b = uint32(base + uint32(A_BYTES) - other * uint32(A_BYTES)), uint32(b_tile ^ uint32(B_BYTES))
            acc = multiply(acc, old, old_b, thread)
        if step < steps:
            barrier()  # zeros are in place, and nobody reads the old tile any more
            scatter_items(tile, staged, 128, left)
            vector = uint32(start + uint32(STAGED * 128) + thread)
            while vector < stop:  # a tile with more items than the registers hold
                scatter(tile, load_global_x4(items + uint64(vector) * uint64(16), 0))
                vector = uint32(vector + uint32(128))
            start = stop
            cp_async_wait(0)
            barrier()  # the tile is complete
    store(c, acc, thread)


c, third = run(overlapped, K // 64, shared=2 * (A_BYTES + B_BYTES))
assert third.ok, third.hazards
assert np.array_equal(c, oracle(K // 64))
print("overlapped: every bit of C is right, no hazard,", third.metrics["barriers"], "barriers by warps instead of",
      second.metrics["barriers"])  # fmt: skip

# %% [markdown]
# ## Check it against the oracle
#
# Each step was compared with `spmm.lscd`, the [oracle](glossary.md#oracle), in every bit. The library's kernel is step 3 with every M, N and K, [split-K](glossary.md#split-k), and the copy of B spread over all [threads](glossary.md#thread). And the overlap? An observer writes down what the first warp issues; the loads of a tile must come before the products of the tile before it.

# %%
from loadsparse.gpu import kernels


def story(kernel, **options):
    """Kinds of instructions of warp 0 in order, repetitions dropped."""
    order, marks = [], {"ld.global.nc.v4": "load", "ld.global.nc.u32": None, "mma": "mma", "bar": "barrier"}

    def observe(event):
        for opcode, mark in marks.items():
            if mark and event.warp == 0 and event.instruction.opcode.startswith(opcode) and order[-1:] != [mark]:
                order.append(mark)

    run(kernel, K // 64, observer=observe, **options)
    return order


plain, piped = story(walking(True)), story(overlapped, shared=2 * (A_BYTES + B_BYTES))
print("step 2:", *plain[:9], "...")
print("step 3:", *piped[:9], "...")
assert "load barrier mma" in " ".join(plain)
assert "load mma barrier" in " ".join(piped)

lscd = kernels.get("lscd")
ragged = np.ascontiguousarray(A[:100, :200])
launch = lscd.plan(lscd.encode(ragged), np.ascontiguousarray(B[:200, :5]), split_k=2)
result, report = launch.run(engine="interpreter")
assert report.ok
assert np.array_equal(result, spmm.lscd(ragged, B[:200, :5], arch="sm_80", splits=launch.splits))
print("the library's kernel on 100 x 5 x 200, K in two parts: every bit is right")

# %% [markdown]
# ## Numbers
#
# *Counted* by the simulator, for this product: warp instructions, turns of shared memory, barriers. *Not* counted is time: whether the overlap pays is for a GPU, or for `loadsparse.gpu.perfmodel.predict`, to say. Its cost model charges every barrier with the part of DRAM latency that nothing hides:
#
# $$ \text{exposed} = \text{steps} \cdot \text{barriers} \cdot \sigma \cdot \frac{t_\text{DRAM}}{\text{steps ahead}} $$
#
# as `perfmodel.kernel.tiled` computes it.

# %%
SHARED = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_{}.sum"
table = {}
for name, report in (("step 2", second), ("step 3", third)):
    turns = (
        sum(report.metrics[SHARED.format(way)] for way in ("ld", "st")) + report.metrics["shared_wavefronts_cp_async"]
    )
    table[name] = report.instructions, turns, report.metrics["barriers"]
    print(f"{name}: {report.instructions:,} warp instructions, {turns:,} turns, {report.metrics['barriers']} barriers")
zeroing = 8 * 4 * 4 * (K // 64)  # stores of 16 bytes take four turns each
print(f"of the turns {zeroing} only write zeros: {zeroing / table['step 3'][1]:.0%}")
figure, axes = canvas(columns=3, width=9, height=2.4)
for axis, (index, what) in zip(axes, enumerate(("warp instructions", "turns", "barriers")), strict=True):
    axis.bar(list(table), [row[index] for row in table.values()], color=["#56b4e9", "#0072b2"])
    axis.set(title=what)
show(
    figure,
    f"Bars of step 2 and step 3: instructions {table['step 2'][0]} and {table['step 3'][0]}, turns {table['step 2'][1]} and {table['step 3'][1]}, barriers {table['step 2'][2]} and {table['step 3'][2]}.",
)
assert table["step 3"][2] < table["step 2"][2]
assert table["step 3"][0] > table["step 2"][0]
assert table["step 3"][1] == table["step 2"][1]

# %% [markdown]
# Step 3 issues half again as many instructions as step 2, for the same turns: guards of the staged loads, addresses of two buffers. It buys a barrier per step and memory that works while the [Tensor Cores](glossary.md#tensor-core) do. On a longer K the prologue weighs less; the library's kernel keeps its loop invariants in registers and is leaner.

# %% [markdown]
# ## Exercises
#
# 1. How many turns does clearing one tile take, and how many does reading it as fragments take? What would a format save that never needs a cleared tile?
# 2. A tile may hold up to 8,192 items, the registers 2,048. At which [sparsity](glossary.md#sparsity) does the loop after `scatter_items` begin to run, on average?
# 3. Remove `cp_async_wait(0)` from step 3. Which [hazards](glossary.md#hazard) are reported, and what does each one say?
#
# <details><summary>Answers</summary>
#
# 1. Clearing: 16,384 / 128 = 128 turns; reading: 8 · 4 fragments of four 8 × 8 matrices, 128 as well. A format that is decoded into registers saves both, 256 of the turns of a step: that is the chapter after next.
# 2. At 75%: 0.25 · 8,192 = 2,048 items.
# 3. Three kinds: "pending", a thread reads what its own copy has not delivered yet; "[race](glossary.md#race)", it reads what *another* thread's copy is delivering; "uninitialized", on the way through the first tile, where nothing was there before.
#
# </details>

# %%
from loadsparse.gpu.simulator import Report


def unwaited() -> Report:
    source = compiler.numba(overlapped, "void(uint64, uint64, uint64, uint64, uint32)", "sm_80", launch_bounds=128)
    broken = simulator.load(source.replace("cp.async.wait_group 0;", ""), arch="sm_80")["overlapped"]
    return broken.launch(
        1, 128, packed.tile_offsets, packed.items, B, np.zeros((M, N), np.float32), np.uint32(K // 64),
        shared_bytes=2 * (A_BYTES + B_BYTES), engine="interpreter",
    )  # fmt: skip


kinds = {hazard.kind for hazard in unwaited().hazards}
print("without the wait:", *sorted(kinds))
assert kinds == {"pending", "race", "uninitialized"}
assert 128 * 64 * 2 // 128 == 128
assert 4 * STAGED * 128 == 0.25 * 128 * 64

# %% [markdown]
# ## Summary
#
# Zero, scatter, multiply; two buffers so that the next tile's items travel under this tile's products; two barriers a step, each for a reason that the report names when it is missing. What remains is a fixed price per tile: zeros are written, and the dense tile is read back. Next, how such a kernel goes wrong: [break it and see it](09_break_it_and_see_it.ipynb); then [beat it](10_beat_it.ipynb).
