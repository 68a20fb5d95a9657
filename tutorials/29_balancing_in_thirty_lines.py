# %% [markdown]
# # Balancing in thirty lines
#
# *A mixture of experts sends each token to its K favourite experts. Some experts are everybody's favourite: their GPU works while the others wait. Can a single number per expert mend that, without touching the model's loss?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, show

tokens_of = np.random.default_rng(seed=2).multinomial(
    512, np.exp(-0.4 * np.arange(8)) / np.exp(-0.4 * np.arange(8)).sum()
)
figure, axis = canvas(height=2.4)
axis.bar(range(8), tokens_of, color="#cccccc", edgecolor="black")
axis.axhline(64, color="black", linestyle="--")
axis.text(7.4, 68, "balanced", ha="right")
axis.set(
    xlabel="expert, one per GPU",
    ylabel="tokens",
    title=f"Everybody waits for expert 0: {tokens_of.max() / 64:.1f} times as long",
)
show(
    figure,
    "Bars of tokens per expert fall from left to right; the first is about three times as high as the dashed line of balance.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [an MoE layer in thirty lines](28_an_moe_layer_in_thirty_lines.ipynb) |
# | Time | 30 minutes |
# | A common misconception | "Each step of the bias rule brings the loads closer to the optimum." It does not: near balance a step can make things worse, and we shall see one that does. |
#
# ## You will learn
#
# 1. to run auxiliary-loss-free load balancing (ALF-LB) and to measure balance;
# 2. how far it is from the best possible assignment, which a [linear program](glossary.md#linear-program) knows exactly;
# 3. what one step promises, and what it does not.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Add a [bias](glossary.md#bias) to every [expert](glossary.md#expert)'s score before choosing the [top K](glossary.md#top-k). After each batch, lower the bias of experts with too many tokens by a small u and raise the others'.

# %%
import numpy as np

rng = np.random.default_rng(seed=2)
T, E, K, u = 2048, 16, 2, 0.01
scores = 1 / (
    1 + np.exp(-(rng.standard_normal((T, E)) + np.linspace(1.5, -1.5, E)))
)  # sigmoid; some experts are liked more
bias = np.zeros(E)
for _ in range(300):
    chosen = np.argsort(-(scores + bias), axis=1, kind="stable")[:, :K]  # the bias chooses ...
    loads = np.bincount(chosen.ravel(), minlength=E)
    bias += u * np.sign(K * T / E - loads)  # ... and only past loads move it
print("loads", loads, " wanted", K * T / E)

# %% [markdown]
# ## Build it
#
# The library's pieces do the same: `routing.top_k` with its tie-break stated (the lower index first), `routing.loads` in integers, and balancers with `init` and `step`. *[MaxVio](glossary.md#maxvio)*, the
# measure of the paper (arXiv 2408.15664), is the load of the busiest expert over the mean, minus one.

# %%
from loadsparse.reference import balancing, routing


def run(balancer, steps=300):
    """MaxVio after each step, and the last state."""
    state, history = balancer.init(E), []
    for _ in range(steps):
        loads = routing.loads(routing.top_k(scores, K, state.bias), E)
        history.append(routing.max_violation(loads))
        state = balancer.step(state, loads if balancer.needs == "loads" else scores)
    return np.array(history), state


arms = {
    "sign, u = 0.01": balancing.SignBias(rate=0.01),
    "sign, u = 0.001": balancing.SignBias(rate=0.001),
    "sign, u = 0.1 / sqrt n": balancing.SignBias(rate=0.1, schedule="1/sqrt(n)"),
    "quantile": balancing.QuantileBalancing(k=K),
}
results = {name: run(arm) for name, arm in arms.items()}
figure, axis = canvas()
for name, (history, _) in results.items():
    axis.semilogy(np.maximum(history, 1e-3), label=name)
axis.set(xlabel="step", ylabel="MaxVio", title="The same 2,048 tokens again and again")
axis.legend()
show(
    figure,
    "MaxVio against steps: the large rate falls fast and then trembles, the small one is slow, quantile is immediate.",
)
first = results["sign, u = 0.01"][0][0]
assert all(history[-1] < first / 3 for history, _ in results.values())
assert np.array_equal(results["sign, u = 0.01"][1].bias, bias)  # the ten lines above were the real rule

# %% [markdown]
# ## Check it against the oracle
#
# What is the best balanced assignment? Choose $x_{ik} \in [0, 1]$ to
#
# $$ \max \sum_{ik} s_{ik} x_{ik} \quad\text{with}\quad \sum_k x_{ik} = K,\quad \sum_i x_{ik} = L = KT/E . $$
#
# `assignment.solve` finds it. Its [dual](glossary.md#dual), `lagrangian.dual`, is $D(p) = \sum_i \text{(sum of the top K of } s_i + p) - L \sum_k p_k$: **the bias is the dual variable**, and $A - L$ (loads minus their mean, one number per expert) is a [subgradient](glossary.md#subgradient). So ALF-LB is a primal-dual method, and the linear
# program says what it reaches for. By [weak duality](glossary.md#weak-duality) $D(p)$ is never below the optimum.

# %%
from loadsparse.theory import assignment, lagrangian

best = assignment.solve(scores, K)
assignment.certify(scores, K, best)  # raises unless feasible and optimal
floor = best.value
for name, (_, state) in results.items():
    gap = lagrangian.dual(scores, K, state.bias) - floor
    assert gap >= -1e-9 * floor
    print(f"{name:24s} dual value is {gap / floor:.1e} above the optimum, relative")

# %% [markdown]
# ## Numbers
#
# Is every step an improvement? Count the steps in which the dual *rose*.

# %%
state = balancing.SignBias(rate=0.01).init(E)
duals = []
for _ in range(300):
    duals.append(float(lagrangian.dual(scores, K, state.bias)))
    state = balancing.SignBias(rate=0.01).step(state, routing.loads(routing.top_k(scores, K, state.bias), E))
rises = int(np.sum(np.diff(duals) > 0))
figure, axis = canvas()
axis.semilogy(np.array(duals) - floor + 1e-3)
axis.set(xlabel="step", ylabel="dual value minus optimum", title=f"{rises} of {len(duals) - 1} steps rise")
show(figure, "The dual's distance to the optimum falls for some tens of steps and then goes up and down without end.")
assert rises > 0

# %% [markdown]
# The smallest example that breaks "monotone": two experts, all T tokens prefer the first by the same margin a < u. One step flips them all, and the dual rises by T(u − a).

# %%
tokens, margin, step = 100, 4, 10  # in units of 0.0001: integers, so that the sums below are exact
example, promised = lagrangian.non_monotone_example(tokens, margin, step)
change = lagrangian.sign_change(routing.loads(routing.top_k(example, 1), 2), step)
moved = lagrangian.step(example, 1, np.zeros(2, dtype=np.int64), change)
assert moved.after - moved.before == promised == tokens * (step - margin)
print(f"the dual rises by {float(promised) / 10_000}")

# %% [markdown]
# `loadsparse claims` lists what *is* true, each with its condition and the test that tries to break it: for the [sign rule](glossary.md#sign-rule) the dual cannot rise in a step that moves at most half of $\|A - L\|_1$ slots.
#
# ## Exercises
#
# 1. Add `"1/n"` with u = 0.001 to the arms. It never arrives: bound how far the bias can travel in N steps.
# 2. Draw fresh tokens at each step. What is the smallest MaxVio a *perfect* bias would show, by sampling alone?
# 3. Two experts, three tokens: write down the linear program and its dual, and solve both by hand.
#
# <details><summary>Answers</summary>
#
# 1. By at most u (1 + 1/2 + ... + 1/N) = 0.0063 in 300 steps, far less than the differences of the scores: it cannot arrive.
# 2. About 0.11, drawn below: even with equal chances, the fullest of 16 experts has 11 % more tokens than the mean, 256. The formula $\sqrt{2 \ln E\,(1 - K/E)/L}$ = 0.138 is an estimate from above.
# 3. [Chapter 30](30_duality_with_three_tokens.ipynb) does it, for the scores (9, 1), (6, 2), (4, 3): the optimum is 16.
#
# </details>

# %%
assert round(0.001 * sum(1 / n for n in range(1, 301)), 4) == 0.0063  # exercise 1
equal = np.random.default_rng(0)  # exercise 2: no scores at all
chance = [routing.max_violation(routing.loads(routing.top_k(equal.random((T, E)), K), E)) for _ in range(100)]
print(
    f"MaxVio by sampling alone: {np.mean(chance):.3f}, estimate {np.sqrt(2 * np.log(E) * (1 - K / E) / (K * T / E)):.3f}"
)
assert 0.09 < np.mean(chance) < np.sqrt(2 * np.log(E) * (1 - K / E) / (K * T / E))

# %% [markdown]
# ## Summary
#
# One bias per expert, moved by past loads only, is a dual method for the balanced assignment. It balances, not monotonically, and a constant step keeps trembling around the optimum. Next: [duality with three tokens](30_duality_with_three_tokens.ipynb); the method's own paper is Wang et al., arXiv 2408.15664.
