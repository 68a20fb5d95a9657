# %% [markdown]
# # A warp's view
#
# *A Tensor Core wants its matrices dealt out to 32 lanes. The tile lies in shared memory, row by row. How does a warp pick its share up, and in how many turns?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, cells, show

from loadsparse.reference.tensorcore import fragments

lane_of = np.arange(32).reshape(8, 4).repeat(2, axis=1)
figure, axes = canvas(columns=2, width=9, height=3.0)
address = np.array([[f"lane {i}" if j == 0 else "" for j in range(8)] for i in range(8)])
cells(axes[0], address, np.eye(8)[0] + np.zeros((8, 8)), [f"row {i}" for i in range(8)], range(8), size=7)
axes[0].set_xlabel("who says where the row lies")
cells(axes[1], lane_of, lane_of % 2, [f"row {i}" for i in range(8)], range(8))
axes[1].set_xlabel("who receives the element")
show(
    figure,
    "Two tables of 8 by 8. Left: lanes 0 to 7 each give the address of one row. Right: lane 4 g + t receives the elements 2 t and 2 t + 1 of row g.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [tiled-CSL by hand](05_tiled_csl_by_hand.ipynb), [one mma by hand](06_one_mma_by_hand.ipynb) |
# | Time | 35 minutes |
# | A common misconception | "`ldmatrix` is a faster way to load what I would load anyway." A lane gives the address of one row and receives parts of *other* rows: it is a load and an exchange between lanes in one instruction. |
#
# ## You will learn
#
# 1. to predict what every [lane](glossary.md#lane) holds after `ldmatrix`, from the eight addresses alone;
# 2. to draw which [banks](glossary.md#bank) an access meets, and to read its number of turns off the drawing;
# 3. why rows of 128 bytes need a [swizzle](glossary.md#swizzle), and why a tile cut into panels of 8 columns needs none.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# The picture above is the whole instruction: `ldmatrix` reads eight rows of 16 bytes, wherever they lie, and deals them out the way an `mma` wants its [fragment](glossary.md#fragment). Its `.trans` form deals out the transposed matrix.

# %%


def ldmatrix(memory, addresses, trans=False):
    """memory: halfwords; addresses: 8 byte addresses, one for each row -> the two halves that each lane receives."""
    rows = np.array([memory[at // 2 : at // 2 + 8] for at in addresses])
    if trans:
        rows = rows.T
    return rows.reshape(32, 2)  # lane 4 g + t: row g, elements 2 t and 2 t + 1


memory = np.arange(64)
held = ldmatrix(memory, 16 * np.arange(8))
print("lane 13 = 4 * 3 + 1 holds", held[13], "and, transposed,", ldmatrix(memory, 16 * np.arange(8), True)[13])
assert held[13].tolist() == [3 * 8 + 2, 3 * 8 + 3]

# %% [markdown]
# ## Build it
#
# ### The 16 × 16 matrix A in four ways
#
# An A fragment is four such 8 × 8 matrices: upper left, lower left, upper right, lower right, one [register](glossary.md#register) each. Put a tile of 16 rows × 64 columns into [shared memory](glossary.md#shared-memory), 128 bytes a row, and let one [warp](glossary.md#warp) fetch the fragment of columns 16 to 31: by halves, by words, by `ldmatrix`, and by `ldmatrix` from a swizzled tile.

# %%
from numba import cuda, uint32

from loadsparse.gpu import simulator
from loadsparse.gpu.intrinsics import (
    ldmatrix_x4,
    load_shared,
    load_shared_half,
    shared_base,
    store_shared_half,
)

SHARED = 16 * 128  # bytes of the tile


def fetch(way, swizzled):
    """A kernel that stores the tile, fetches the fragment of columns 16..31, and writes each lane's four registers."""

    def kernel(tile, out):
        lane, base = uint32(cuda.threadIdx.x), shared_base()
        for i in range(16 * 64 // 32):
            at = uint32(i * 32 + lane)
            row, column = uint32(at >> uint32(6)), uint32(at & uint32(63))
            if swizzled:
                column = uint32(column ^ uint32((row & uint32(7)) << uint32(3)))
            store_shared_half(uint32(base + row * uint32(128) + column * uint32(2)), 0, uint32(tile[row, at & 63]))
        cuda.syncwarp()
        g, t = uint32(lane >> uint32(2)), uint32(lane & uint32(3))
        if way == 2:  # lanes 0..15 give the left halves of rows 0..15, lanes 16..31 the right ones
            row, chunk = uint32(lane & uint32(15)), uint32(uint32(2) + uint32(lane >> uint32(4)))
            if swizzled:
                chunk = uint32(chunk ^ uint32(row & uint32(7)))
            r0, r1, r2, r3 = ldmatrix_x4(uint32(base + row * uint32(128) + chunk * uint32(16)), 0)
        else:
            at = uint32(base + g * uint32(128) + uint32(32) + t * uint32(4))
            if way == 1:
                r0, r1 = load_shared(at, 0), load_shared(at, 1024)
                r2, r3 = load_shared(at, 16), load_shared(at, 1040)
            else:
                r0 = uint32(load_shared_half(at, 0) | uint32(load_shared_half(at, 2) << uint32(16)))
                r1 = uint32(load_shared_half(at, 1024) | uint32(load_shared_half(at, 1026) << uint32(16)))
                r2 = uint32(load_shared_half(at, 16) | uint32(load_shared_half(at, 18) << uint32(16)))
                r3 = uint32(load_shared_half(at, 1040) | uint32(load_shared_half(at, 1042) << uint32(16)))
        out[lane, 0], out[lane, 1], out[lane, 2], out[lane, 3] = r0, r1, r2, r3

    return kernel


rng = np.random.default_rng(seed=7)
A = rng.standard_normal((16, 64)).astype(np.float16)
expected = fragments.M16N8K16.a.to_registers(np.ascontiguousarray(A[:, 16:32]).view(np.uint16))
TURNS = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum"
WAYS = {"halves": (0, False), "words": (1, False), "ldmatrix": (2, False), "ldmatrix, swizzled": (2, True)}
turns, loads = {}, {}
for name, (way, swizzled) in WAYS.items():
    out = np.zeros((32, 4), np.uint32)
    report = simulator.run(fetch(way, swizzled), engine="interpreter")[1, 32, 0, SHARED](A.view(np.uint16), out)
    assert report.ok
    assert np.array_equal(out, expected), name
    turns[name] = report.metrics[TURNS]
    loads[name] = sum(
        row["executions"]
        for row in report.lines
        if row["ptx"].startswith(("ld.shared", "ldmatrix")) and row["wavefronts"]
    )
    print(f"{name:20} {loads[name]} load instructions, {turns[name]:2} turns of shared memory")

# %% [markdown]
# All four ways deliver the same registers. One `ldmatrix.x4` replaces four word loads, but without a swizzle it takes just as many turns, 8 for each 8 × 8 matrix. Why?
#
# ### Draw the banks
#
# A turn, a [wavefront](glossary.md#wavefront), serves each of the 32 banks once. One 8 × 8 matrix is 128 bytes: exactly one turn if its eight rows meet 32 different banks. Mark the words that one of them reads, by bank:

# %%


def banks_of(swizzled, column=16):
    """Banks of the 4 words of each row's 16-byte piece that starts at `column`: [8 rows, 4 words]."""
    row, word = np.arange(8)[:, None], np.arange(4)[None, :]
    chunk = column // 8 ^ (row % 8 if swizzled else 0)
    return (row * 32 + chunk * 4 + word) % 32


figure, axes = canvas(columns=2, width=9.5, height=2.6)
for axis, swizzled, name in ((axes[0], False, "plain"), (axes[1], True, "swizzled")):
    marks = np.zeros((8, 32))
    np.put_along_axis(marks, banks_of(swizzled), 1, axis=1)
    axis.imshow(marks, cmap="Greys", vmin=0, vmax=1.4, aspect="auto")
    axis.set(xlabel="bank", ylabel="row", title=f"{name}: {int(marks.sum(axis=0).max())} turns")
    axis.grid(visible=False)
show(
    figure,
    "Banks met by eight rows of one 8 by 8 matrix. Plain: all rows meet the same four banks, 8 turns. Swizzled: each row meets four others, 1 turn.",
)
assert np.bincount(banks_of(False).ravel(), minlength=32).max() == 8
assert np.bincount(banks_of(True).ravel(), minlength=32).max() == 1

# %% [markdown]
# The number of turns is the height of the fullest column: $\text{turns} = \max_b |\{\text{words of bank } b\}|$, and the simulator's rule is `loadsparse.gpu.simulator.interpreter.counters.wavefronts`. Rows of 128 bytes end where they began, at bank 0, so plain pieces of one column of pieces pile up. The swizzle of [tiled-CSL](glossary.md#tiled-csl) exchanges the pieces within each row by `piece xor (row mod 8)`: 8 rows, 8 different places.
#
# ### B without a swizzle
#
# B is stored [K, N] and the fragment wants two neighbours *along k* in one register: the transposed deal. Our [kernels](glossary.md#kernel) cut a B tile into panels of 8 columns, one after the other, 16 bytes a row. Eight rows of a panel are then 128 consecutive bytes, all 32 banks, whatever the address: nothing to swizzle.

# %%
from loadsparse.gpu.intrinsics import ldmatrix_x2_trans


def fetch_b(panel, out):
    lane, base = uint32(cuda.threadIdx.x), shared_base()
    for i in range(16 * 8 // 32):
        at = uint32(i * 32 + lane)
        store_shared_half(uint32(base + at * uint32(2)), 0, uint32(panel[at >> 3, at & 7]))
    cuda.syncwarp()
    low, high = ldmatrix_x2_trans(uint32(base + uint32(lane & uint32(15)) * uint32(16)), 0)
    out[lane, 0], out[lane, 1] = low, high


B = rng.standard_normal((16, 8)).astype(np.float16)
right = np.zeros((32, 2), np.uint32)
report = simulator.run(fetch_b, engine="interpreter")[1, 32, 0, 16 * 16](B.view(np.uint16), right)
assert report.ok
assert np.array_equal(right, fragments.M16N8K16.b.to_registers(B.view(np.uint16)))
print("two 8 x 8 matrices in", report.metrics[TURNS], "turns")
assert report.metrics[TURNS] == 2

# %% [markdown]
# ## Check it against the oracle
#
# The registers must be those of the layout [oracle](glossary.md#oracle), and an `mma` of them must give the product of the matrices in every bit. Here are our ten lines, the layout, and the instruction, side by side.

# %%
from loadsparse.reference import tensorcore

flat = A.view(np.uint16).ravel()
by_hand = np.empty((32, 4), np.uint32)
for register, (down, across) in enumerate(((0, 16), (8, 16), (0, 24), (8, 24))):
    halves = ldmatrix(flat, 128 * (down + np.arange(8)) + 2 * across).astype(np.uint32)
    by_hand[:, register] = halves[:, 0] | halves[:, 1] << 16
assert np.array_equal(by_hand, out)
sums = tensorcore.mma(out, right, np.zeros((32, 4), np.uint32), shape="m16n8k16", arch="sm_80")
product = fragments.M16N8K16.c.to_matrix(sums).view(np.float32)
exact = A[:, 16:32].astype(float) @ B.astype(float)
print(f"largest difference of the product from float64: {np.abs(product - exact).max():.1e}")
assert np.abs(product - exact).max() < 1e-5

# %% [markdown]
# ## Numbers
#
# How many turns does a whole step of a kernel cost? A warp that owns 32 rows and walks a tile of 64 columns of A with N = 16 columns of B needs, for each 16 of k, two A fragments and two B fragments, for 4 `mma`. *Counted* for the [LSCD](glossary.md#lscd-load-as-sparse-compute-as-dense) kernel of this library, beside what the drawing says:

# %%
from loadsparse.gpu import kernels

M, N, K = 128, 16, 256
weights = np.where(rng.random((M, K)) < 0.2, rng.standard_normal((M, K)), 0).astype(np.float16)
lscd = kernels.get("lscd")
launch = lscd.plan(lscd.encode(weights), rng.standard_normal((K, N)).astype(np.float16), split_k=1)
c, report = launch.run(engine="interpreter")
assert report.ok
steps, warps = K // 64, 4
drawn = warps * steps * 4 * (2 * 4 + 1 * 4)  # 4 k16 steps: two A fragments of 4 matrices, one x4 for the two panels
mma = report.metrics["smsp__inst_executed_pipe_tensor_op_hmma.sum"]
print(f"ldmatrix: {report.metrics['shared_wavefronts_ldmatrix']} turns counted, {drawn} drawn, for {mma} mma")
print(f"turns per mma: {drawn / mma:.0f}; had A no swizzle: {warps * steps * 4 * (2 * 32 + 4) / mma:.0f}")
assert report.metrics["shared_wavefronts_ldmatrix"] == drawn
assert report.metrics["l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum"] == 0

figure, axis = canvas(height=2.4)
axis.barh(list(turns), list(turns.values()), color="#0072b2")
axis.invert_yaxis()
axis.set(xlabel="turns of shared memory for one A fragment")
show(
    figure,
    f"Bars: halves {turns['halves']} turns, words {turns['words']}, ldmatrix {turns['ldmatrix']}, ldmatrix from a swizzled tile {turns['ldmatrix, swizzled']}.",
)

# %% [markdown]
# ## Exercises
#
# 1. Pad each row to 144 bytes instead of swizzling. Draw the banks: how many turns does an 8 × 8 matrix take, and how much memory does a tile of 128 × 64 waste?
# 2. Which lanes' addresses does `ldmatrix.x4` take for its third matrix, and what happens to the registers if two of those lanes exchange their addresses?
# 3. Words without a swizzle took 8 turns each. Do word loads from a *swizzled* tile conflict?
#
# <details><summary>Answers</summary>
#
# 1. 144 bytes are 36 words, so each row starts 4 banks further on: 8 rows meet 32 banks, 1 turn. The waste is 128 · 16 = 2,048 bytes of 18,432, one part in nine; the swizzle wastes nothing.
# 2. Lanes 16 to 23. The two rows change places in register 2 of the eight lanes that hold them, and nothing else changes.
# 3. No: 1 turn each, 4 for the fragment. `ldmatrix` then saves instructions, not turns.
#
# </details>

# %%
row, word = np.arange(8)[:, None], np.arange(4)[None, :]
assert np.bincount(((row * 36 + 8 + word) % 32).ravel(), minlength=32).max() == 1  # exercise 1
assert 128 * 144 == 18_432
assert len(set(banks_of(True).ravel())) == 32  # exercise 3: lane 4 g + t reads word t of row g's piece

# %% [markdown]
# ## Summary
#
# `ldmatrix` is eight addresses in, one register per lane out, and 128 bytes per turn if the eight rows meet 32 banks. A swizzle (A) or panels of 8 columns (B) see to that. Next, items, fragments and banks come together: [write the LSCD kernel](08_write_the_lscd_kernel.ipynb).
