# %% [markdown]
# # Why skinny matmuls starve Tensor Cores, and what loading sparse buys
#
# *A language model answers one token at a time. Why does a GPU that can do 312 trillion operations a second spend most of that time waiting?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, flow, show

show(
    flow(
        ["weights,\none in five stored", "a dense tile in\nshared memory", "Tensor Cores", "8 columns\nof results"],
        ["load as sparse", "multiply the zeros too", ""],
    ),
    "Four boxes: stored weights are loaded as sparse, become a dense tile on chip, go through Tensor Cores with all their zeros, and give eight columns.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | NumPy; no CUDA |
# | Time | 30 minutes |
# | A common misconception | "Skipping the zeros saves the time." On Tensor Cores multiplying zeros is free here; it is *moving* them that costs. |
#
# ## You will learn
#
# 1. to tell from a matmul's shape whether arithmetic or memory limits it;
# 2. how many bytes a pruned weight matrix needs in four formats, and what no format can beat;
# 3. what "[load as sparse](glossary.md#lscd-load-as-sparse-compute-as-dense), compute as dense" does, by running such a [kernel](glossary.md#kernel), instruction by instruction, without a GPU.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Inference multiplies a large weight matrix A (M × K) with a few columns of activations B (K × N): N is the number of sequences answered together, 8 to 64. Prune A, store
# only what is left, rebuild a dense tile close to the arithmetic, multiply it as if it were dense.

# %%
import numpy as np

rng = np.random.default_rng(seed=1)
A = rng.standard_normal((256, 256)).astype(np.float16)
A[rng.random(A.shape) < 0.8] = 0  # 80 % sparse: this is what pruning leaves
B = rng.standard_normal((256, 8)).astype(np.float16)  # skinny: 8 columns

rows, columns = np.nonzero(A)  # load as sparse: values and places only
values = A[rows, columns]
tile = np.zeros_like(A)
tile[rows, columns] = values  # rebuild the dense tile on chip
C = tile.astype(np.float32) @ B.astype(np.float32)  # compute as dense
assert np.array_equal(C, A.astype(np.float32) @ B.astype(np.float32))
print(f"stored {len(values)} of {A.size} weights; the product is the same")

# %% [markdown]
# ## Build it
#
# ### Arithmetic or memory?
#
# The product does $2MNK$ floating-point operations and must move at least $2(MK + KN + MN)$ bytes in FP16. Their quotient is the *[arithmetic intensity](glossary.md#arithmetic-intensity)*; `reference.spmm` holds the product itself. For A with a compression ratio $CR$ it is
#
# $$ I = \frac{MNK}{MK/CR + KN + MN} \;\approx\; N \cdot CR \quad\text{FLOP per byte, for skinny } N. $$
#
# An A100 (80 GB) is cited with 312 TFLOP/s on its [Tensor Cores](glossary.md#tensor-core) and 2039 GB/s of memory bandwidth: it needs 153 FLOP per byte to be busy. A matmul with N = 16 offers about 16.

# %%
PEAK = 312e12  # FLOP/s, FP16 Tensor Cores, cited: NVIDIA A100 data sheet
BANDWIDTH = 2039e9  # bytes/s, cited: the same


def intensity(m: int, n: int, k: int, compression: float = 1.0) -> float:
    """FLOP per byte of C = A B in FP16, each operand moved once."""
    return 2 * m * n * k / (2 * (m * k / compression + k * n + m * n))


shape = (36864, 9216)  # the first MLP matrix of OPT-66B
widths = 2.0 ** np.arange(0, 13)
figure, axis = canvas()
for compression, name in ((1, "dense"), (2.5, "80 % sparse, tiled-CSL"), (5, "90 % sparse, tiled-CSL")):
    attainable = [min(PEAK, BANDWIDTH * intensity(shape[0], n, shape[1], compression)) / 1e12 for n in widths]
    axis.loglog(widths, attainable, label=name)
axis.axvspan(8, 64, alpha=0.12, color="grey")
axis.set(xlabel="N, columns of B", ylabel="attainable TFLOP/s", title="Roofline of an A100: the grey band is decoding")
axis.legend()
show(figure, "Attainable TFLOP/s against N: proportional to N until 312; sparse weights reach the roof at smaller N.")
print(f"needed: {PEAK / BANDWIDTH:.0f} FLOP/byte; offered at N = 16: {intensity(*shape[:1], 16, shape[1]):.1f}")

# %% [markdown]
# In the grey band a dense product leaves the Tensor Cores more than half idle: time is bytes of A divided by bandwidth. **Fewer bytes is faster, and multiplying zeros costs nothing**, until the
# line meets the roof.
#
# ### How many bytes?
#
# With [density](glossary.md#density) $d = 1 - \text{sparsity}$, bytes per element of A: dense 2; CSR with 16-bit columns $4d$ (and row pointers); [tiled-CSL](glossary.md#tiled-csl) $4d$; a [bitmap](glossary.md#bitmap) $2d + 1/8$. No encoding of random positions beats the
# [entropy floor](glossary.md#entropy-floor) $2d + H(d)/8$, $H$ in bits.

# %%
from loadsparse.reference import formats, pruning, weights

names = sorted(weights.sample())
name = next(name for name in names if "ffn" in name or "mlp" in name)
real = weights.sample()[name]
print(f"{name}: {real.shape}, dequantised 4-bit weights of a real language model")

levels = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
measured = []
for sparsity in levels:
    pruned = pruning.magnitude(real, sparsity)
    measured.append(formats.TiledCSL.encode(pruned).nbytes / pruned.size)
density = 1 - levels
entropy = -(density * np.log2(density) + (1 - density) * np.log2(1 - density))
figure, axis = canvas()
axis.plot(levels, np.full(5, 2.0), label="dense")
axis.plot(levels, measured, label="tiled-CSL, encoded from real weights", marker="o")
axis.plot(levels, 2 * density + 1 / 8, label="bitmap, 2d + 1/8")
axis.plot(levels, 2 * density + entropy / 8, label="entropy floor, 2d + H(d)/8")
axis.set(xlabel="sparsity", ylabel="bytes per weight", ylim=(0, 2.2), title="What must be moved")
axis.legend()
show(
    figure,
    "Bytes per weight against sparsity: dense 2, tiled-CSL falls from 2 to 0.4, bitmap and entropy floor lie below.",
)
assert abs(measured[3] - 0.8) < 0.05  # 4 bytes x 20 % plus padding and offsets

# %% [markdown]
# ## Check it against the oracle
#
# Now the real thing. `lscd` is the Flash-LLM kernel written in Numba-CUDA. NVIDIA's compiler turns it into [PTX](glossary.md#ptx), the assembly of GPUs; our simulator executes that PTX with the arithmetic of an A100's
# Tensor Cores; and the result must equal the [oracle](glossary.md#oracle) in **every bit**.

# %%
from loadsparse.gpu import kernels
from loadsparse.reference import spmm

lscd = kernels.get("lscd")
part = pruning.magnitude(real, 0.8)[:256, :512]
activations = rng.standard_normal((part.shape[1], 8)).astype(np.float16)
launch = lscd.plan(lscd.encode(part), activations, arch="sm_80")
product, report = launch.run()
oracle = spmm.lscd(part, activations, arch="sm_80", splits=launch.splits)
assert np.array_equal(product.view(np.uint16), oracle.view(np.uint16))
assert report.ok
print(
    f"equal in all {product.size} elements; {report.instructions:,} warp instructions executed; hazards: {len(report.hazards)}"
)

# %% [markdown]
# ## Numbers
#
# What did hardware say? Milliseconds on an A100, N = 8, for the matrix above, *cited* from the published measurements of Flash-LLM; beside them the time that the bytes alone need at
# 1.72 TB/s, the best that cuBLAS reaches on such shapes.

# %%
sparsity = np.array([0.60, 0.70, 0.80, 0.85, 0.90, 0.95, 0.98, 0.99, 1.00])
flash_llm = np.array([0.3585, 0.2675, 0.219, 0.195, 0.175, 0.161, 0.149, 0.144, 0.1365])  # ms, cited
cublas = 0.402  # ms, cited
floor = 4 * (1 - sparsity) * shape[0] * shape[1] / 1.72e12 * 1e3
figure, axis = canvas()
axis.plot(sparsity, np.full(len(sparsity), cublas), label="cuBLAS, dense (cited)")
axis.plot(sparsity, flash_llm, marker="o", label="Flash-LLM (cited)")
axis.plot(sparsity, floor, label="its bytes of A at 1.72 TB/s")
axis.set(xlabel="sparsity", ylabel="ms", title="36864 x 9216, N = 8, A100")
axis.legend()
show(
    figure,
    "Time against sparsity: cuBLAS flat at 0.402 ms, Flash-LLM falls from 0.36 to 0.14 ms, its bytes fall to zero.",
)
assert np.all(np.diff(flash_llm) < 0)
assert np.all(np.round(floor[:2] / flash_llm[:2], 2) >= 0.88)
print(f"speed-up at 80 %: {cublas / flash_llm[2]:.2f}x; with no weights at all: {cublas / flash_llm[-1]:.2f}x")

# %% [markdown]
# At 60 to 70 % the bytes alone explain 88 % of the time. With no nonzero at all a third of the dense time remains: zeroing tiles, [barriers](glossary.md#barrier), multiplying zeros. That floor is what a better kernel must remove, too.

# %% [markdown]
# ## Exercises
#
# 1. At which N does the arithmetic of the redundant zeros become the limit, dense and at 80 %? Read it off the first figure, then derive it from the formula.
# 2. A 4-bit dense matrix needs 0.625 bytes per weight (with its scales). From which [sparsity](glossary.md#sparsity) on does tiled-CSL in FP16 move fewer bytes? The bitmap?
# 3. Change `arch` to `"sm_90"` in the check above. Do the bits of the product change? Why may they?
#
# <details><summary>Answers</summary>
#
# 1. Dense at N = 157, at 80 % sparsity at N = 63. From $I(N) = 153$: $N\,(1 - 153\,(1/M + 1/K)) = 153/CR$, with CR = 2.5.
# 2. 4d < 0.625 from 84.4 % sparsity on; 2d + 1/8 < 0.625 from 75 % on.
# 3. Here not one of 2,048 elements changes: 4-bit weights have short significands, so little is cut off, and the result is rounded to 16 bits. They may, because an H100 adds 16 products at once and an A100 twice 8; with random weights some do, the cell counts how many.
#
# </details>

# %%
ridge = PEAK / BANDWIDTH
for compression, answer in ((1, 157), (2.5, 63)):
    exact = ridge / compression / (1 - ridge * (1 / shape[0] + 1 / shape[1]))
    assert answer - 1 < exact <= answer
assert abs(1 - 0.625 / 4 - 0.844) < 0.001
assert 1 - (0.625 - 1 / 8) / 2 == 0.75
drawn = pruning.magnitude(rng.standard_normal(part.shape).astype(np.float16), 0.8)
differing = []
for weight in (part, drawn):
    c80, c90 = (lscd.plan(lscd.encode(weight), activations, arch=arch).run()[0] for arch in ("sm_80", "sm_90"))
    differing.append(int(np.count_nonzero(c80 != c90)))
print(f"exercise 3: {differing[0]} of {product.size} elements differ; with random weights {differing[1]}")
assert differing[0] == 0 < differing[1]

# %% [markdown]
# ## Summary
#
# [Decoding](glossary.md#decoding) multiplies large weights with few columns: about N FLOP per byte, a tenth of what Tensor Cores need. Time is bytes, so store fewer and rebuild the tile on chip. Next: [threads, blocks, barriers](03_threads_blocks_barriers.ipynb), the first step
# towards writing such a kernel. The Flash-LLM paper (arXiv 2309.10285), sections 3 and 4, tells the same story from above. The other door begins at [an MoE layer in thirty lines](28_an_moe_layer_in_thirty_lines.ipynb).
