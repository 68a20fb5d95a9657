# %% [markdown]
# # What happens in training
#
# *The theorems fix the scores and move the bias. Training moves both. What is left of balance, of the preference rule, and of the published trends?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, flow, show

show(
    flow(
        ["bytes", "router:\nscores + bias", "six of 64\nexperts", "loss", "weights move,\nthen the bias"],
        ["", "choose", "", "gradient and loads"],
    ),
    "Five boxes: bytes go to the router, which chooses six of 64 experts by score plus bias; the loss moves the weights, the loads move the bias.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [balancing in thirty lines](29_balancing_in_thirty_lines.ipynb) and [what the sign rule promises](32_what_the_sign_rule_promises.ipynb) |
# | Needs | `pip install -e '.[tutorials]'` (JAX and optax on the CPU are part of it) |
# | Time | 35 minutes |
# | A common misconception | "A balanced router has MaxVio 0 on every batch." No bias can give that: neighbouring tokens want the same experts. |
#
# ## You will learn
#
# 1. why a [router](glossary.md#router) that nobody balances collapses onto a few [experts](glossary.md#expert), and to check a trainer in JAX against a NumPy layer;
# 2. which theorems and which published trends appear in a model of 1.7 million weights, and how to tell noise from effect;
# 3. what [pruning](glossary.md#pruning) the trained experts costs in bits per byte and saves in bytes.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# An expert that is chosen is trained, an expert that is trained gets better, and the better one is chosen. Below, "better" is a number that grows by 0.01 for each share of the batch served. Nothing else prefers any expert.

# %%
import numpy as np

rng = np.random.default_rng(seed=3)


def train(u, learning=0.01, experts=8, k=2, steps=400, tokens=256):
    skill, bias = rng.normal(0, 0.01, experts), np.zeros(experts)
    for _ in range(steps):
        scores = 1 / (1 + np.exp(-skill - rng.normal(0, 0.5, (tokens, experts))))
        loads = np.bincount(np.argsort(-scores - bias)[:, :k].ravel(), minlength=experts)
        skill += learning * loads / loads.mean()  # who is chosen learns
        bias += u * np.sign(loads.mean() - loads)  # who is overloaded steps back
    return loads


print("without balancing:", train(u=0.0))
print("with the sign rule:", train(u=0.003))

# %% [markdown]
# Rich get richer, and a [bias](glossary.md#bias) stops it: it never touches what the experts learn, only who gets the next token.

# %% [markdown]
# ## Build it
#
# [`deepseekmoe/`](deepseekmoe/README.md) is the real thing, small: bytes in, one dense layer and [MoE](glossary.md#mixture-of-experts-mixture-of-experts-moe) layers with routed and shared experts, AdamW, trained on the source of Python's standard library. Its balancers are `loadsparse.reference.balancing`, called once per batch with that batch's loads. Here is its tiny setting (8 experts, 2 per token), live:

# %% tags=["varies"]
import tempfile
from pathlib import Path

from deepseekmoe import measure, model, results, run
from deepseekmoe import train as trainer

figure, axes = canvas(columns=2)
with tempfile.TemporaryDirectory() as folder:
    for setting in trainer.settings(["none", "sign 1e-2"], 1, tiny=True, steps=300, log_every=100, evaluate_every=300):
        progress, _ = run.run(setting, Path(folder))
        smooth = np.ones(20) / 20
        axes[0].plot(np.convolve(progress.bits, smooth, "valid"), label=setting.arm)
        axes[1].plot(np.convolve(measure.max_violations(progress.loads)[:, 0], smooth, "valid"), label=setting.arm)
        print(
            f"{setting.arm}: {progress.bits[-20:].mean():.2f} bits per byte, loads {progress.loads[-20:, 0].sum(axis=0)}"
        )
axes[0].set(xlabel="step", ylabel="bits per byte", title="Training text")
axes[1].set(xlabel="step", ylabel="MaxVio of a batch", title="Imbalance (mean of 20 batches)")
axes[1].legend()
show(
    figure,
    "Bits per byte fall from 7.3 to below 4, the same for both arms. MaxVio climbs to 2.7 without balancing and stays below 1 with it.",
)

# %% [markdown]
# Kill such a run at any point (`kill -9`) and start it again: it continues from its last checkpoint and ends with the same bits. That is possible because nothing in it is drawn from a stream: the batch of step n depends on the seed and n alone.

# %% [markdown]
# ## Check it against the oracle
#
# Dispatch is where MoE trainers go wrong: tokens are sorted by expert, padded to [blocks](glossary.md#block-thread-block), multiplied, and put back. The [oracle](glossary.md#oracle), `reference.moe`, loops over experts and has its gradients written by hand. In float64 both must agree to rounding: outputs, choices, loads, and the gradient of every weight.

# %%
import jax
from deepseekmoe import prune

from loadsparse.reference import moe

with jax.enable_x64(True):
    config = model.TINY
    block = model.init(config, seed=0, dtype=np.float64)["blocks"][1]
    x, dy = rng.normal(size=(40, config.width)), rng.normal(size=(40, config.width))
    bias = rng.normal(0, 0.1, config.routed)
    layer = prune.layer_of(block, config.k, dtype=np.float64)
    expected = moe.forward(layer, x, bias)
    gradients = moe.backward(layer, x, expected, dy)
    y, back, routing = jax.vjp(jax.jit(lambda x, block: model.moe(x, block, bias, config)), x, block, has_aux=True)
    dx, dblock = back(dy)
assert np.array_equal(routing.choices, expected.choices)
assert np.array_equal(routing.loads, expected.loads)
for ours, theirs in ((y, expected.y), (dx, gradients.x), (dblock["router"], gradients.router)):
    difference = np.abs(np.asarray(ours) - theirs).max()
    print(f"largest difference {difference:.1e} of {np.abs(theirs).max():.1e}")
    assert difference < 1e-11

# %% [markdown]
# ## Numbers
#
# The committed log holds the runs of 64 experts, 6 per token, 2 shared, 800 steps of 1,024 bytes, three seeds per arm. Intervals are 95% t-intervals over seeds: with three of them, 2.5 standard deviations wide on each side.

# %%
log = results.load()
print("made by:", log["command"], "| versions:", log["versions"])
summary = results.summary(log)
columns = ("bits/byte", "MaxVio batch, layer 2", "MaxVio pooled, layer 2", "MaxVio held out, layer 2", "dual gap")
print(f"\n{'arm':18} {'':5} " + " ".join(f"{title:>25}" for title in columns))
for arm, row in summary.items():
    print(f"{arm:18} n={len(results.by_arm(log)[arm])}   " + " ".join(f"{row[title]!s:>25}" for title in columns))

# %%
figure, axes = canvas(columns=2, width=10)
for arm, runs in results.by_arm(log).items():
    if arm not in ("none", "loss 1e-2", "sign 1e-3", "quantile"):
        continue
    violation = np.mean([one["max_violation"] for one in runs], axis=0)  # [logs, layers]
    steps = np.arange(len(violation)) * log["setting"]["log_every"]
    axes[0].plot(steps, violation[:, 1], label=arm)
    gap = np.mean([results.table(one, "dual") / results.table(one, "optimum") - 1 for one in runs], axis=(0, 2))
    axes[1].plot(steps, gap, label=arm)
axes[0].set(xlabel="step", ylabel="MaxVio of a batch, layer 2", yscale="log", title="Collapse, and what ends it")
axes[1].set(xlabel="step", ylabel="(D(p) - OPT) / OPT", yscale="log", title="Distance from the exact optimum")
axes[0].legend()
show(
    figure,
    "Two panels against training steps. Without balancing MaxVio of layer 2 climbs to 9 of at most 9.7 and stays near 6; "
    "the loss, the sign rule and quantile balancing bring it to about 1, quantile at once, the sign rule after 400 steps. "
    "The relative dual gap falls in the same order.",
)

# %% [markdown]
# **The collapse is early and violent.** Within 50 steps the second layer sends nearly every token to the same six experts. A sign step of 0.001 is slow against the router's own movement there: it needs some 300 steps to travel as far as the scores have gone apart. Quantile balancing sets the bias to where it must be, at once.
#
# **Three kinds of imbalance.** A single batch stays at MaxVio 0.7 to 0.9 whatever one does: 96 tokens per expert, and neighbouring bytes want the same expert. *Pooled* over the last 200 batches the same runs show 0.1 to 0.2, the proportional rule 0.04. On held-out text it is about 1 again, because 42% of that text is one file of prose: a bias learnt on code balances code. Published numbers (0.04 after 100 billion tokens) are pooled over validation text of the training distribution.

# %%
sign, quantile = results.by_arm(log)["sign 1e-3"], results.by_arm(log).get("quantile", [])
for name, runs in (("sign 1e-3", sign), ("quantile", quantile)):
    for run_ in runs[:1]:
        fixed, moving = results.share(run_, "obey", "pairs"), results.share(run_, "moved_obey", "moved_pairs")
        falls = results.mean_of(results.table(run_, "falls"))
        few = results.mean_of(results.table(run_, "few"))
        print(f"{name}: D falls in {falls:.0%} of logged steps, D2(b) holds in {few:.0%};")
        print(
            f"   preference rule: {fixed:.0%} of switching pairs on fixed scores, {moving:.0%} once the weights moved, too"
        )
        print(f"   regret against the best fixed bias, 40 batches: {np.mean(run_['regret']):+.2f} per token")
    assert all(results.share(one, "obey", "pairs") == 1 for one in runs)  # D3 is a theorem there
none = results.by_arm(log)["none"]
assert min(np.mean(one["pooled_max_violation"]) for one in none) > max(
    np.mean(one["pooled_max_violation"]) for one in sign
)

# %% [markdown]
# **D2 holds in practice.** The counterexample to monotonicity needs a router near balance and a step larger than the margins; in these runs a batch is never that close to balance, and the dual of the batch falls in the logged steps. For u = 0.01 the sufficient condition fails in some steps, and D falls all the same (all arms: [`deepseekmoe/README.md`](deepseekmoe/README.md)).
#
# **The preference rule does not survive moving scores**, and need not: between two steps the optimiser moves more tokens than a bias step of 0.001 does. The larger the bias step, the more of the switching is its work.
#
# **Regret is negative**: the best *fixed* bias in hindsight, computed exactly, is worse than the bias that moved along. The online theorems compare with a fixed bias because they fix the distribution; training does not.

# %% [markdown]
# ### The published trends
#
# Each is written as a difference that should be negative, paired by seed (same weights at the start, same batches).

# %%
for trend in results.trends(log):
    print(f"{trend.verdict:14} {trend.difference:62} {trend.here!s:>16}   published: {trend.published}")

# %% [markdown]
# What is *not resolved* is not refuted: the published gain of 9.56 to 9.50 in perplexity is 0.009 bits per token, several times smaller than the spread between our seeds. Balance shows at any scale. That no balance costs quality shows too, against quantile balancing; which balancer costs less needs more seeds or their scale. And one published motive is not visible here at all: a loss of weight 0.1 balances as well as any bias, at no measurable price.

# %% [markdown]
# ### Who waits for whom
#
# The trained routers are packaged as traces, real scores of a small model: `loadsparse balance trace:none/2 -k 6`, `loadsparse predict --model deepseek-moe-16b --routing trace:none/2`.

# %%
from loadsparse.reference import routing, traces
from loadsparse.theory import assignment

figure, axis = canvas()
for name in ("none/2", "sign-1e-3/2"):
    trace = traces.get(name)
    best = assignment.solve(trace.scores.astype(np.float64), trace.k)
    kept = np.take_along_axis(trace.scores.astype(np.float64), trace.choices, axis=1).sum()
    print(
        f"{name}: MaxVio {routing.max_violation(trace.loads):.2f}, score kept {kept / best.value:.3f} of the exact balanced optimum's"
    )
    axis.plot(np.sort(trace.loads)[::-1], label=name)
axis.set(xlabel="experts, the fullest first", ylabel="tokens of 1,024", title="Loads of the second MoE layer")
axis.legend()
show(
    figure,
    "Without balancing ten experts do most of the work and a third of them next to none; with the sign rule all 64 work, unevenly.",
)

# %% [markdown]
# ### Sparse experts on sparse weights
#
# Both halves of this project meet here: prune the trained experts, run the layer's products through the grouped [LSCD](glossary.md#lscd-load-as-sparse-compute-as-dense) and [bitmap](glossary.md#bitmap) [kernels](glossary.md#kernel) in the simulator on real tokens, judge them bit for bit, and ask the model what it lost.

# %%
pruned = results.load(results.LOG.with_name("prune.json"))
table = [[word.strip() for word in line.split("|")[1:-1]] for line in prune.markdown(pruned).splitlines()]
widths = [max(map(len, column)) for column in zip(*table, strict=True)]
for line in table[:1] + table[2:]:
    print("  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)))
for row in pruned["rows"]:
    for layers in row.get("kernels", {}).values():
        assert all(layer["ok"] for layer in layers)

# %% [markdown]
# Bytes are those of the formats on the experts of both layers, in shares of dense float16. At 50% LSCD's 4 bytes per value save nothing; the bitmap's 2 bytes and an eighth do. "Lost" compares with the dense model after the same extra training.

# %% [markdown]
# ## Exercises
#
# 1. In the ten lines, halve and double the skill's step (`learning`). Which u balances? Relate it to the gap between scores that must be travelled, and to the gaps that are left.
# 2. The logged D2(b) fails for quantile balancing although D falls. Why does the sufficient condition say nothing there?
# 3. Run the ten lines longer, 100 to 800 steps, with `learning=0.005` and u = 0.0003, then 0.01. Does [MaxVio](glossary.md#maxvio) go on falling? What stops it?
# 4. Predict, then check with `loadsparse predict`: at batch 8 on one GPU, is the unbalanced router of `trace:none/2` slower or faster than `trace:sign-1e-3/2`?
#
# <details><summary>Answers</summary>
#
# 1. Halved, u = 0.0001 is enough; as it stands, 0.0003: the bias must travel as fast as the scores move apart. Doubled, no constant u in the table brings MaxVio below 1: late in the run the sigmoid is saturated, the gaps between scores have become smaller than a step, and the step overshoots.
# 2. Its step is large: N_sw times the range of Delta bounds the loss by far more than D gains. It says 0% where D falls in 100%.
# 3. No. With u = 0.0003 it stays near 0.2, which 64 tokens per expert, drawn anew in each step, do not go below. With u = 0.01 it rises above 1: the scores saturate, the gaps that are left are smaller than a step, and a constant step leaves a floor, D9(c).
# 4. Faster, by 29 % with dense experts and by 13 % with bitmap ones: fewer experts are read. Balance pays only where somebody waits, see [chapter 40](40_sparse_experts_on_sparse_weights.ipynb).
#
# </details>

# %%
left = {}  # exercise 1: MaxVio at the end, mean of three runs
for learning in (0.005, 0.01, 0.02):
    for u in (0.0001, 0.0003, 0.001, 0.003):
        left[learning, u] = np.mean([routing.max_violation(train(u, learning)) for _ in range(3)])
    print(f"learning {learning}:", "  ".join(f"u = {u}: {v:.1f}" for (step, u), v in left.items() if step == learning))
assert left[0.005, 0.0001] < 0.5 < left[0.01, 0.0001]
assert left[0.01, 0.0003] < 0.5
assert min(v for (learning, _), v in left.items() if learning == 0.02) > 1
for u in (0.0003, 0.01):  # exercise 3
    longer = [
        np.mean([routing.max_violation(train(u, 0.005, steps=n)) for _ in range(3)]) for n in (100, 200, 400, 800)
    ]
    print(f"u = {u}, 100 to 800 steps:", "  ".join(f"{v:.1f}" for v in longer))
    assert (longer[-1] > 1) == (u == 0.01)

from loadsparse.gpu import perfmodel

for kernel in ("fastertransformer", "bitmap"):  # exercise 4, predicted
    rates = [
        perfmodel.end_to_end("deepseek-moe-16b", kernel, 1, 8, routing=f"trace:{arm}/2").tokens_per_gpu_second
        for arm in ("none", "sign-1e-3")
    ]
    print(f"{kernel}: {rates[0]:.0f} tokens per second unbalanced, {rates[1]:.0f} balanced")
    assert 1.1 < rates[0] / rates[1] < 1.35

# %% [markdown]
# ## Summary
#
# - Routers collapse because choosing trains; a bias, moved only by past loads, prevents it without touching the loss.
# - Fixed-score theorems (D3, D4) hold on every logged batch; with moving scores D3 does not survive, and a moving bias beats every fixed one.
# - Balance appears at this scale, quality differences mostly do not: intervals over seeds say which is which.
# - The trained experts, pruned, run bit-exactly on the sparse kernels; what they lose and save is measured, not assumed.
#
# Next: [sparse experts on sparse weights](40_sparse_experts_on_sparse_weights.ipynb), where balance and [sparsity](glossary.md#sparsity) meet in one kernel; or train the arms yourself with [`deepseekmoe/`](deepseekmoe/README.md).
