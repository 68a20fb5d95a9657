# %% [markdown]
# # One mma by hand
#
# *One instruction multiplies a 16 × 16 matrix by a 16 × 8 one: 2,048 multiplications. Thirty-two threads each bring a few registers. Who holds what, and what exactly comes out?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, cells, show

from loadsparse.reference import tensorcore
from loadsparse.reference.tensorcore import fragments

shape = fragments.M16N8K16
lane_of = np.zeros((16, 16), int)
lane_of[shape.a.row, shape.a.column] = np.arange(32)[:, None]
register_of = np.zeros((16, 16), int)
register_of[shape.a.row, shape.a.column] = np.arange(8)[None, :] // 2
figure, axis = canvas(width=7.5, height=4.2)
cells(axis, lane_of, register_of / 3, [f"m {i}" for i in range(16)], [f"k {j}" for j in range(16)])
show(
    figure,
    "The 16 by 16 matrix A with the lane that holds each element: lane 4 g + t has row g, columns 2 t and 2 t + 1, and the same 8 rows down and 8 columns on.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [threads, blocks, barriers](03_threads_blocks_barriers.ipynb); binary floating point |
# | Time | 35 minutes |
# | A common misconception | "The sum in a Tensor Core is a float32 sum, in some order." It is no sequence of additions at all: all products are aligned to the largest one, cut off, and added at once, and the rule differs between GPU generations. |
#
# ## You will learn
#
# 1. which [lane](glossary.md#lane) holds which element of A, B and C in `mma.m16n8k16`, and to deal a matrix out yourself;
# 2. to execute one such instruction in a [kernel](glossary.md#kernel) and to predict every bit of its result;
# 3. why an A100 and an H100 give different last bits, and which is nearer.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# The numbers above are lanes, the greys the lane's four [registers](glossary.md#register) (two halves in each). [Tensor Cores](glossary.md#tensor-core) compute $d = c + \sum_k a_k b_k$ with one alignment for all terms: find the largest exponent $E$, cut every term to a multiple of $2^{E-24}$, and add the integers exactly. Here is one [block](glossary.md#block-thread-block) of eight products on an A100:

# %%


def group_sum(a, b, c, fraction=24):
    """d = c + sum of a b, as an A100 adds up to eight half-precision products (normal, finite numbers)."""
    exponent = [np.frexp(x)[1] - 1 + np.frexp(y)[1] - 1 for x, y in zip(a, b, strict=True) if x * y]
    exponent += [np.frexp(c)[1] - 1] if c else []
    unit = 2.0 ** (max(exponent) - fraction)
    terms = [float(x) * float(y) for x, y in zip(a, b, strict=True)] + [float(c)]
    total = sum(int(term / unit) for term in terms)  # int() cuts toward zero
    spare = max(0, abs(total).bit_length() - 24)  # float32 keeps 24 bits, cut off again
    return np.float32(np.sign(total) * (abs(total) >> spare << spare) * unit)


tiny = np.float16([2**-12] * 8), np.float16([2**-13] * 8)
print("1 + 8 x 2^-25 =", repr(group_sum(*tiny, 1.0)), "on an A100; exactly", repr(np.float32(1 + 8 * 2.0**-25)))
assert group_sum(*tiny, 1.0) == 1

# %% [markdown]
# Each product is half of the unit $2^{-24}$, and half a unit is cut off, eight times.
#
# ## Build it
#
# ### Deal the cards
#
# `Fragment.to_registers` in `loadsparse.reference.tensorcore.fragments` deals a matrix out to 32 lanes, and `to_matrix` collects it again. The layout itself is not a table but a sentence: *each bit of the lane number is one bit of the row or the column*.

# %%
rng = np.random.default_rng(seed=6)
A, B = rng.standard_normal((16, 16)).astype(np.float16), rng.standard_normal((16, 8)).astype(np.float16)
C = rng.standard_normal((16, 8)).astype(np.float32)
a = shape.a.to_registers(A.view(np.uint16))
b = shape.b.to_registers(B.view(np.uint16))
c = shape.c.to_registers(C.view(np.uint32))
print("registers per lane:", a.shape[1], "for A,", b.shape[1], "for B,", c.shape[1], "for C")
print("lane bits of A:", shape.a.lane, " bits of the element number:", shape.a.element)
lane, g, t = 22, 22 // 4, 22 % 4
assert a[lane, 0] == int(A.view(np.uint16)[g, 2 * t]) | int(A.view(np.uint16)[g, 2 * t + 1]) << 16
assert np.array_equal(shape.c.to_matrix(c).view(np.float32), C)

# %% [markdown]
# B and C are dealt in the same spirit. One lane's share of the three, lane 22:

# %%
figure, axes = canvas(columns=3, width=9, height=3.4)
for axis, fragment, name in zip(axes, (shape.a, shape.b, shape.c), "ABC", strict=True):
    held = np.full(fragment.shape, "")
    held[fragment.row[lane], fragment.column[lane]] = [f"{i}" for i in range(fragment.row.shape[1])]
    cells(axis, held, held != "", size=6)
    axis.set_xlabel(f"{name}: elements of lane {lane}")
show(
    figure, "Lane 22 holds eight elements of A in rows 5 and 13, four of B in column 5, and four of C in rows 5 and 13."
)

# %% [markdown]
# ### Run it
#
# A kernel of one [warp](glossary.md#warp): each lane loads its registers, one `mma.sync`, each lane stores its four results. `mma_m16n8k16` in `loadsparse.gpu.intrinsics` emits the instruction.

# %%
from numba import cuda

from loadsparse.gpu import intrinsics, simulator

multiply = intrinsics.mma_m16n8k16["f16"]


def one_mma(a, b, c, d):
    lane = cuda.threadIdx.x
    left = (a[lane, 0], a[lane, 1], a[lane, 2], a[lane, 3])
    right = (b[lane, 0], b[lane, 1])
    sums = multiply((c[lane, 0], c[lane, 1], c[lane, 2], c[lane, 3]), left, right)
    for i in range(4):
        d[lane, i] = sums[i]


d = np.zeros((32, 4), np.float32)
report = simulator.run(one_mma)[1, 32](a, b, c.view(np.float32), d)
assert report.ok
D = shape.c.to_matrix(d.view(np.uint32)).view(np.float32)
(row,) = [row for row in report.lines if row["ptx"].startswith("mma")]
print(row["ptx"][:60], "... executed", row["executions"], "time")
print("largest difference from float64:", np.abs(D - (A.astype(float) @ B.astype(float) + C)).max())

# %% [markdown]
# ## Check it against the oracle
#
# Every bit, from our ten lines: on an A100 (`sm_80`) the 16 products are two groups of eight, one after the other. `tensorcore.mma` is the library's [oracle](glossary.md#oracle) for the same instruction.

# %%
by_hand = np.array(
    [[group_sum(A[i, 8:], B[8:, j], group_sum(A[i, :8], B[:8, j], C[i, j])) for j in range(8)] for i in range(16)]
)
oracle = tensorcore.mma(a, b, c, shape="m16n8k16", arch="sm_80")
assert np.array_equal(D, by_hand)
assert np.array_equal(d.view(np.uint32), oracle)
print(f"all {D.size} elements agree in every bit: kernel, ten lines, oracle")

# %% [markdown]
# The oracle also knows what our lines leave out: subnormal numbers, infinities, overflow, other formats. `tensorcore.dot_add` has been compared with words recorded on real GPUs.
#
# ## Numbers
#
# $$ d = c + \sum_k a_k b_k,\quad \text{each term cut to a multiple of } 2^{E-F}, \qquad F = 24 \text{ (A100)},\; 25 \text{ (H100)} $$
#
# `tensorcore.dot_add` takes `arch`. How far from the exact sum is each machine, and an ordinary float32 loop? Errors in units of the last place of the largest product, for 4,000 dot products of length 16.

# %%
count = 4000
x = rng.standard_normal((count, 16)).astype(np.float16)
y = rng.standard_normal((count, 16)).astype(np.float16)
zero = np.zeros(count, np.uint32)
products = x.astype(float) * y.astype(float)  # exact
exact = products.sum(axis=1)
place = np.spacing(np.abs(products).max(axis=1).astype(np.float32)).astype(float)
results = {}
for arch, name in (("sm_80", "A100"), ("sm_90", "H100")):
    bits = tensorcore.dot_add(x.view(np.uint16), y.view(np.uint16), zero, arch=arch, in_format="f16", out_format="f32")
    results[name] = bits.view(np.float32)
loop = np.zeros(count, np.float32)
for k in range(16):
    loop = loop + x[:, k].astype(np.float32) * y[:, k].astype(np.float32)
results["float32 loop"] = loop

figure, axis = canvas(height=3.2)
bins, errors = np.linspace(-6, 6, 49), {}
for name, values in results.items():
    errors[name] = (values.astype(float) - exact) / place * np.sign(exact)  # negative: toward zero
    axis.step(bins[:-1], np.histogram(errors[name], bins)[0], where="post", label=name)
    print(f"{name:13} mean error {errors[name].mean():+.2f} units, mean size {np.abs(errors[name]).mean():.2f}")
axis.set(xlabel="error in units, negative is toward zero", ylabel="dot products", title="Cutting off is biased")
axis.legend()
show(
    figure,
    "Histograms of errors: the float32 loop is wide and centred on zero; A100 leans to the negative side; H100 is narrow, just below zero.",
)
assert errors["A100"].mean() < -0.1
assert errors["H100"].mean() < -0.1
assert abs(errors["float32 loop"].mean()) < 0.05
print(f"A100 and H100 differ in {np.mean(results['A100'] != results['H100']):.0%} of the results")

# %% [markdown]
# So an oracle for a Tensor Core kernel must know the architecture, and "close to NumPy" is not a check: it would let real bugs through, or reject right kernels.
#
# ## Exercises
#
# 1. Which lane and which of its registers hold element (11, 6) of A? And of C? Why does nobody hold (11, 9) of C?
# 2. What does `1 + 8 x 2^-25` give on an H100? Ask `tensorcore.dot_add`, then explain it with F = 25.
# 3. How many `mma.m16n8k16` does a product with M = 36,864, K = 9,216 and N = 8 need? With N = 9?
#
# <details><summary>Answers</summary>
#
# 1. A: row 11 = 8 + 3, so g = 3; column 6 = 2 · 3, so t = 3: lane 4 · 3 + 3 = 15, register 1 (the lower row, the left columns), low half. C: row 11, column 6: again lane 15, its element 2. C has only 8 columns.
# 2. 1.0000002384 = 1 + 2⁻²²: the unit is 2⁻²⁵, so nothing is cut off.
# 3. 36,864 / 16 · 9,216 / 16 · 1 = 1,327,104; with N = 9 twice as many, 2,654,208: the second 8 columns hold one that counts.
#
# </details>

# %%
assert (lane_of[11, 6], register_of[11, 6]) == (15, 1)
assert [(shape.c.row[15, i], shape.c.column[15, i]) for i in range(4)].index((11, 6)) == 2
hopper = tensorcore.dot_add(
    np.pad(tiny[0], (0, 8)).view(np.uint16)[None],
    np.pad(tiny[1], (0, 8)).view(np.uint16)[None],
    np.float32([1]).view(np.uint32),
    arch="sm_90",
    in_format="f16",
    out_format="f32",
)
assert hopper.view(np.float32)[0] == 1 + 2.0**-22
assert (36864 // 16) * (9216 // 16) == 1_327_104

# %% [markdown]
# ## Summary
#
# A [fragment](glossary.md#fragment) layout is a bijection of bits: lane and register on one side, row and column on the other. The sum is one aligned, truncated addition per group of products, and the group and the cut depend on the generation. With both known, a kernel's result can be predicted in every bit. Next: [a warp's view](07_a_warps_view.ipynb), how
# 32 lanes fetch these fragments from [shared memory](glossary.md#shared-memory).
