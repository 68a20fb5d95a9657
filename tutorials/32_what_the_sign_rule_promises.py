# %% [markdown]
# # What the sign rule does and does not promise
#
# *One notch down for the crowded, one notch up for the idle. Does it always help? Does it ever stop?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, show

zigzag, at = [0], 0
for _ in range(11):
    at += -1 if at > -3.5 else 1  # the popular expert is ahead by 3.5 steps at the start
    zigzag.append(at)
figure, axis = canvas(height=2.6)
axis.step(range(12), zigzag, where="mid")
axis.axhline(-3.5, color="black", linestyle="--")
axis.text(5, -2.8, "on this line the tokens are indifferent", va="bottom")
axis.set(xlabel="step", ylabel="bias / u", title="The bias of the popular expert", ylim=(-5, 1))
show(figure, "The bias falls by one notch per step to the dashed line, then jumps to and fro across it without end.")

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [balancing as a linear program](31_balancing_as_a_linear_program.ipynb) |
# | Time | 30 minutes |
# | A common misconception | "The Lagrangian improves in every step." It does under a condition, and near balance the condition fails. |
#
# ## You will learn
#
# 1. the exact change of the [dual](glossary.md#dual) in one step, and when it is an improvement;
# 2. which tokens may move, and which never do;
# 3. the band that every load enters and never leaves, and the cycle inside it.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Four tokens prefer [expert](glossary.md#expert) 0 by 3. A step of u = 5 moves the difference of the [biases](glossary.md#bias) by 10: all four change their minds, and change them back, for ever.

# %%
import numpy as np

scores, u, bias = np.tile([3, 0], (4, 1)), 5, np.array([0, 0])
for n in range(5):
    biased = scores + bias
    choice = np.argmax(biased, axis=1)
    loads = np.bincount(choice, minlength=2)
    print(f"step {n}: bias {bias}, loads {loads}, dual {biased.max(axis=1).sum() - 2 * bias.sum()}")
    bias = bias + u * np.sign(2 - loads)

# %% [markdown]
# ## Build it
#
# ### One step, exactly (D1, D2)
#
# (D1 to D9 number the statements of `loadsparse.theory`: its README has each with its proof, its condition and its test.)
#
# Let $g = A - L$ and $\Delta = -u\,\mathrm{sign}(g)$. The dual changes by $\langle g, \Delta\rangle + S$ with $S \ge 0$: the first part is the gain that the slope promises, $-u\|g\|_1$; the second is what the tokens that switch give back. So the dual falls exactly while $S \le u\|g\|_1$, which is certain if at most
# $\tfrac12\|g\|_1$ slots change hands (`few_switches`), or if the loads after the step still lean the old way, $\langle A^+ - L, \Delta\rangle \le 0$ (`keeps_direction`). `lagrangian.step` computes all of this for one step.

# %%
from loadsparse.reference import routing
from loadsparse.theory import balance, lagrangian, preference

rng = np.random.default_rng(seed=4)
T, E, K, u = 512, 8, 2, 4
scores = rng.integers(0, 1000, (T, E)) + 60 * np.arange(E)  # integers: identities hold exactly
p, steps, changes = np.zeros(E, dtype=np.int64), [], []
for _ in range(300):
    loads = routing.loads(routing.top_k(scores, K, p), E)
    delta = lagrangian.sign_change(loads, u)
    step = lagrangian.step(scores, K, p, delta)
    assert step.after - step.before == step.slope + step.switching  # D1, in fractions
    assert step.switching >= 0
    if step.keeps_direction or step.few_switches:
        assert step.after <= step.before  # D2
    steps.append(step)
    changes.append(
        preference.switches(scores, p, delta, routing.top_k(scores, K, p), routing.top_k(scores, K, p + delta))
    )
    p = p + delta
rises = sum(step.after > step.before for step in steps)
print(
    f"the dual rose in {rises} of {len(steps)} steps; in none of the {sum(s.few_switches for s in steps)} with few switches"
)
assert rises > 0

# %%
figure, axis = canvas()
axis.plot([float(s.before) for s in steps])
up = [n for n, s in enumerate(steps) if s.after > s.before]
axis.plot(up, [float(steps[n].before) for n in up], linestyle="none", marker=".", label="the next step rises")
axis.set(xlabel="step", ylabel="dual value", title="Falling, then trembling")
axis.legend()
show(figure, "The dual falls steeply, then stays on a level where about every other step rises a little.")

# %% [markdown]
# ### Who moves (D3)
#
# If a token leaves expert k for k', the bias of k' has gained on that of k, by at least the token's margin. So in a step **an overloaded expert never gains a token and an underloaded one never loses one**, as long as the same tokens are routed again.

# %%
assert all(change.obey.all() for change in changes)
assert not any(preference.wrong_way(s.loads, s.next_loads).any() for s in steps)
print("pairs checked:", sum(change.token.size for change in changes))

# %% [markdown]
# ## Check it against the oracle
#
# ### The band (D5)
#
# In one step only tokens within 2u of indifference can move. The most that such a window can hold, summed over rivals, is a band $b_k$ (`balance.bands`): once $|A_k - L| \le b_k$ it stays so, and after $N_0 = \lceil (E-1)(R+2u)/(2u) \rceil + 1$ steps (`balance.entry_steps`; R is the largest score minus the smallest) all experts are inside.

# %%
band, first = balance.bands(scores, u), balance.entry_steps(scores, u)
run = balance.trajectory(scores, K, first + 50, u=u)
away = balance.imbalance(run.loads) / E  # |A - L|
inside = (away <= band).all(axis=1)
print(f"promised from step {first} on; reached at step {inside.argmax()}; band {band.max()} tokens, L = {K * T / E}")
assert inside[first:].all()
assert (np.diff(np.maximum(away, band), axis=0) <= 0).all()  # absorbing: never further away again
assert run.spreads.max() <= balance.spread_bound(scores, K, u=u)  # D4: biases stay bounded without any projection

# %% [markdown]
# ### The cycle (D4)
#
# Differences of biases that are bounded and multiples of u have finitely many states, so the rule must repeat itself: `balance.limit_cycle`.

# %%
cycle = balance.limit_cycle(scores, K, u)
print(f"from step {cycle.start} on the loads repeat every {cycle.period} steps")
print(cycle.loads[: min(4, cycle.period)])
first_example = balance.limit_cycle(np.tile([3, 0], (4, 1)), 1, 5)
assert (first_example.start, first_example.period) == (0, 2)

# %% [markdown]
# ## Numbers
#
# Smaller steps, narrower bands, longer ways: [MaxVio](glossary.md#maxvio) inside the cycle against the rate.

# %%
rates, worst, entry = [1, 2, 4, 8, 16, 32], [], []
for rate in rates:
    cycle = balance.limit_cycle(scores, K, rate)
    worst.append(max(routing.max_violation(loads) for loads in cycle.loads))
    entry.append(cycle.start)
    print(f"u = {rate:2d}: cycle from step {cycle.start:4d}, period {cycle.period:3d}, worst MaxVio {worst[-1]:.3f}")
figure, axis = canvas()
axis.loglog(rates, worst, marker="o")
axis.set(
    xlabel="u (scores lie within 0 .. 1420)", ylabel="worst MaxVio in the cycle", title="The floor of a constant step"
)
show(figure, "The worst violation in the limit cycle grows with the rate u, by a factor of eight from u = 1 to u = 32.")
assert worst[0] < worst[-1]
assert entry[0] > entry[-1]

# %% [markdown]
# ## Exercises
#
# 1. Find scores for which the [sign rule](glossary.md#sign-rule) comes to rest. What must L be?
# 2. Some models put the experts in groups; a token first takes the groups whose best biased scores add up to most, then the [top K](glossary.md#top-k) inside of those. Run `theory.limits.grouped_sign_rule` (4 groups, 2 of them per token): how often does the preference rule fail, and why?
# 3. Let u fall like 1/n from a small start. How far can the biases travel in N steps?
#
# <details><summary>Answers</summary>
#
# 1. All loads must be equal, so L must be an integer: for instance one token per expert that prefers it, (1, 0) and (0, 1), L = 1, rests at once. If L is no integer it never rests.
# 2. Of 783 times that a token changed experts, 365 broke the rule. A group that wins brings all its experts with it, so a token may gain an expert whose bias fell.
# 3. At most u (1 + ln N): with u = 0.001 and N = 10⁶ steps, 0.0148.
#
# </details>

# %%
resting = np.array([[1, 0], [0, 1]])  # exercise 1
assert routing.loads(routing.top_k(resting, 1), 2).tolist() == [1, 1]
assert not lagrangian.sign_change(np.array([1, 1]), 1).any()
assert round(0.001 * (1 + np.log(1e6)), 4) == 0.0148  # exercise 3
from loadsparse.theory import limits  # exercise 2

broken = limits.grouped_sign_rule(rng.random((300, 16)) + np.linspace(0, 0.3, 16), 4, 0.01, 30, groups=4, top_groups=2)
print(broken)
assert (broken.broken, broken.switching) == (365, 783)

# %% [markdown]
# ## Summary
#
# The sign rule moves the right tokens in the right direction, keeps its biases bounded, reaches a band around balance and stays there in a cycle. It does not improve the dual in every step, and its floor grows with u. Next: [fresh tokens in every batch](33_logarithmic_regret_seen.ipynb).
