# %% [markdown]
# # LP duality with three tokens and two experts
#
# *Three tokens, two experts, and no expert may take more than half. Who has to move, and what is a fair price for moving?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, cells, show

figure, axis = canvas(width=5, height=1.8)
cells(
    axis,
    [[9, 1], [6, 2], [4, 3]],
    [[1, 0], [1, 0], [1, 0]],
    [f"token {i}" for i in range(3)],
    ["expert 0", "expert 1"],
    size=9,
)
axis.set_xlabel("all three prefer expert 0; it may take one and a half")
show(
    figure,
    "Scores of three tokens with two experts: 9 and 1, 6 and 2, 4 and 3; the first is the larger one in every row.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | NumPy; no optimisation needed |
# | Time | 25 minutes |
# | A common misconception | "The bias is a trick that spoils the router's ranking." It is a price, and at the right price nobody wants to move. |
#
# ## You will learn
#
# 1. to write a balanced assignment as a [linear program](glossary.md#linear-program) and its [dual](glossary.md#dual) as a picture of straight lines;
# 2. why the dual is never below the optimum, and why the two meet;
# 3. what [complementary slackness](glossary.md#complementary-slackness) says: who is undecided at the right price.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Three tokens, two [experts](glossary.md#expert), one expert per token, so each expert should carry L = 3/2 tokens. Only the difference $d = p_0 - p_1$ of the two [biases](glossary.md#bias) matters. For each token the dual takes the better of the two
# biased scores; then it subtracts what [balanced loads](glossary.md#expert-load-balanced-load) would pay.

# %%
import numpy as np

scores = np.array([[9, 1], [6, 2], [4, 3]])  # integers: every number below is exact
L = 3 / 2


def dual(d):
    """D(p) for p = (d/2, -d/2): the sum of the better biased scores, minus L (p_0 + p_1) = 0."""
    return float(np.maximum(scores[:, 0] + d / 2, scores[:, 1] - d / 2).sum())


values = {d: dual(d) for d in range(-10, 3)}
print(values)
print("smallest:", min(values.values()), "at", [d for d in values if values[d] == min(values.values())])

# %% [markdown]
# ## Build it
#
# ### By hand
#
# All three tokens prefer expert 0, by margins 8, 4 and 1. The *primal* problem moves one and a half tokens to expert 1 (a linear program may split a token). The cheapest: token 2 moves wholly (it loses 1), token 1
# by half (it loses 4/2 = 2). The unconstrained best, 9 + 6 + 4 = 19, falls to **16**.
#
# The *dual* lowers the bias of expert 0 against that of expert 1. Between $d = -8$ and $d = -4$ only token 0 stays, between $-4$ and $-1$ two stay: the lines bend where a token is indifferent, at minus its margin.

# %%
d = np.linspace(-10, 2, 241)
curve = [dual(x) for x in d]
figure, axis = canvas()
axis.plot(d, curve, label="D(d), dual")
axis.axhline(16, color="#009e73", linestyle="--", label="16, the best split")
for margin in (8, 4, 1):
    axis.axvline(-margin, color="grey", linewidth=0.7)
axis.set(
    xlabel="d = bias of expert 0 minus bias of expert 1",
    ylabel="value",
    title="Each bend is a token that changes its mind",
)
axis.legend()
show(
    figure,
    "A convex curve of straight pieces with bends at -8, -4 and -1; its lowest point touches the line at 16 in d = -4.",
)
assert min(curve) == 16 == dual(-4)

# %% [markdown]
# ### Why the dual is never below
#
# For any balanced $x$ and any bias $p$: $\;\sum s x = \sum (s + p)\,x - \sum_k p_k L \le \sum_i \max_k (s_{ik} + p_k) - L\sum_k p_k = D(p)$. Each token at least matches its own best. The inequality is tight exactly when **every token uses only experts that
# are best for it at these prices**: that is complementary slackness. At $d = -4$ token 0 strictly prefers expert 0, token 2 strictly prefers expert 1, and token 1 is indifferent: it may be split.

# %%
best = scores + np.array([-2, 2])  # d = -4
print(best)
assert best[1, 0] == best[1, 1]

# %% [markdown]
# ## Check it against the oracle
#
# `linear_program.solve` asks HiGHS, a general LP solver, which is told the scores and the constraints only. It finds the same split and, as the multipliers of its constraints, the same prices: $p_0 - p_1 = -4$. Exact arithmetic (`lagrangian.dual`, in fractions) agrees.

# %%
from fractions import Fraction

from loadsparse.theory import assignment, balance, lagrangian, linear_program

solution = linear_program.solve(scores, 1)
print("HiGHS:", solution.value, "\n", solution.x, "\nprices", solution.prices)
assert solution.value == 16
assert lagrangian.dual(scores, 1, np.array([-2, 2])) == Fraction(16)
tied = balance.ties(scores, 1, np.array([-2, 2]))
assert tied.tokens.tolist() == [1]  # one token is undecided, and E - 1 = 1 is the most there can be

# %% [markdown]
# ## Numbers
#
# Whole tokens cannot be split, so no loads are equal; `assignment.solve` then lets each expert take L rounded down or up: 1 and 2, or 2 and 1. It finds the better one, with prices that prove it. The value, 18, is above 16 because the question has changed: expert 0 may now keep two tokens instead of one and a half.

# %%
whole = assignment.solve(scores, 1)
assignment.certify(scores, 1, whole)
print("experts", whole.choices.ravel(), "value", whole.value, "prices", whole.prices)
assert whole.value == 18  # only token 2 moves and loses 1

# %% [markdown]
# ## Exercises
#
# 1. A fourth token with scores (5, 5) arrives: L = 2. What is the optimum, and which prices prove it?
# 2. Add 100 to both scores of token 0. What changes in the assignment, in the dual, in the best d?
# 3. Start at d = 0 and apply the [sign rule](glossary.md#sign-rule) with u = 1/2 (d changes by 1 a step). Where does it end, and does it stay there?
#
# <details><summary>Answers</summary>
#
# 1. 23: tokens 0 and 1 stay, tokens 2 and 3 move; every d between −4 and −1 proves it.
# 2. The assignment and the best d = −4 stay (margins count, not levels); optimum and dual rise by 100, to 116.
# 3. d falls by 1 a step while expert 0 has more than 1.5 tokens: three tokens at d = 0 and, ties going to expert 0, at −1; two from −2 to −4; one at −5, and then back up. From there it goes to and fro between −5 and −4.
#
# </details>

# %%
raised = scores + np.array([[100, 100], [0, 0], [0, 0]])  # exercise 2
assert linear_program.solve(raised, 1).value == 116 == lagrangian.dual(raised, 1, np.array([-2, 2]))
place, seen = 0, []  # exercise 3
for _ in range(12):
    first_expert = int((scores[:, 0] + place >= scores[:, 1]).sum())
    seen.append(place)
    place -= 1 if first_expert > 1.5 else -1
assert seen == [0, -1, -2, -3, -4, -5, -4, -5, -4, -5, -4, -5]
four = np.vstack([scores, [5, 5]])  # exercise 1
assert assignment.solve(four, 1).value == 23
assert [lagrangian.dual(four, 1, np.array([d, 0])) for d in (-4, -3, -2, -1)] == [23, 23, 23, 23]

# %% [markdown]
# ## Summary
#
# A bias is a price on an expert. Prices bound the best balanced score from above; at the best prices the bound is reached, and only tokens that are indifferent remain to be decided. Next: [the same with thousands of tokens](31_balancing_as_a_linear_program.ipynb).
