# %% [markdown]
# # Beat it
#
# *The LSCD kernel moves four bytes for every nonzero, writes a tile of zeros and reads it back. Can a kernel do without all three, and what does it pay instead?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, show

from loadsparse.reference.formats import entropy_floor

density = np.linspace(0.02, 0.6, 59)
figure, axis = canvas(height=3.2)
axis.plot(density, 4 * density, label="tiled-CSL: 4 d")
axis.plot(density, 2 * density + 1 / 8, label="bitmap: 2 d + 1/8")
axis.plot(density, [entropy_floor(d) for d in density], label="entropy floor: 2 d + H(d)/8")
axis.plot(density, 0 * density + 2, label="dense, 16 bits")
axis.plot(density, 0 * density + 0.625, label="dense, 4 bits")
axis.set(xlabel="density d", ylabel="bytes per element", ylim=(0, 2.4))
axis.legend(fontsize=8)
show(
    figure,
    "Bytes per element over density: tiled-CSL is a line of slope 4, the bitmap a line of slope 2 that starts at one eighth and lies just above the entropy floor; dense 16-bit weights need 2, dense 4-bit ones 0.625.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [a warp's view](07_a_warps_view.ipynb), [write the LSCD kernel](08_write_the_lscd_kernel.ipynb) |
# | Time | 40 minutes |
# | A common misconception | "Fewer bytes, faster kernel." A decode that saves a third of the bytes and quadruples the instructions moves the kernel from one limit to another. Both must be counted. |
#
# ## You will learn
#
# 1. to decode a [bitmap](glossary.md#bitmap) straight into the [registers](glossary.md#register) of an [mma](glossary.md#mma), with no tile in between;
# 2. where the instructions of such a decode go, and three ideas that remove most of them;
# 3. to judge a format by both numbers, bytes *and* instructions, and to say which of them limits a given GPU.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# One bit per element says whether it is stored; the values follow in order. Where is the value of an element? Count the set bits before it. That is all a [lane](glossary.md#lane) needs, so each lane can fetch its own two elements of an 8 × 8 piece and put them into its register.

# %%
rng = np.random.default_rng(seed=10)
piece = np.where(rng.random((8, 8)) < 0.3, rng.standard_normal((8, 8)), 0).astype(np.float16)
bits = piece.ravel() != 0  # the bitmap
values = piece.ravel()[bits]  # in order
before = np.cumsum(bits) - bits  # for each element: set bits before it
register = np.zeros((32, 2), np.float16)  # lane 4 g + t: row g, columns 2 t and 2 t + 1
for lane in range(32):
    for half in range(2):
        e = 2 * lane + half
        register[lane, half] = values[before[e]] if bits[e] else 0
assert np.array_equal(register.reshape(8, 8), piece)
lane = int(np.flatnonzero(register.all(axis=1))[0])
print(
    f"{8 + values.nbytes} bytes, not {piece.nbytes}; lane {lane} counts {before[2 * lane]} bits, holds {register[lane]}"
)

# %% [markdown]
# ## Build it
#
# ### First try: count for every lane
#
# A 16 × 16 tile is four such pieces, in the order of the four registers. The hardware counts 32 bits per instruction (`popc`), so a lane needs three counts per piece: the bits before its own in its half, and the size of each half.

# %%
from numba import cuda, uint32, uint64

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu.intrinsics import (
    load_global_half,
    load_global_x2,
    mma_m16n8k16,
    popc,
    store_global_f32,
    zeros,
)

mma = mma_m16n8k16["f16"]


def encode(a):
    """A [16, 16 T] -> words uint32[T, 4, 2] and values, piece after piece: upper left, lower left, upper right, lower right."""
    tiles = a.reshape(2, 8, -1, 2, 8).transpose(2, 3, 0, 1, 4).reshape(-1, 4, 64)
    stored = tiles != 0
    words = np.packbits(stored, axis=2, bitorder="little").view(np.uint32)
    return np.ascontiguousarray(words), tiles[stored]


@cuda.jit(device=True, inline="always")
def decode(low, high, base, values, lane):
    """(register of this lane, first value of the next piece) of an 8 x 8 piece with the bitmap high:low."""
    bit = uint32(uint32(lane + lane) & uint32(31))
    upper = lane >= uint32(16)
    word = high if upper else low
    count = popc(uint32(word & uint32(uint32(uint32(1) << bit) - uint32(1))))
    first = popc(low)
    place = uint32(base + count + (first if upper else uint32(0)))
    pair = uint32(uint32(word >> bit) & uint32(3))
    register = uint32(0)
    if uint32(pair & uint32(1)) != uint32(0):
        register = load_global_half(values + uint64(place) * uint64(2), 0)
        place = uint32(place + uint32(1))
    if uint32(pair & uint32(2)) != uint32(0):
        register = uint32(register | uint32(load_global_half(values + uint64(place) * uint64(2), 0) << uint32(16)))
    return register, uint32(base + first + popc(high))


def by_counting(words, values, b, c, tiles):
    """C[16, 8] of one warp: A from its bitmap, B[16 T, 8] dealt by hand."""
    lane = uint32(cuda.threadIdx.x)
    g, t = uint32(lane >> uint32(2)), uint32(lane & uint32(3))
    acc, base = zeros(4), uint32(0)
    for tile in range(tiles):
        at = words + uint64(tile) * uint64(32)
        l0, h0 = load_global_x2(at, 0)
        l1, h1 = load_global_x2(at, 8)
        l2, h2 = load_global_x2(at, 16)
        l3, h3 = load_global_x2(at, 24)
        r0, base = decode(l0, h0, base, values, lane)
        r1, base = decode(l1, h1, base, values, lane)
        r2, base = decode(l2, h2, base, values, lane)
        r3, base = decode(l3, h3, base, values, lane)
        from_ = b + (uint64(tile) * uint64(16) + uint64(t) * uint64(2)) * uint64(16) + uint64(g) * uint64(2)
        x = uint32(load_global_half(from_, 0) | uint32(load_global_half(from_, 16) << uint32(16)))
        y = uint32(load_global_half(from_, 128) | uint32(load_global_half(from_, 144) << uint32(16)))
        acc = mma(acc, (r0, r1, r2, r3), (x, y))
    to = c + uint64(uint32(uint32(g * uint32(8)) + uint32(t * uint32(2)))) * uint64(4)
    store_global_f32(to, 0, acc[0])
    store_global_f32(to, 4, acc[1])
    store_global_f32(to, 256, acc[2])
    store_global_f32(to, 260, acc[3])


TILES = 16
A = np.where(rng.random((16, 16 * TILES)) < 0.2, rng.standard_normal((16, 16 * TILES)), 0).astype(np.float16)
B = rng.standard_normal((16 * TILES, 8)).astype(np.float16)
words, stored = encode(A)
ptx = compiler.numba(by_counting, "void(uint64, uint64, uint64, uint64, uint32)", "sm_80", launch_bounds=32)
kernel = simulator.load(ptx, arch="sm_80")["by_counting"]
c = np.zeros((16, 8), np.float32)
report = kernel.launch(1, 32, words, stored, B, simulator.empty(c), np.uint32(TILES), engine="interpreter")
assert report.ok, report.hazards
shorter = kernel.launch(1, 32, words, stored, B, c.copy(), np.uint32(TILES // 2), engine="interpreter")
per_tile = (report.instructions - shorter.instructions) / (TILES // 2)


def counted(lines, opcode):
    """Executions of an instruction by warps."""
    return sum(row["executions"] for row in lines if row["ptx"].startswith(opcode))


print(
    f"{per_tile:.0f} instructions per 16 x 16 tile, {counted(report.lines, 'popc') / TILES:.0f} of them population counts"
)

# %% [markdown]
# No shared tile, no zeros written, no [barrier](glossary.md#barrier). But some 145 instructions for each tile; the [LSCD](glossary.md#lscd-load-as-sparse-compute-as-dense) [kernel](glossary.md#kernel) needs about thirty.
#
# ### Three ideas
#
# 1. **Order the bits by lane.** If a word holds the eight elements of each of four lanes, next to each other, then *one* count per tile finds a lane's first value, and its other values follow it in memory.
# 2. **One scan for a whole strip.** Each lane counts one word of two strips; five shuffles add them up, and everybody knows where every word's values begin.
# 3. **Select, do not branch.** The next two halves in memory, x and y, and the two presence bits decide the register: (x, y), (x, 0), (0, x) or (0, 0). One `prmt` picks four bytes out of eight by four selector digits. And the selector is *linear* in the bits:
#
# $$ s = \mathtt{0x3232} + \mathtt{0x43DE} \cdot p_0 - \mathtt{0x2200} \cdot p_1 $$
#
# The digits 2 and 3 are the upper bytes of x, which a halfword load leaves zero. The library computes s with one `dp2a` (`loadsparse.gpu.kernels.decode.pairs`). By hand:

# %%


def prmt(x, y, select):
    """Bytes of (y:x), numbered 0 to 7 from the lowest, by four selector digits."""
    digits = [(select >> 4 * i) & 7 for i in range(4)]
    return sum((((y << 32) | x) >> 8 * digit & 0xFF) << 8 * i for i, digit in enumerate(digits))


x, y = 0x1111, 0x2222
for p0, p1 in ((0, 0), (1, 0), (0, 1), (1, 1)):
    select = 0x3232 + 0x43DE * p0 - 0x2200 * p1
    wanted = (x if p0 else 0) | ((y if p0 else x) << 16 if p1 else 0)
    print(f"bits {p0}, {p1}: selector {select:#06x}, register {prmt(x, y, select):#010x}")
    assert prmt(x, y, select) == wanted

# %% [markdown]
# The place of the next pair is linear too: it moves on by 2 · (p₀ + p₁) bytes, and four bits at once by one `dp4a`. Nothing branches, so a [warp](glossary.md#warp) never splits.
#
# ## Check it against the oracle
#
# Our kernel, and the library's, which has the three ideas, several `cp.async` stages and one barrier a step, against the [oracle](glossary.md#oracle) in every bit. The format is `formats.LaneBitmap`.

# %%
from loadsparse.gpu import kernels
from loadsparse.reference import formats, spmm

assert np.array_equal(c, spmm.lscd(A, B, arch="sm_80", out_format="f32"))

M, N, K = 256, 16, 256
weights = {s: np.where(rng.random((M, K)) >= s, rng.standard_normal((M, K)), 0).astype(np.float16) for s in (0.6, 0.8)}
tokens = rng.standard_normal((K, N)).astype(np.float16)
reports, sizes = {}, {}
for name in ("lscd", "bitmap"):
    one = kernels.get(name)
    for sparsity, a in weights.items():
        packed = formats.LaneBitmap.encode(a) if name == "bitmap" else one.encode(a)
        launch = one.plan(packed, tokens, split_k=1)
        product, found = launch.run(engine="interpreter")
        assert found.ok
        assert np.array_equal(product, spmm.lscd(a, tokens, arch="sm_80", splits=launch.splits))
        reports[name, sparsity], sizes[name, sparsity] = found, packed.nbytes / a.size
print("three kernels, five products: every bit is right, no hazard")

# %% [markdown]
# ## Numbers
#
# *Counted* by the simulator on M = K = 256, N = 16, beside the *published* kernels (counted by others at M = 512, K = 1,024, where fixed costs weigh less):

# %%
TILE = M * K // 256
SHARED = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_{}.sum"
points = {}
for (name, sparsity), found in reports.items():
    turns = sum(found.metrics[SHARED.format(way)] for way in ("ld", "st")) + found.metrics["shared_wavefronts_cp_async"]
    points[name, sparsity] = sizes[name, sparsity], found.instructions / TILE
    print(
        f"{name:7} {sparsity:.0%}: {sizes[name, sparsity]:.3f} bytes per element ({sizes[name, sparsity] / entropy_floor(1 - sparsity):.2f} x floor), "
        f"{found.instructions / TILE:5.1f} instructions and {turns / TILE:4.1f} turns per 16 x 16 tile, "
        f"{counted(found.steps[0].lines, 'popc') / TILE:.2f} popc"
    )
points["ours, counting", 0.8] = 2 * 0.2 + 1 / 8, per_tile
published = {("Flash-LLM", 0.6): (1.60, 375), ("Flash-LLM", 0.8): (0.80, 265)}
published |= {("SpInfer", 0.6): (0.93, 1160), ("SpInfer", 0.8): (0.53, 1138)}  # instructions per output at N = 16
points |= {
    key: (size, per_output * 512 * 16 / 32 / (512 * 1024 / 256)) for key, (size, per_output) in published.items()
}

figure, axis = canvas(height=3.6)
for number, name in enumerate(dict.fromkeys(name for name, _ in points)):
    mine = np.array([points[key] for key in points if key[0] == name])
    axis.plot(mine[:, 0], mine[:, 1], "osD^v"[number], linestyle="-", label=name)
axis.plot([entropy_floor(0.2)] * 2, [0, 150], color="black", linestyle=":", label="floor at 80%")
axis.set(xlabel="bytes per element", ylabel="instructions per 16 x 16 tile, N = 16", xlim=(0.4, 1.7), ylim=(0, 150))
axis.legend(fontsize=8)
show(
    figure,
    "Instructions over bytes: Flash-LLM and lscd lie low and to the right, SpInfer and the counting kernel high and to the left; bitmap lies low and to the left, near the entropy floor.",
)
assert sizes["bitmap", 0.8] < 1.1 * entropy_floor(0.2)
assert points["bitmap", 0.8][1] < 0.4 * points["SpInfer", 0.8][1]

# %% [markdown]
# Which of the two numbers limits? That depends on the GPU. *Predicted* by `perfmodel.predict` for 36,864 × 9,216, N = 8, 80% sparse, on an A100 and on an H100, whose memory is faster while its schedulers issue as before:

# %%
from loadsparse.gpu import perfmodel

times = {}
for gpu in ("a100-80gb", "h100-sxm"):
    for name in ("cublas", "flash-llm", "spinfer", "lscd", "bitmap"):
        found = perfmodel.predict(name, 36864, 8, 9216, 0.8, gpu)
        times[gpu, name] = found.seconds
        print(
            f"{gpu:10} {name:10} {found.seconds * 1e6:6.1f} us, bound by {found.bound:6} roofline {found.roofline_seconds * 1e6:6.1f} us"
        )
figure, axis = canvas(height=2.8)
names = ["cublas", "flash-llm", "spinfer", "lscd", "bitmap"]
for shift, gpu in ((-0.2, "a100-80gb"), (0.2, "h100-sxm")):
    axis.bar(np.arange(5) + shift, [times[gpu, name] * 1e6 for name in names], 0.4, label=gpu)
axis.set_xticks(range(5), names)
axis.set(ylabel="predicted, us")
axis.legend()
show(
    figure,
    "Predicted times of five kernels on two GPUs: bitmap is the fastest on both, spinfer is slower than flash-llm on the A100.",
)
assert min(names, key=lambda name: times["a100-80gb", name]) == "bitmap"
assert times["a100-80gb", "spinfer"] > times["a100-80gb", "flash-llm"]

# %% [markdown]
# And a warning in every such table: *dense* 4-bit weights need 0.625 bytes per element. At 16 bits per value a sparse format goes below that only from about 74% [sparsity](glossary.md#sparsity) on, even at the floor.
#
# ## Exercises
#
# 1. At which sparsity do the floor, the bitmap, and [tiled-CSL](glossary.md#tiled-csl) reach 0.625 bytes per element?
# 2. The counting kernel needs three counts per piece of 8 × 8. The unit that counts serves 16 lanes per clock and [multiprocessor](glossary.md#multiprocessor-sm): how many clocks do the counts of one tile take, and how many those of the library's kernel, at its counts per tile?
# 3. Why does the selector use the digits 2 and 3 for an absent element, and not a register of zeros?
#
# <details><summary>Answers</summary>
#
# 1. Floor: 73.9%; bitmap: 75%; tiled-CSL: 84.4%.
# 2. 12 counts of 32 lanes at 16 per clock: 24 clocks. With 1.25 counts: 2.5 clocks.
# 3. `prmt` chooses among eight bytes, four of each operand. The upper bytes of a zero-extended halfword are zeros already; another operand would not fit.
#
# </details>

# %%
grid = np.linspace(0.05, 0.5, 45_001)
crossing = 1 - grid[np.searchsorted([entropy_floor(d) for d in grid], 0.625)]
print(f"the floor reaches 0.625 at {crossing:.1%}")
assert abs(crossing - 0.739) < 0.001
assert (1 - 0.5 / 2, 1 - 0.625 / 4) == (0.75, 0.84375)
assert counted(report.lines, "popc") / TILES in (12, 13)  # 13 where LLVM compiled it: one count is made twice

# %% [markdown]
# ## Summary
#
# A bitmap near the [entropy floor](glossary.md#entropy-floor), decoded straight into [fragments](glossary.md#fragment), removes the bytes and the fixed price of the dense tile; ordering the bits by lane, one scan, and linear selectors keep the instructions near Flash-LLM's. `loadsparse compare` prints such a table for any shape. Read next: [where the time goes](20_where_the_time_goes.ipynb).
