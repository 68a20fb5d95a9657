# %% [markdown]
# # Tiled-CSL by hand
#
# *Four of five weights are zero, at random places. How do you write down the rest, so that 32 lanes can rebuild the matrix without standing in each other's way?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, cells, show

rng = np.random.default_rng(seed=5)
small = np.where(rng.random((4, 8)) < 0.3, rng.integers(1, 10, (4, 8)), 0)
rows, columns = np.nonzero(small)
figure, axes = canvas(columns=2, width=8, height=2.2)
cells(axes[0], np.where(small == 0, "", small.astype(str)), small > 0, [f"row {i}" for i in range(4)], range(8))
items = np.array([[f"{small[i, j]} at {8 * i + j}" for i, j in zip(rows, columns, strict=True)]])
cells(axes[1], items.T, None, [f"item {n}" for n in range(items.size)], [""])
show(
    figure,
    "Left a table of 4 by 8 with few numbers; right the list of its items, each a value and its place 8 times row plus column.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [skinny matmuls](01_skinny_matmuls.ipynb), [a tiled matmul and its race](04_a_tiled_matmul_and_its_race.ipynb) (banks) |
# | Time | 35 minutes |
# | A common misconception | "The order of the items in a tile does not matter, each knows its place." The product does not care; the banks do. The same items in another order need three times as many turns. |
#
# ## You will learn
#
# 1. to encode and decode a weight by hand: 16 bits of value, 16 bits of place;
# 2. why the place is *swizzled*, and what that does to [banks](glossary.md#bank);
# 3. how the order of the items decides the number of turns, and what no order can beat.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Cut the matrix into tiles of 128 × 64. Within a tile, the place of an element fits in 13 bits, so place and half-precision value share one 32-bit word. Rebuilding a tile is a scatter.

# %%
tile = rng.standard_normal((128, 64)).astype(np.float16)
tile[rng.random(tile.shape) < 0.8] = 0
place = np.flatnonzero(tile).astype(np.uint32)  # row * 64 + column
words = place << 16 | tile.view(np.uint16).ravel()[place]  # encode
rebuilt = np.zeros(128 * 64, np.uint16)
rebuilt[words >> 16] = words & 0xFFFF  # decode: a scatter
assert np.array_equal(rebuilt.view(np.float16).reshape(128, 64), tile)
print(f"{words.size} words of 4 bytes instead of {tile.size} of 2: {tile.nbytes / words.nbytes:.2f} times smaller")

# %% [markdown]
# ## Build it
#
# ### One word
#
# The format's own place is a little different: $\text{location} = 64\,r + (c \oplus 8\,(r \bmod 8))$, where $\oplus$ flips bits. It is computed in `formats.TiledCSL.encode`. By hand, for the value 1.5 in row 5, column 10:

# %%
from loadsparse.reference import formats


def location(row, column):
    """The place in the tile, swizzled."""
    return 64 * row + (column ^ (row % 8 << 3))


value = np.array([1.5], np.float16).view(np.uint16)[0]
word = location(5, 10) << 16 | int(value)
print(f"value {value:#06x}, location 64 x 5 + (10 xor 40) = {location(5, 10)}, word {word:#010x}")

one = np.zeros((128, 64), np.float16)
one[5, 10] = 1.5
encoded = formats.TiledCSL.encode(one)
print(
    "the library's words:", [hex(item) for item in encoded.items.tolist()], " offsets:", encoded.tile_offsets.tolist()
)
assert word in encoded.items.tolist()

# %% [markdown]
# Four words, not one: a [lane](glossary.md#lane) loads 16 bytes at once, so each tile is filled up to a multiple of four items. The three pads carry the value 0 to three *different empty* places; three words 0x00000000 would all store to place 0 and [race](glossary.md#race) with a real element there.
#
# ### Why swizzle?
#
# Later, `ldmatrix` reads 8 rows × 16 bytes at once. Rows are 128 bytes long, which is exactly once around the 32 banks: without the [swizzle](glossary.md#swizzle) the eight pieces lie in the same four banks. XOR with the row moves each row's piece to another place.

# %%
r, chunk = np.arange(8)[:, None], np.arange(8)[None, :]
plain_banks = (64 * r + 8 * chunk) // 2 % 32
swizzled_banks = location(r, 8 * chunk) // 2 % 32
figure, axes = canvas(columns=2, width=8, height=2.8)
for axis, banks, name in ((axes[0], plain_banks, "plain"), (axes[1], swizzled_banks, "swizzled")):
    cells(axis, banks, (chunk == 2) + 0 * r, [f"row {i}" for i in range(8)], [f"c {8 * i}" for i in range(8)])
    axis.set_xlabel(f"{name}: first bank of every 16-byte piece")
show(
    figure,
    "First bank of eight pieces in eight rows: plain, each column of pieces has one bank; swizzled, each column has eight different banks.",
)
assert len(set(plain_banks[:, 2])) == 1
assert len(set(swizzled_banks[:, 2])) == 8

# %% [markdown]
# ### The scatter, on 32 lanes
#
# Lane L loads vector L, four items, and the [warp](glossary.md#warp) stores item 0 of every lane in one instruction, then item 1, 2, 3. The 32 items of one store go to 32 places, so to some banks. Two different words in one bank: two turns. The two 16-bit halves of the *same* word: one turn.

# %%
from numba import cuda, uint16, uint32

from loadsparse.gpu import simulator


def scatter(items, vectors, out):
    s = cuda.shared.array(8192, uint16)
    lane = cuda.threadIdx.x
    for i in range(lane, 8192, 32):
        s[i] = uint16(0)
    cuda.syncwarp()
    for first in range(0, vectors, 32):
        v = first + lane
        if v < vectors:
            for j in range(4):
                item = items[4 * v + j]
                s[item >> uint32(16)] = uint16(item & uint32(0xFFFF))
    cuda.syncwarp()
    for i in range(lane, 8192, 32):
        row = i // 64
        out[i] = s[row * 64 + ((i % 64) ^ (row % 8 << 3))]


def executed(csl):
    """The tile that the kernel rebuilds, and (wavefronts, instructions) of its scattering stores."""
    out = np.zeros(8192, np.uint16)
    report = simulator.run(scatter)[1, 32](csl.items, csl.items.size // 4, out)
    assert report.ok, report
    stores = [row for row in report.lines if "st.shared" in row["ptx"]]
    items_line = max(row["source_line"] for row in stores)  # the first loop's store only writes zeros
    stores = [row for row in stores if row["source_line"] == items_line]
    total = sum(row["wavefronts"] for row in stores), sum(row["executions"] for row in stores)
    return out.view(np.float16).reshape(128, 64), total


orders = {"by place": formats.TiledCSL.encode(tile, reorder=False), "reordered": formats.TiledCSL.encode(tile)}
for name, csl in orders.items():
    out, (wavefronts, stores) = executed(csl)
    assert np.array_equal(out, tile)
    cost = csl.store_wavefronts()
    print(
        f"{name:10} {stores} stores took {wavefronts} turns: {wavefronts / stores:.2f} each; no order below {cost.bound_degree:.2f}"
    )
    assert wavefronts == cost.achieved.sum()
assert orders["reordered"].store_wavefronts().gap == 0

# %% [markdown]
# Reordering happens once, before the model is served, and costs nothing later. The rule that finds the order is in `loadsparse.reference.formats.bank_order`: it is a theorem about matrices of zeros and ones.
#
# ### What no order can beat
#
# $$ W \;\ge\; \max\big(\text{number of stores},\; \max_b\, \text{distinct words in bank } b\big) $$
#
# `formats.TiledCSL.store_wavefronts` returns both sides. One bank that holds more words than there are stores forces a second turn, whatever the order.

# %%
words_of_bank = np.bincount(np.unique(orders["reordered"].items >> 17) % 32, minlength=32)
stores = -(-orders["reordered"].items.size // 128) * 4
print(f"stores {stores}, words in the fullest bank {words_of_bank.max()}")
assert max(stores, words_of_bank.max()) == orders["reordered"].store_wavefronts().bound.sum()

# %% [markdown]
# ## Check it against the oracle
#
# `decode` is the [oracle](glossary.md#oracle) of `encode`, and `validate` refuses what no encoder may write.

# %%
from dataclasses import replace

ragged = np.where(rng.random((200, 100)) < 0.2, rng.standard_normal((200, 100)), 0).astype(np.float16)
ragged[0, 0] = -0.0  # minus zero is an item, too: 0 x inf must stay what it was
csl = formats.TiledCSL.encode(ragged)
assert np.array_equal(csl.decode().view(np.uint16), ragged.view(np.uint16))
csl.validate()
twice = csl.items.copy()
twice[1] = twice[0]
try:
    replace(csl, items=twice).validate()
except ValueError as error:
    print("refused:", error)
else:
    raise AssertionError("two items at one place must be refused")

# %% [markdown]
# ## Numbers
#
# Turns per store against [sparsity](glossary.md#sparsity), over 32 random tiles each, and the bytes per weight. Both are computed from the encoded matrices.

# %%
levels = (0.5, 0.6, 0.7, 0.8, 0.9)
turns, size = {"by place": [], "reordered": [], "no order can beat": []}, []
for level in levels:
    dense = rng.standard_normal((512, 512)).astype(np.float16)
    dense[rng.random(dense.shape) < level] = 0
    arranged = formats.TiledCSL.encode(dense)
    turns["by place"].append(formats.TiledCSL.encode(dense, reorder=False).store_wavefronts().degree)
    turns["reordered"].append(arranged.store_wavefronts().degree)
    turns["no order can beat"].append(arranged.store_wavefronts().bound_degree)
    size.append(arranged.nbytes / dense.size)
figure, axes = canvas(columns=2, width=8, height=3.2)
for name, degrees in turns.items():
    axes[0].plot(levels, degrees, label=name)
axes[0].set(xlabel="sparsity", ylabel="turns per store", ylim=(0, 5), title="Scattering a tile")
axes[0].legend()
axes[1].plot(levels, size, marker="o", label="tiled-CSL")
axes[1].plot(levels, [2] * 5, label="dense")
axes[1].set(xlabel="sparsity", ylabel="bytes per weight", ylim=(0, 2.3), title="Loading it")
axes[1].legend()
show(
    figure,
    "Left: about 3 turns per store by place, 1.0 to 1.2 reordered, equal to the bound. Right: bytes fall from 2 at 50 per cent to 0.4 at 90.",
)
for level, bytes_per_weight, degree in zip(levels, size, turns["reordered"], strict=True):
    print(f"{level:.0%}: {bytes_per_weight:.3f} bytes per weight, {degree:.3f} turns per store")
assert np.allclose(size, 4 * (1 - np.array(levels)), atol=0.02)  # 4 bytes per nonzero, plus pads and offsets
assert np.allclose(turns["reordered"], turns["no order can beat"], rtol=0.005)

# %% [markdown]
# ## Exercises
#
# 1. Decode the word 0x0A2A3E00: which value, which row, which column?
# 2. A tile has 1,637 nonzeros. How many items does it hold, how many vectors, how many bytes with its offset?
# 3. At which sparsity does [tiled-CSL](glossary.md#tiled-csl) need as many bytes as dense FP16? As a [bitmap](glossary.md#bitmap) (2 bytes per nonzero and one bit per element)?
#
# <details><summary>Answers</summary>
#
# 1. Value 0x3E00 = 1.5; location 0x0A2A = 2602 = 64 · 40 + 42. Row 40, 40 mod 8 = 0, so column 42.
# 2. 1,640 items (three pads), 410 vectors, 6,560 bytes + 4 for the offset.
# 3. 4d = 2 at 50 % sparsity; 4d = 2d + 1/8 at d = 1/16, sparsity 93.75 %: below it a bitmap is smaller, above it tiled-CSL.
#
# </details>

# %%
puzzle = np.zeros((128, 64), np.float16)
puzzle[40, 42] = 1.5
assert 0x0A2A3E00 in formats.TiledCSL.encode(puzzle).items.tolist()
many = np.zeros(8192, np.float16)
many[:1637] = 1
counted = formats.TiledCSL.encode(many.reshape(128, 64))
assert (counted.items.size, counted.items.size // 4, counted.items.nbytes + 4) == (1640, 410, 6564)
assert 4 / 16 == 2 / 16 + 1 / 8

# %% [markdown]
# ## Summary
#
# A weight becomes one word: value below, swizzled place above. Tiles are padded to whole vectors at empty places, and ordered so that a store's 32 items meet 32 banks; the order reaches the bound. Loading is then a stream of 16-byte vectors, unpacking a scatter. Next: [one mma by hand](06_one_mma_by_hand.ipynb), what the rebuilt tile is
# for.
