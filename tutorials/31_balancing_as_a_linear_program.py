# %% [markdown]
# # Balancing as a linear program
#
# *4,096 tokens want 32 experts. What does perfect balance cost, who pays it, and how would we know that nobody could do better?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, show

wish = np.random.default_rng(seed=1).multinomial(512, np.exp(-0.3 * np.arange(8)) / np.exp(-0.3 * np.arange(8)).sum())
figure, axis = canvas(height=2.6)
axis.bar(range(8), np.minimum(wish, 64), color="#cccccc", edgecolor="black", label="may stay")
axis.bar(range(8), np.maximum(wish - 64, 0), bottom=64, color="white", edgecolor="black", hatch="//", label="must move")
axis.bar(
    range(8),
    np.maximum(64 - wish, 0),
    bottom=np.minimum(wish, 64),
    color="white",
    edgecolor="black",
    linestyle=":",
    label="room",
)
axis.set(xlabel="expert", ylabel="tokens", title="Who has to move, and where to?")
axis.legend()
show(
    figure,
    "Bars of wished loads: experts 0 to 2 stand above the level of 64 tokens, hatched; the others leave room below it.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [duality with three tokens](30_duality_with_three_tokens.ipynb), or linear programming duality |
# | Time | 30 minutes |
# | A common misconception | "Perfect balance ruins the choices." At the optimum nearly every token still gets experts that are best for it, at the prices. |
#
# ## You will learn
#
# 1. to state routing with equal loads as a [linear program](glossary.md#linear-program) and to solve it exactly;
# 2. to read prices, and to check a solution without trusting who made it;
# 3. why only E − 1 tokens are ever undecided.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Quantile balancing: take turns. Given the [experts](glossary.md#expert)' prices, each token's threshold is its (K + 1)-th best biased score; given the thresholds, each expert's price is the one at which exactly L tokens want it. Each half of a turn minimises the [dual](glossary.md#dual) exactly over one side.

# %%
import numpy as np

rng = np.random.default_rng(seed=3)
T, E, K = 4096, 32, 4
L = K * T // E
scores = 1 / (1 + np.exp(-(rng.standard_normal((T, E)) + np.linspace(1, -1, E))))
price = np.zeros(E)  # to be paid by a token
for turn in range(6):
    threshold = -np.sort(price - scores, axis=1)[:, K]
    price = -np.sort(threshold[:, None] - scores, axis=0)[L]
    loads = np.bincount(np.argsort(-(scores - price), axis=1)[:, :K].ravel(), minlength=E)
    print(turn, "busiest expert", loads.max() / L)

# %% [markdown]
# ## Build it
#
# $$ \max \sum_{ik} s_{ik} x_{ik} \quad\text{with}\quad \sum_k x_{ik} = K,\quad \sum_i x_{ik} = L,\quad 0 \le x \le 1. $$
#
# The constraint matrix is the incidence matrix of a bipartite graph, hence *totally unimodular*: where L is an integer some optimal $x$ holds only zeros and ones. `assignment.solve` finds prices by Newton's method (over many tokens the dual looks smooth, and its Hessian is a graph
# Laplacian: [chapter 33](33_logarithmic_regret_seen.ipynb)) and decides the last tokens by shortest paths in integers. Mind the sign: the ten lines subtracted a price; the library's `best.prices` are *[biases](glossary.md#bias)*, to be added.

# %%
from loadsparse.reference import balancing, routing
from loadsparse.theory import assignment, balance, lagrangian, linear_program

best = assignment.solve(scores, K)
free = routing.top_k(scores, K)
greedy = lagrangian.value(scores, free)
print(
    f"unbalanced {greedy:.2f}, balanced optimum {best.value:.2f}: balance costs {1 - best.value / greedy:.2%} of the score"
)
figure, axes = canvas(columns=2)
axes[0].bar(range(E), routing.loads(free, E), color="#d55e00", label="free")
axes[0].bar(range(E), routing.loads(best.choices, E), color="#0072b2", label="balanced")
axes[0].set(xlabel="expert", ylabel="tokens", title="Loads")
axes[0].legend()
axes[1].bar(range(E), best.prices - best.prices.mean(), color="#009e73")
axes[1].set(xlabel="expert", ylabel="bias", title="Biases: minus the prices")
show(
    figure,
    "Left: loads fall from left to right without balance and are level with it. Right: biases rise from left to right.",
)
assert routing.loads(best.choices, E).tolist() == [L] * E

# %% [markdown]
# ### Who pays?
#
# [Complementary slackness](glossary.md#complementary-slackness): in the solution every chosen expert is, after prices, at least as good as every expert that was not chosen. No token envies another choice.

# %%
biased = scores + best.prices
worst_chosen = np.take_along_axis(biased, best.choices, axis=1).min(axis=1)
others = biased.copy()
np.put_along_axis(others, best.choices, -np.inf, axis=1)
assert (worst_chosen >= others.max(axis=1) - 1e-12).all()
tied = balance.ties(scores, K, best.prices, tolerance=1e-12)
print(f"{tied.tokens.size} of {T} tokens are undecided at these prices; never more than E - 1 = {E - 1}")
assert tied.slots <= E - 1

# %% [markdown]
# Why never more? Draw a line between two experts for every token that is undecided between them. A token on the line from k to j says $s_{ik} + p_k = s_{ij} + p_j$: it fixes the difference of two prices. Lines that closed a ring would fix one difference twice, by
# different tokens, and generic scores do not agree like that. So the lines close no ring, and on E experts E − 1 lines without a ring are the most there can be (statement D6; `balance.ties` finds them).
#
# ## Check it against the oracle
#
# `certify` shares no code with the solver: feasibility in integers, the value, and the duality gap. It refuses a solution in which two tokens swapped places. On a small matrix HiGHS is a second opinion, and its solution is integral, as promised.

# %%
assignment.certify(scores, K, best)
small = scores[:96]
opinion = linear_program.solve(small, K)
assert abs(opinion.value - assignment.solve(small, K).value) < 1e-9
assert opinion.fractional < 1e-9

from dataclasses import replace

first, second = next((i, j) for i in range(T) for j in range(i) if not set(best.choices[i]) & set(best.choices[j]))
swapped = best.choices.copy()
swapped[[first, second]] = swapped[[second, first]]
worse = replace(best, choices=swapped, value=float(lagrangian.value(scores, swapped)))
try:
    assignment.certify(scores, K, worse)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a swap of two tokens must not pass")

# %% [markdown]
# ## Numbers
#
# How close do the balancers come? `compare` runs them on the same matrix, and judges them by the optimum: this is what `loadsparse balance` prints.

# %%
from loadsparse.theory import compare

rows = compare.compare(scores, K, ["sign", "proportional", "quantile"], steps=200)
for row in rows:
    if row.step in (0, 200) or row.balancer == "optimum":
        print(
            f"{row.balancer:14s} step {row.step:3d}  MaxVio {row.max_violation:7.4f}  dual gap {row.dual_gap:9.2e}  score kept {row.kept:.5f}"
        )
assert all(row.dual_gap >= -1e-12 for row in rows)
assert round(rows[0].kept, 2) == 1.06  # exercise 2

# %% [markdown]
# ## Exercises
#
# 1. Give one expert half the seats of before and the others L/16 more (`capacity=`, the most tokens of each expert). What happens to its price, and to the optimum?
# 2. Why may "score kept" exceed 1 for an unbalanced routing?
# 3. Compare `balancing.Auction` with `assignment.solve` for K = 1 on the 96 tokens: how far from the optimum may it be, at ε = 0.001?
#
# <details><summary>Answers</summary>
#
# 1. Its bias falls from −0.155 to −0.187: a seat there has become dearer. The optimum still rises, by 70, because of the seats that the others gained.
# 2. The score kept is measured against the *balanced* optimum; routing without the constraint may collect more, here 1.06 times as much at step 0.
# 3. At most T·ε = 96 · 0.001 = 0.096 below it: so much an auction loses whose bids rise in steps of ε.
#
# </details>

# %%
capacity = np.full(E, L + L // 16)  # exercise 1
capacity[0] = L // 2
tight = assignment.solve(scores, K, capacity)
assignment.certify(scores, K, tight, capacity)
assert routing.loads(tight.choices, E)[0] == L // 2
for name, found in (("before", best), ("half the seats", tight)):
    print(
        f"exercise 1, {name}: bias of expert 0 {found.prices[0] - found.prices.mean():+.3f}, optimum {found.value:.2f}"
    )
assert tight.prices[0] - tight.prices.mean() < best.prices[0] - best.prices.mean()
assert 69 < tight.value - best.value < 71
auction = balancing.Auction(epsilon=1e-3).assign(small)  # exercise 3
assert small[np.arange(96), auction].sum() >= assignment.solve(small, 1).value - 96 * 1e-3

# %% [markdown]
# ## Summary
#
# Balanced routing is an assignment problem. Its dual variables are the biases, its optimum can be certified by anyone, and all but at most E − 1 tokens simply take their best experts at the prices. Next: [how it moves](32_what_the_sign_rule_promises.ipynb): the [sign rule](glossary.md#sign-rule) moves towards those prices.
