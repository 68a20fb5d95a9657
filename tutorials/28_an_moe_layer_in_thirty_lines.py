# %% [markdown]
# # An MoE layer in thirty lines
#
# *A model has 64 feed-forward networks in every layer, and each token pays for six of them. How does a token choose, and who notices when all tokens choose the same six?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import COLOURS, canvas, show

rng = np.random.default_rng(seed=28)
wanted = np.argsort(-(rng.standard_normal((8, 4)) + np.array([1.2, 0.4, 0, -0.6])), axis=1)[:, :2]
figure, axis = canvas(height=2.8)
for token in range(8):
    for rank, expert in enumerate(wanted[token]):
        axis.plot([token, 2 * expert + 0.5], [1, 0], color=COLOURS[0], linestyle="--" if rank else "-", linewidth=1)
for expert, load in enumerate(np.bincount(wanted.ravel(), minlength=4)):
    axis.text(2 * expert + 0.5, -0.12, f"expert {expert}\n{load} tokens", ha="center", va="top")
for token in range(8):
    axis.text(token, 1.08, f"token {token}", ha="center", fontsize=8)
axis.set(ylim=(-0.6, 1.25), xticks=[], yticks=[], title="First choices solid, second choices dashed")
show(
    figure,
    "Eight tokens above, four experts below, two lines from each token: expert 0 receives most tokens, expert 3 fewest.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | NumPy; what a feed-forward layer of a transformer is |
# | Time | 30 minutes |
# | A common misconception | "The router learns to spread the tokens." Nothing in the loss asks it to. A popular expert is trained more, becomes better, and becomes more popular. |
#
# ## You will learn
#
# 1. to write a [mixture-of-experts](glossary.md#mixture-of-experts-mixture-of-experts-moe) layer, forward, and to check its gradients;
# 2. what passes through the choice of [experts](glossary.md#expert) and what does not;
# 3. how to measure balance, and what imbalance costs in matrix products.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Every token has a score with every expert: the sigmoid, $1 / (1 + e^{-z})$, of a product z of the token with the expert's row of the [router](glossary.md#router). It takes the K best, and adds their answers, weighted by the scores, which are first divided by their sum.

# %%
T, E, K, D, H = 256, 16, 4, 32, 24  # tokens, experts, experts per token, model width, expert width
x = rng.standard_normal((T, D))
router = rng.standard_normal((E, D)) / np.sqrt(D) * np.linspace(2, 0.5, E)[:, None]
W1, W3 = rng.standard_normal((2, E, H, D)) / np.sqrt(D)
W2 = rng.standard_normal((E, D, H)) / np.sqrt(H)

s = 1 / (1 + np.exp(-x @ router.T))
chosen = np.argsort(-s, axis=1, kind="stable")[:, :K]
y = np.zeros((T, D))
for t in range(T):
    for k in chosen[t]:
        a = W1[k] @ x[t]
        y[t] += s[t, k] / s[t, chosen[t]].sum() * (W2[k] @ (a / (1 + np.exp(-a)) * (W3[k] @ x[t])))
print("loads:", np.bincount(chosen.ravel(), minlength=E))

# %% [markdown]
# ## Build it
#
# ### By expert, not by token
#
# Nobody computes token by token. Collect the tokens of each expert, multiply once, and scatter the results back: *each expert's batch is the N of a [skinny](glossary.md#skinny) matrix product*, which is where the two doors of this course will meet. In the library that is `moe.forward`:
#
# $$ y_i = \sum_{\text{shared}} F(x_i) + \sum_{k \in \text{top } K} g_{ik}\, F_k(x_i), \qquad F(x) = W_2\,(\mathrm{silu}(W_1 x) \cdot W_3 x), \quad g_{ik} = \frac{s_{ik}}{\sum_{j \in \text{top } K} s_{ij}} $$
#
# with $\mathrm{silu}(a) = a / (1 + e^{-a})$ and the scores $s = \mathrm{sigmoid}(\text{router} \cdot x)$. `moe.forward` computes the sum, `moe.network` is F, `routing.sigmoid` scores, `routing.top_k` chooses and `routing.gate_weights` gives g.

# %%
from loadsparse.reference import moe, routing

layer = moe.Layer(router, (), tuple(moe.Expert(*weights) for weights in zip(W1, W3, W2, strict=True)), K)
output = moe.forward(layer, x)
assert np.allclose(output.y, y, rtol=1e-12, atol=1e-12)
assert np.array_equal(output.choices, chosen)
print("the library agrees with the loops to", f"{np.abs(output.y - y).max():.1e}")

# %% [markdown]
# *Shared experts* see every token; DeepSeekMoE has two, so that common knowledge need not be learnt 64 times.
#
# ### What passes through the choice
#
# The weights $g$ are smooth in the scores, so the router has a gradient. The *choice* is not: it jumps. A small change of an expert that was not chosen changes nothing at all, and a [bias](glossary.md#bias) that only helps to choose has gradient zero.

# %%
dy = rng.standard_normal(y.shape)
gradients = moe.backward(layer, x, output, dy)
h, errors = 1e-6, []
for _ in range(12):
    i, j = rng.integers(E), rng.integers(D)
    up, down = router.copy(), router.copy()
    up[i, j], down[i, j] = router[i, j] + h, router[i, j] - h
    rise = moe.forward(moe.Layer(up, (), layer.routed, K), x).y - moe.forward(moe.Layer(down, (), layer.routed, K), x).y
    errors.append(abs((dy * rise).sum() / (2 * h) - gradients.router[i, j]))
print(f"router gradient, by hand against finite differences: {max(errors):.1e} at {np.abs(gradients.router).max():.0f}")
assert max(errors) < 1e-4
bias = np.full(E, 1e-9) * np.arange(E)
assert np.array_equal(moe.forward(layer, x, bias).choices, chosen)  # a tiny bias changes no choice ...
assert np.array_equal(moe.forward(layer, x, bias).y, output.y)  # ... and never enters the weights: not one bit differs

# %% [markdown]
# ### Measure balance
#
# *MaxVio* is the load of the busiest expert over the mean, minus one: `routing.max_violation`. 0 is perfect. If each expert lives on its own GPU, the layer takes 1 + MaxVio times as long as it should, because everybody waits for the busiest; *utilisation* is the inverse of that, the share of the GPUs' time that is used.

# %%
print("loads:", output.loads, f"mean {T * K / E:.0f}")
print(routing.balance(output.loads))
assert np.isclose(routing.max_violation(output.loads), output.loads.max() / (T * K / E) - 1)

# %% [markdown]
# ## Check it against the oracle
#
# Sparse weights change nothing in the layer: an expert's matrix may be any format with a `decode`. Prune the experts, encode them, run the layer; the [oracle](glossary.md#oracle) is the same layer with dense matrices that hold the zeros.

# %%
from loadsparse.reference import formats, pruning

pruned = [[pruning.magnitude(w.astype(np.float16), 0.8) for w in (e.gate, e.up, e.down)] for e in layer.routed]
as_dense = moe.Layer(router, (), tuple(moe.Expert(*ws) for ws in pruned), K)
as_sparse = moe.Layer(router, (), tuple(moe.Expert(*(formats.Bitmap.encode(w) for w in ws)) for ws in pruned), K)
assert np.array_equal(moe.forward(as_dense, x).y, moe.forward(as_sparse, x).y)
print("sparse and dense experts agree in every bit")

# %% [markdown]
# ## Numbers
#
# Two numbers of a DeepSeekMoE-like layer with E = 64 and K = 6. First, parameters: all of them must be stored, few are used by one token. Second, *how many experts must be read at all* when T tokens are decoded together. If choices were uniform and independent, an expert stays untouched with
# probability $(1 - K/E)^T$; where some experts are popular, fewer are touched.

# %%
experts, top, width, inner = 64, 6, 2048, 1408  # the routed experts of DeepSeekMoE-16B
per_expert = 3 * width * inner
print(
    f"stored {experts * per_expert / 1e6:.0f} million weights a layer, used by one token {top * per_expert / 1e6:.0f} million: {experts / top:.1f} times fewer"
)

tokens = np.array([1, 2, 4, 8, 16, 32, 64, 128])
touched = {"uniform": [], "popularity 1/rank": []}
for t in tokens:
    for name, lean in (("uniform", np.zeros(experts)), ("popularity 1/rank", -np.log(np.arange(1, experts + 1)))):
        draws = [routing.loads(routing.top_k(lean + rng.gumbel(size=(t, experts)), top), experts) for _ in range(40)]
        touched[name].append(np.mean([(loads > 0).sum() for loads in draws]))
formula = experts * (1 - (1 - top / experts) ** tokens)
figure, axis = canvas(height=3.2)
axis.semilogx(tokens, formula, label="formula, uniform")
for (name, values), marker in zip(touched.items(), "os", strict=True):
    axis.semilogx(
        tokens, values, marker=marker, linestyle="none" if name == "uniform" else "--", label=f"drawn, {name}"
    )
axis.set(xlabel="tokens decoded together", ylabel="experts that must be read", title="64 experts, 6 per token")
axis.legend()
show(
    figure,
    "Experts read against tokens: from 6 at one token to nearly 64 at 64 tokens when choices are uniform; fewer at every point when some experts are popular.",
)
assert np.allclose(touched["uniform"], formula, rtol=0.05)
assert all(np.array(touched["popularity 1/rank"])[1:] < formula[1:])

# %% [markdown]
# So an unbalanced router reads *fewer* weights when few tokens decode, and makes the busiest expert late when many do. Which of the two counts is the question of the [last chapter](40_sparse_experts_on_sparse_weights.ipynb).
#
# ## Exercises
#
# 1. E = 64, K = 6, T = 4,096 tokens in a batch: what is the mean load L? If the busiest expert has 1,000 tokens, what is [MaxVio](glossary.md#maxvio)?
# 2. How many tokens must decode together before a uniform router touches, on average, more than half of the 64 experts?
# 3. Multiply all scores of the router by 3 before the sigmoid. Do the choices change? Do the weights?
#
# <details><summary>Answers</summary>
#
# 1. L = 6 · 4,096 / 64 = 384; MaxVio = 1,000 / 384 − 1 = 1.604.
# 2. 1 − (1 − 6/64)^T > 1/2 from T = 8 on: ln 2 / −ln(1 − 6/64) = 7.04.
# 3. The choices stay (a growing function keeps the order); the weights change, towards the favourites.
#
# </details>

# %%
assert 6 * 4096 / 64 == 384
assert (
    round(
        routing.max_violation(
            [1000, *[(6 * 4096 - 1000) // 63] * 62, 6 * 4096 - 1000 - 62 * ((6 * 4096 - 1000) // 63)]
        ),
        3,
    )
    == 1.604
)
assert min(t for t in range(1, 99) if 1 - (1 - 6 / 64) ** t > 0.5) == 8
sharper = moe.forward(moe.Layer(3 * router, (), layer.routed, K), x)
assert np.array_equal(np.sort(sharper.choices), np.sort(chosen))
assert not np.allclose(sharper.gates, output.gates)

# %% [markdown]
# ## Summary
#
# A router scores, the K best experts answer, the scores weigh. The choice has no gradient, nothing in the loss asks for balance, and each expert's share of the tokens is the width of its matrix products. Next: [balancing in thirty lines](29_balancing_in_thirty_lines.ipynb), one number per expert that mends the loads.
