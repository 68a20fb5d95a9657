# %% [markdown]
# # Sparse experts on sparse weights
#
# *Prune the experts until four of five weights are gone. Balance the tokens until all experts are equally busy. Two savings: do they multiply?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, cells, flow, show

show(
    flow(
        ["tokens", "choose:\nscores + bias", "sort by\nexpert", "sparse weights,\none launch", "add up,\nweighted"],
        ["router", "", "N of each expert", "scatter"],
    ),
    "Five boxes: tokens are scored by the router, choose with a bias, are sorted by expert, multiplied with sparse weights in one launch, and added up again.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [from kernels to dollars](21_from_kernels_to_dollars.ipynb) and [balancing in thirty lines](29_balancing_in_thirty_lines.ipynb): both doors |
# | Time | 35 minutes |
# | A common misconception | "Balance makes a mixture of experts faster." It does where everybody waits for the busiest GPU. Where a few tokens decode on one GPU it makes the layer *slower*, because more experts must be read. |
#
# ## You will learn
#
# 1. to run a [mixture-of-experts](glossary.md#mixture-of-experts-mixture-of-experts-moe) layer whose [experts](glossary.md#expert) are pruned, by one [kernel](glossary.md#kernel) launch for all experts;
# 2. to count what balance changes: bytes that are read, and the load of the busiest expert;
# 3. where balance helps, is neutral and hurts, where sparse weights do, and under which assumptions we say so.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# After the [router](glossary.md#router) has spoken, the layer is one *grouped* product: each expert's weights times the columns of its own tokens. The tokens are sorted by expert; an expert's share of them is the N of its product, from 0 to many.

# %%
import numpy as np

rng = np.random.default_rng(seed=40)
E, M, K_DIM = 4, 32, 32
weights = [rng.standard_normal((M, K_DIM)) * (rng.random((M, K_DIM)) < 0.2) for _ in range(E)]
counts = np.array([5, 0, 2, 1])  # tokens of each expert
columns = rng.standard_normal((K_DIM, counts.sum()))
edges = np.concatenate([[0], np.cumsum(counts)])
product = np.concatenate([weights[e] @ columns[:, edges[e] : edges[e + 1]] for e in range(E)], axis=1)
print(
    "read",
    int((counts > 0).sum()),
    "of",
    E,
    "experts; the busiest has",
    counts.max(),
    "tokens, the mean is",
    counts.mean(),
)

# %% [markdown]
# That line holds both regimes. Reading costs *the number of experts that were chosen at all*. Waiting costs *the tokens of the busiest one*. Balance raises the first and lowers the second.
#
# ## Build it
#
# ### A layer of pruned experts
#
# Sixteen experts, two per token, all weights pruned to 80 %. All tokens have something in common (real ones do), so the untrained router already has favourites.

# %%
from loadsparse.gpu import moe as gpu_moe
from loadsparse.reference import balancing, moe, pruning, routing

E, K, D, H = 16, 2, 128, 64


def pruned(*shape):
    """float16 weights, 80 % zeros."""
    return pruning.magnitude((rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float16), 0.8)


def tokens(count):
    return (rng.standard_normal((count, D)) + common).astype(np.float16)


common = 0.8 * rng.standard_normal(D)
experts = tuple(moe.Expert(pruned(H, D), pruned(H, D), pruned(D, H)) for _ in range(E))
layer = moe.Layer(rng.standard_normal((E, D)) / np.sqrt(D), (), experts, K)
sparse = gpu_moe.SparseLayer.encode(layer, "grouped_lscd")
dense_bytes = 2 * E * 3 * H * D
print(f"experts: {sparse.nbytes:,} bytes encoded, {dense_bytes:,} dense in FP16")
x = tokens(16)
plain = sparse.forward(x)
assert all(report.ok for report in plain.reports)
print("loads of 16 tokens:", plain.loads)

# %% [markdown]
# ### Balance it
#
# The [sign rule](glossary.md#sign-rule), on other tokens, as in [balancing in thirty lines](29_balancing_in_thirty_lines.ipynb). The [bias](glossary.md#bias) then stays fixed: it only helps to choose, so it costs nothing at inference.

# %%
rule = balancing.SignBias(rate=0.005)
state = rule.init(E)
for _ in range(200):
    seen = moe.forward(layer, tokens(64), state.bias).loads
    state = rule.step(state, seen)
many = tokens(1024)
before, after = (moe.forward(layer, many, bias).loads for bias in (None, state.bias))
print(
    f"MaxVio on 1,024 fresh tokens: {routing.max_violation(before):.2f} without, {routing.max_violation(after):.2f} with the bias"
)
assert routing.max_violation(after) < 0.3 * routing.max_violation(before)
figure, axis = canvas(height=2.8)
axis.bar(np.arange(E) - 0.2, before, width=0.4, color="#cccccc", edgecolor="black", label="without bias")
axis.bar(np.arange(E) + 0.2, after, width=0.4, color="white", edgecolor="black", hatch="//", label="with bias")
axis.axhline(1024 * K / E, color="black", linestyle="--")
axis.set(xlabel="expert", ylabel="tokens of 1,024", title="Loads of the sparse layer")
axis.legend()
show(
    figure,
    "Loads of sixteen experts: grey bars without bias range from almost none to several hundred; hatched bars with bias stand near the dashed mean.",
)

# %% [markdown]
# ### Count what changes
#
# The same 16 tokens, decoded together, without and with the bias. *Counted* by executing the launches: [warp](glossary.md#warp) instructions, and bytes loaded from [global memory](glossary.md#global-memory).

# %%
balanced = sparse.forward(x, state.bias)
totals = {}
for name, run in (("without", plain), ("with", balanced)):
    bytes_read = sum(report.metrics["global_bytes_ld"] for report in run.reports)
    totals[name] = (int((run.loads > 0).sum()), bytes_read, int(run.loads.max()))
    instructions = sum(report.instructions for report in run.reports)
    print(
        f"{name:8} bias: {totals[name][0]:2} experts read, {bytes_read:,} bytes, {instructions:,} warp instructions, busiest {run.loads.max()} tokens"
    )
assert totals["with"][0] > totals["without"][0]  # more experts ...
assert totals["with"][1] > totals["without"][1]  # ... more bytes ...
assert totals["with"][2] < totals["without"][2]  # ... and a less busy busiest one

# %% [markdown]
# ## Check it against the oracle
#
# Bit for bit: the grouped kernel adds in the order of `spmm.grouped`, so every element of its product equals that [oracle](glossary.md#oracle)'s. The whole layer, with its float16 intermediate, is then close to `moe.forward` in float64.

# %%
from loadsparse.gpu import kernels
from loadsparse.reference import spmm

grouped = kernels.get("grouped_lscd")
downs = [expert.down for expert in experts]
counts = balanced.loads
batch = rng.standard_normal((H, counts.sum())).astype(np.float16)
launch = grouped.plan(grouped.encode(downs), batch, counts)
result, report = launch.run()
oracle = spmm.grouped(downs, batch, counts, arch="sm_80", splits=launch.splits)
assert report.ok
assert np.array_equal(result.view(np.uint16), oracle.view(np.uint16))
exact = moe.forward(layer, x, state.bias)
error = np.abs(balanced.y - exact.y).max() / np.abs(exact.y).max()
assert np.array_equal(balanced.loads, exact.loads)
assert error < 2.0**-9
print(
    f"{result.size} elements equal in every bit; the layer is within {error:.1e} of float64, relative to its largest output"
)

# %% [markdown]
# ## Numbers
#
# Now time, which nobody counted: *predicted* by `perfmodel.regimes` for one layer of DeepSeekMoE-16B (64 experts, 6 per token) on A100s. **Assumptions:** the experts of a layer run as one grouped kernel per matrix, spread evenly over the [multiprocessors](glossary.md#multiprocessor-sm); experts that nobody chose are neither read nor computed; popularity is 1/rank without a bias; experts are placed
# without regard to popularity; activations cross NVLink once in each direction; no overlap of exchange and arithmetic. No GPU has confirmed these numbers.
#
# First balance: time with a balancing bias over time without, weights 80 % sparse.

# %%
from loadsparse.gpu.perfmodel import regimes

batches, gpus = (1, 4, 16, 64, 256, 1024, 4096), (1, 8)
words = {"helps": "helps", "hurts": "hurts", "neutral": "even"}
grid = [[regimes.regime(t, g, "proportional", "flash-llm", 0.8) for t in batches] for g in gpus]
figure, axis = canvas(width=8, height=1.8)
text = [[f"{cell.relative:.2f}\n{words[cell.verdict]}" for cell in row] for row in grid]
shade = [[abs(cell.relative - 1) / 0.3 for cell in row] for row in grid]
cells(
    axis,
    text,
    shade,
    [f"{g} GPU{'s' if g > 1 else ''}" for g in gpus],
    [f"{t} token{'s' if t > 1 else ''}" for t in batches],
)
show(
    figure,
    "Relative time of balanced routing: above 1, it hurts, for 4 to 64 tokens on one GPU and for 4 and 16 on eight; below 1, it helps, for 256 tokens and more on eight.",
)
verdicts = {(cell.tokens, cell.gpus): cell.verdict for row in grid for cell in row}
assert verdicts[16, 1] == "hurts"
assert verdicts[1, 1] == "neutral"
assert verdicts[4096, 8] == "helps"
assert verdicts[4096, 1] == "neutral"
for t, g in ((16, 1), (4096, 8)):
    free, even = (regimes.regime(t, g, balancer, "flash-llm", 0.8) for balancer in (None, "proportional"))
    print(
        f"{t} tokens: {free.activated:.0f} experts read without, {even.activated:.0f} with balance; "
        f"MaxVio {free.max_violation:.2f} without, {even.max_violation:.2f} with"
    )

# %% [markdown]
# - **Hurts:** a few tokens decode together. Time is the bytes of the experts that were chosen, and balance spreads the choices: `Regime.activated` grows from 38 to 50 at 16 tokens.
# - **Neutral:** one token (it reads six experts, whichever), or so many on one GPU that all experts are read anyway and only the total counts. (In between, on one GPU, 0.94 and 1.04 come from rounding: each expert's tokens fill whole tiles of columns.)
# - **Helps:** many tokens on several GPUs. All wait for the busiest, and `Regime.max_violation` falls from 7.5 to 0.13.
#
# ### Per balancer, sparsity and format
#
# The same question for three balancers, four sparsities and three formats, in both regimes. Below 1 balance helps, within 2 % of 1 it is neutral, above 1 it hurts.

# %%
table = regimes.table()
cases = list(dict.fromkeys((cell.tokens, cell.gpus) for cell in table))
formats = {"cublas": "dense", "flash-llm": "tiled-CSL", "bitmap": "bitmap"}
found = {
    (
        f"{formats[cell.kernel]}{f' {cell.sparsity:.0%}' if cell.sparsity else ''}, {cell.balancer}",
        cell.tokens,
        cell.gpus,
    ): cell
    for cell in table
    if cell.balancer
}
labels = list(dict.fromkeys(label for label, _, _ in found))
figure, axis = canvas(width=8.4, height=4.6)
marks = {"helps": "", "neutral": " =", "hurts": " !"}
grid = [[found[label, t, g] for t, g in cases] for label in labels]
cells(
    axis,
    [[f"{cell.relative:.2f}{marks[cell.verdict]}" for cell in row] for row in grid],
    [[{"helps": 0, "neutral": 0.4, "hurts": 1.2}[cell.verdict] for cell in row] for row in grid],
    labels,
    [f"{t} tokens\n{g} GPU{'s' if g > 1 else ''}" for t, g in cases],
    size=7.5,
)
show(
    figure,
    "Fifteen rows of balancer and format, eight columns of tokens and GPUs: in every row balance hurts (!) at 16 tokens on one GPU, is neutral (=) at 4,096 there, and helps on eight GPUs from 512 tokens on.",
)
for row in grid:
    held = {(cell.tokens, cell.gpus): cell.verdict for cell in row}
    assert held[16, 1] == held[64, 1] == "hurts"
    assert held[4096, 1] == "neutral"
    assert held[512, 8] == held[4096, 8] == held[32768, 8] == "helps"

# %% [markdown]
# The regime decides, and the format how early balance pays. The balancers hardly differ: whichever learns the bias, as many experts are activated and the loads are nearly as even (`Regime.max_violation`; quantile balancing leaves a little more here). Dense weights are bound by bytes up to some hundred tokens per expert, so 512 tokens gain little; sparse kernels are bound by instructions much earlier and
# decode an expert's weights again for every 64 of its tokens, so a busy expert costs them more, even on one GPU.
#
# ### And sparse weights?
#
# The same question for the other saving: time with sparse weights over time with dense ones, both balanced.

# %%
rows = {}
for kernel, label in (("flash-llm", "tiled-CSL, 80 %"), ("bitmap", "bitmap, 80 %")):
    rows[label] = {
        g: [
            regimes.regime(t, g, "proportional", kernel, 0.8).seconds
            / regimes.regime(t, g, "proportional", "cublas", 0.0).seconds
            for t in batches
        ]
        for g in gpus
    }
figure, axis = canvas(height=3.2)
for label, found in rows.items():
    for g, marker in zip(gpus, "os", strict=True):
        axis.semilogx(batches, found[g], marker=marker, label=f"{label}, {g} GPU{'s' if g > 1 else ''}")
axis.axhline(1, color="black", linewidth=1)
axis.set(xlabel="tokens", ylabel="time / dense", title="Below 1 sparse weights help")
axis.legend(fontsize=8)
show(
    figure,
    "Relative time of sparse weights: 0.3 to 0.7 for up to 256 tokens, rising above 1 between 500 and 4,000 tokens, where arithmetic and not bytes decides.",
)
assert rows["bitmap, 80 %"][1][2] < 0.5 < 1 < rows["bitmap, 80 %"][1][-1]

# %% [markdown]
# Load-as-sparse-compute-as-dense saves bytes, not arithmetic. While products are [skinny](glossary.md#skinny) it wins; when each expert has hundreds of tokens the dense kernel is better, and the kernels' own instructions show.
#
# ### Do they multiply?
#
# If they did, the speed-up of both together would be the product of the two alone.

# %%
excess = []
for t, g in ((16, 1), (64, 8), (256, 8), (1024, 8), (4096, 8)):
    base, sparse_only, balance_only, both = (
        regimes.regime(t, g, balancer, kernel, sparsity).seconds
        for balancer, kernel, sparsity in (
            (None, "cublas", 0.0),
            (None, "bitmap", 0.8),
            ("proportional", "cublas", 0.0),
            ("proportional", "bitmap", 0.8),
        )
    )
    print(
        f"{t:5} tokens, {g} GPU{'s' if g > 1 else ' '}: sparse alone {base / sparse_only:.2f}x, balance alone {base / balance_only:.2f}x, "
        f"product {base / sparse_only * base / balance_only:.2f}x, together {base / both:.2f}x"
    )
    excess.append(sparse_only * balance_only / base / both)
assert min(excess) > 0.95
assert max(excess) < 1.14

# %% [markdown]
# Nearly (in the table within 14 %; where together is more than the product, balance has also spared the sparse kernel its repeated unpacking), and rarely in the same place: sparse weights win where products are skinny, balance wins where they are not. The point where both pay is narrow: some hundred tokens on several GPUs.
#
# ## Exercises
#
# 1. 64 experts, 6 per token, 16 tokens: how many experts does a perfectly uniform router activate on average? How many does the worst (or best?) one?
# 2. Where does balance change from hurting to helping on eight GPUs? Try 32, 64, 128, 256 tokens.
# 3. A server decodes 16 tokens on one GPU and [prefills](glossary.md#prefill) 4,096 on eight. Should the bias be the same? Does `choices` depend on it in a way that the model would notice?
#
# <details><summary>Answers</summary>
#
# 1. 64 · (1 − (1 − 6/64)¹⁶) = 50.8; the most concentrated one activates 6, and decodes fastest.
# 2. Between 32 and 128 tokens: the cell prints the relative times.
# 3. For speed alone, no bias in [decoding](glossary.md#decoding) and the balancing one in prefill. But the bias decides *which* experts answer, so the model that was trained with it computes something else without it: in the sparse layer above 12 of 16 tokens would choose other experts.
#
# </details>

# %%
assert round(64 * (1 - (1 - 6 / 64) ** 16), 1) == 50.8
crossing = {t: regimes.regime(t, 8, "proportional", "flash-llm", 0.8).relative for t in (32, 64, 128, 256)}
print({t: round(relative, 2) for t, relative in crossing.items()})
assert crossing[32] > 1 > crossing[128]
changed = (np.sort(plain.choices) != np.sort(balanced.choices)).any(axis=1).sum()
print(f"{changed} of {len(x)} tokens choose other experts with the bias")

# %% [markdown]
# ## Summary
#
# One grouped launch multiplies all sparse experts, exact in every bit, and each expert's tokens are the N of its product. Balance trades bytes read against waiting; sparse weights trade bytes against instructions. Which side wins is a matter of tokens and GPUs, and the model says where, under assumptions that a measurement may refute. Next: the [puzzles](README.md#puzzles), or teach it: [for teachers](teaching.md).
