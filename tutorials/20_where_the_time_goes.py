# %% [markdown]
# # Where the time goes: bounds, occupancy and floors
#
# *A kernel moves 40 % of the bytes and takes 54 % of the time. Who took the rest?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, show

figure, axis = canvas(height=1.9)
axis.barh(["bytes of A", "time, cited"], [0.40, 0.219 / 0.402], color=["#cccccc", "#777777"], edgecolor="black")
axis.axvline(1, color="black")
axis.set(xlim=(0, 1.1), xlabel="share of the dense product's", title="Flash-LLM at 80 %, 36864 x 9216, N = 8")
for row, share in enumerate((0.40, 0.219 / 0.402)):
    axis.text(share + 0.01, row, f"{share:.0%}", va="center")
show(figure, "Two bars against dense: 40 per cent of the bytes of A, 54 per cent of the time.")

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [skinny matmuls](01_skinny_matmuls.ipynb) |
# | Time | 35 minutes |
# | A common misconception | "The roofline tells how fast a kernel is." It tells how fast it cannot be beaten; real kernels also issue instructions, wait at barriers and fill waves. |
#
# ## You will learn
#
# 1. to build, in ten lines, a model that predicts a published [kernel](glossary.md#kernel)'s time within a few percent where the [roofline](glossary.md#roofline) is off by half;
# 2. what [occupancy](glossary.md#occupancy) does and what a *floor* is;
# 3. to ask "what if": which resource, made 10 % better, would help?

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Two things happen at once: memory delivers the weights, and the [multiprocessors](glossary.md#multiprocessor-sm) execute instructions. The slower one decides; near the crossing both are felt, so we join them softly.
# The A100 figures are cited; instructions per step were counted by executing the authors' kernel.

# %%
import numpy as np

SMS, HERTZ, BANDWIDTH = 108, 1.41e9, 1.72e12  # A100: multiprocessors, clock; what good kernels read, bytes/s
m, k = 36864, 9216
sparsity = np.array([0.60, 0.70, 0.80, 0.85, 0.90, 0.95, 0.98, 0.99, 1.00])
density = 1 - sparsity

memory = 4 * density * m * k / BANDWIDTH  # tiled-CSL: 4 bytes per nonzero
per_tile = 546 + 0.266 * 8192 * density  # warp instructions of a tile of 128 x 64, N = 8, counted
tiles_per_sm = m * k / 8192 / SMS
issue = tiles_per_sm * per_tile / 4 * (3.8 / 2) / HERTZ  # 4 schedulers, 2 warps each, one instruction per 3.8 cycles
waiting = tiles_per_sm / 4 * 2 * 380 / HERTZ  # two blocks, two tiles a step: two barriers, 380 cycles in sight each
ours = 14.5e-6 + (memory**6 + (issue + waiting) ** 6) ** (1 / 6)

flash_llm = np.array([0.3585, 0.2675, 0.219, 0.195, 0.175, 0.161, 0.149, 0.144, 0.1365]) * 1e-3  # s, cited
error = ours / flash_llm - 1
print("error:", " ".join(f"{100 * e:+.0f}%" for e in error))
assert np.abs(error).max() < 0.12

# %% [markdown]
# ## Build it
#
# ### What the plain roofline misses

# %%
from loadsparse.gpu import perfmodel

roof = np.array([perfmodel.roofline("flash-llm", m, 8, k, s) for s in sparsity])
model = np.array([perfmodel.predict("flash-llm", m, 8, k, s).seconds for s in sparsity])
figure, axis = canvas()
axis.plot(sparsity, flash_llm * 1e3, marker="o", label="Flash-LLM on an A100 (cited)")
axis.plot(sparsity, model * 1e3, label="our model")
axis.plot(sparsity, roof * 1e3, label="plain roofline")
axis.set(xlabel="sparsity", ylabel="ms", ylim=(0, None), title="36864 x 9216, N = 8")
axis.legend()
show(
    figure,
    "Time against sparsity: the model follows the measured curve down to a floor of 0.14 ms, the roofline falls to nearly zero.",
)
print(
    f"mean error: model {np.abs(model / flash_llm - 1).mean():.1%}, roofline {np.abs(roof / flash_llm - 1).mean():.1%}"
)
assert np.abs(model / flash_llm - 1).max() < 0.10

# %% [markdown]
# Not one of these nine points was used to fit the model. Its seven constants come from a different table (four kernels, four shapes, N = 8 to 32), each with a physical meaning:

# %%
import json

from loadsparse.gpu.perfmodel.gpu import DATA

for name, row in json.loads((DATA / "fitted.json").read_text())["constants"].items():
    print(f"{name:18} {row['value']:<9} {row['unit']:22} {row['meaning']} ({row['fitted_on']})")

# %% [markdown]
# ### Parts of the time
#
# Which part binds changes with [sparsity](glossary.md#sparsity): bytes first, then instructions.

# %%
figure, axis = canvas()
parts = [perfmodel.predict("flash-llm", m, 8, k, s).parts for s in sparsity]
for name in ("dram", "issue", "shared", "tensor"):
    axis.plot(sparsity, [1e3 * p[name] for p in parts], label=name)
axis.set(xlabel="sparsity", ylabel="ms, each alone", title="Flash-LLM: what each resource would need alone")
axis.legend()
show(
    figure,
    "Parts against sparsity: DRAM falls to zero, instruction issue with waiting falls to a floor and crosses it near 75 %.",
)
assert perfmodel.predict("flash-llm", m, 8, k, 0.6).bound == "dram"
assert perfmodel.predict("flash-llm", m, 8, k, 0.9).bound == "issue"

# %% [markdown]
# ### Occupancy
#
# A [warp](glossary.md#warp) cannot issue every cycle: it waits for its own last result. Other warps fill the gap if they are resident, and [registers](glossary.md#register) and [shared memory](glossary.md#shared-memory) decide how many are. Flash-LLM's 72 KB per [block](glossary.md#block-thread-block)
# leave room for two blocks of four warps: two warps for each scheduler, half of what would be needed.

# %%
a100 = perfmodel.load("a100-80gb")
latency = 3.77  # cycles between two instructions of one warp, fitted
for kilobytes in (72, 48, 36, 24):
    blocks = a100.resident_blocks(threads=128, registers=128, shared_bytes=kilobytes * 1024)
    print(f"{kilobytes:3} KB per block: {blocks} blocks resident, issue slots used: {min(1, blocks / latency):.0%}")
assert a100.resident_blocks(128, 128, 72 * 1024) == 2

# %% [markdown]
# ### Waves
#
# 216 blocks fit at once. The 217th starts a second wave, in which nearly all multiprocessors idle. That is why K is split: it makes more, smaller blocks.

# %%
rows = 256 * np.arange(150, 330, 6)
figure, axis = canvas()
for split in (1, None):
    times = [perfmodel.predict("flash-llm", int(r), 8, k, 0.8, split_k=split).seconds * 1e3 for r in rows]
    axis.plot(rows / 256, times, label="split-K 1" if split else "best split-K")
axis.set(xlabel="blocks of 256 rows", ylabel="ms", title="Wave quantisation at 80 %, N = 8")
axis.legend()
show(
    figure,
    "Time against the number of blocks: without split-K it jumps where a wave overflows; the best split smooths the jumps.",
)

# %% [markdown]
# ## Check it against the oracle
#
# Our own kernels were never timed: nobody had a GPU. Their *counts* are exact, though: two small executions give the counts of a block and of a step, and any launch is blocks × (block + steps × step). Check
# that against the full count of another shape, executed here.

# %%
from loadsparse.gpu import kernels
from loadsparse.gpu.perfmodel import count, tile

a = count.random_weights(384, 1088, density=0.25, seed=5)
b = np.random.default_rng(6).standard_normal((1088, 8)).astype(np.float16)
lscd = kernels.get("lscd")
_, report = lscd.plan(lscd.encode(a), b, split_k=1).run()
full = count.counted(report.steps[0])
shape = tile.tile("lscd", 8, np.count_nonzero(a) / a.size)
scaled = (384 // shape.rows) * (shape.block + (1088 // 64) * shape.step)
print(f"warp instructions: executed {full.instructions:,}, scaled {scaled.instructions:,.0f}")
print(f"shared wavefronts: executed {full.wavefronts:,}, scaled {scaled.wavefronts:,.0f}")
assert abs(scaled.instructions / full.instructions - 1) < 0.03
assert scaled.mma == full.mma

# %% [markdown]
# ## Numbers
#
# What would help? Improve each resource by 10 % and predict again (negative: faster).

# %%
for s in (0.6, 0.8, 0.95):
    change = perfmodel.sensitivities("flash-llm", m, 8, k, s)
    best = sorted(change, key=lambda name: change[name])[:3]
    print(f"{s:.0%}: " + ", ".join(f"{name} {100 * change[name]:+.1f}%" for name in best))
dense = perfmodel.sensitivities("cublas", m, 8, k, 0.0)
print(
    "dense: "
    + ", ".join(f"{name} {100 * value:+.1f}%" for name, value in sorted(dense.items(), key=lambda x: x[1])[:2])
)
assert min(dense, key=lambda name: dense[name]) == "dram bandwidth"

# %% [markdown]
# The same kernel on faster memory: the floor stays. These are extrapolations, and the predictions say so.

# %%
for gpu in ("a100-80gb", "h100-sxm", "h200"):
    speedup = (
        perfmodel.predict("cublas", m, 8, k, 0.8, gpu).seconds
        / perfmodel.predict("flash-llm", m, 8, k, 0.8, gpu).seconds
    )
    ceiling = (
        perfmodel.predict("cublas", m, 8, k, 0.8, gpu).seconds
        / perfmodel.predict("flash-llm", m, 8, k, 1.0, gpu).seconds
    )
    notes = perfmodel.predict("flash-llm", m, 8, k, 0.8, gpu).notes
    print(f"{gpu:10} speed-up over dense at 80 %: {speedup:.2f}x; with no weights at all: {ceiling:.2f}x {notes[:1]}")

# %% [markdown]
# ## Exercises
#
# 1. Halve the instructions per step of the ten-line model. From which sparsity on does the time fall by a tenth or more? Why never by half?
# 2. Write a JSON description of a GPU with twice the A100's bandwidth (`perfmodel.load("mine.json")`) and predict Flash-LLM's speed-up over dense at 80 % on it. What happens if you claim 1 ms of DRAM latency?
# 3. [Bitmap](glossary.md#bitmap) weights need 0.525 bytes per weight at 80 %, [tiled-CSL](glossary.md#tiled-csl) 0.8. How many warp instructions per tile of 128 × 64 may a bitmap kernel spend on an A100 before instructions, and not bytes, decide?
#
# <details><summary>Answers</summary>
#
# 1. From about 80 % on: there the time falls by 14 %, at 60 % by only 2 %, at 90 % by 28 %. Never by half, because [barriers](glossary.md#barrier) and the call itself remain.
# 2. 1.10x instead of 1.96x: dense time halves, Flash-LLM's stays at its floor. A latency of 1 ms is refused: "dram_latency = 1410000 is impossible".
# 3. Bytes need 0.525 · 8,192 / 1.72e12 s times the 41,472 tiles = 104 µs; the call 14.5 µs. In the same time a multiprocessor issues about 400 warp instructions a tile (the cell computes it), which is less than the 982 of Flash-LLM's kernel: on an A100 the bitmap must be lean.
#
# </details>

# %%
halved = 14.5e-6 + (memory**6 + (issue / 2 + waiting) ** 6) ** (1 / 6)  # exercise 1
saved = dict(zip(sparsity.tolist(), (1 - halved / ours).tolist(), strict=True))
print({f"{s:.0%}": f"{share:.0%}" for s, share in saved.items()})
assert saved[0.6] < 0.05 < 0.1 < saved[0.8] < saved[0.9] < 0.5

import tempfile
from pathlib import Path

description = json.loads((DATA / "gpu_a100-80gb.json").read_text())  # exercise 2
description |= {"dram_peak_gbs": 2 * description["dram_peak_gbs"], "dram_read_gbs": 2 * description["dram_read_gbs"]}
with tempfile.TemporaryDirectory() as folder:
    mine = Path(folder) / "mine.json"
    mine.write_text(json.dumps(description))
    ratio = (
        perfmodel.predict("cublas", m, 8, k, 0.8, mine).seconds
        / perfmodel.predict("flash-llm", m, 8, k, 0.8, mine).seconds
    )
    assert round(ratio, 2) == 1.10
    mine.write_text(json.dumps(description | {"dram_latency": 1_410_000}))
    try:
        perfmodel.load(mine)
    except ValueError as refused:
        print(refused)
    else:
        raise AssertionError("a millisecond of latency must be refused")

tiles = m * k / 8192  # exercise 3: issue time equal to the time of the bytes, two blocks of four warps resident
bitmap_bytes = 0.525 * m * k / BANDWIDTH
allowed = (bitmap_bytes - waiting) * HERTZ / (tiles_per_sm / 4 * (3.8 / 2))
print(
    f"{bitmap_bytes * 1e6:.0f} us for the bytes allow {allowed:.0f} warp instructions a tile; Flash-LLM spends {per_tile[2]:.0f}"
)
assert 0 < allowed < per_tile[2]

# %% [markdown]
# ## Summary
#
# Time is the soft maximum of what memory delivers and what the multiprocessors execute, plus waves, barriers and the call itself. At 60 % sparsity Flash-LLM is bound by bytes, at 90 % by instructions: a floor that
# only a leaner kernel removes. Next: [from kernels to dollars](21_from_kernels_to_dollars.ipynb).
