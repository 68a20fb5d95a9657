# %% [markdown]
# # Logarithmic regret, seen
#
# *Every batch brings new tokens. Can a rule that sees only the past do almost as well as the best fixed bias in hindsight?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import numpy as np
from pictures import canvas, show

draw = np.random.default_rng(seed=4)
spread = np.linspace(-0.9, 0.9, 181)
figure, axis = canvas(height=2.8)
for name, count in (("a batch of 4 tokens", 4), ("a batch of 64", 64)):
    batch = draw.random((count, 2))
    axis.plot(spread, [np.maximum(batch[:, 0] + d / 2, batch[:, 1] - d / 2).mean() for d in spread], label=name)
axis.plot(spread, 2 / 3 + spread**2 / 2 - np.abs(spread) ** 3 / 6, label="the expectation")
axis.set(
    xlabel="difference d of the two biases",
    ylabel="dual value per token",
    title="Straight pieces on average make a curve",
)
axis.legend()
show(
    figure,
    "Dual values against the difference of two biases: jagged for 4 tokens, nearly smooth for 64, and a smooth bowl in expectation.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [what the sign rule promises](32_what_the_sign_rule_promises.ipynb); expectations and variances |
# | Time | 30 minutes |
# | A common misconception | "Loss-free balancing has logarithmic regret." Some step sizes do. The constant step that everybody uses does not. |
#
# ## You will learn
#
# 1. what [regret](glossary.md#regret) is, and why the expected [dual](glossary.md#dual) is curved although every batch's dual is made of straight pieces;
# 2. to compute the curvature: the second eigenvalue of a graph of [experts](glossary.md#expert);
# 3. which step sizes give logarithmic regret, and to see the logarithm.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# Two experts, one per token, scores uniform on [0, 1]. The expected dual is known in closed form: $f(d) = \tfrac23 + \tfrac{d^2}{2} - \tfrac{|d|^3}{6}$, with $d$ the difference of the [biases](glossary.md#bias). Start at $d = 0.5$ and take steps $1/(\mu n)$ against the load of one token at a time.

# %%
import numpy as np

rng = np.random.default_rng(seed=5)
radius = 0.5
mu = 2 * (1 - radius)  # strong convexity of f on |p_0 - p_1| <= r
p, regret = np.array([0.25, -0.25]), 0.0
for n in range(1, 2001):
    d = p[0] - p[1]
    regret += d**2 / 2 - abs(d) ** 3 / 6
    loads = np.eye(2)[np.argmax(rng.random(2) + p)]
    p = p - (loads - 0.5) / (mu * n)
    half = np.clip((p[0] - p[1]) / 2, -radius / 2, radius / 2)  # projection
    p = np.array([half, -half])
    if n in (20, 200, 2000):
        print(f"after {n:4d} tokens: regret {regret:.3f}, bound {0.5 / (2 * mu) * (1 + np.log(n)):.3f}")

# %% [markdown]
# ## Build it
#
# ### Where the curvature comes from ([statement D8](../theory/README.md#d8-the-expected-dual))
#
# Over random scores the probability $\pi_k(p)$ that expert k is chosen is smooth in p. Raising $p_j$ takes tokens from k exactly when j and k are the two at the boundary of the [top K](glossary.md#top-k). So the Hessian of the expected dual is the **Laplacian of a graph on the experts**, with weight $w_{kj}$ the [density](glossary.md#density) of tokens that are
# undecided between k and j. Its second eigenvalue $\mu$ is the [strong convexity](glossary.md#strong-convexity).

# %%
from loadsparse.theory import expected_dual, experiment, online, score_laws

law = score_laws.skewed(8, 0.8)  # eight experts, logit-normal scores, some more popular
star = expected_dual.minimiser(law, 2)
curvature = expected_dual.curvature(law, 2, star)
print("p* =", star.round(3), f" mu = {curvature.mu:.3f}, beta = {curvature.beta:.3f}")
figure, axis = canvas(width=4.6)
image = axis.imshow(expected_dual.edge_weights(law, 2, star), cmap="cividis")
axis.grid(visible=False)
axis.set(xlabel="expert", ylabel="expert", title="Edge weights: who competes with whom")
figure.colorbar(image)
show(figure, "An 8 by 8 map of positive weights, fairly even off the diagonal, zero on it.")
hessian = expected_dual.laplacian(expected_dual.edge_weights(law, 2, star))
h = 1e-4
slope = (
    expected_dual.selected(law, 2, star + h * np.eye(8)[0]) - expected_dual.selected(law, 2, star - h * np.eye(8)[0])
) / (2 * h)
assert np.abs(slope - hessian[:, 0]).max() < 1e-5  # finite differences agree

# %% [markdown]
# ### Only near balance
#
# The curvature is local. Biases further apart than the scores' range separate the experts: nobody is undecided, the weight is zero, the dual is flat.

# %%
assert expected_dual.curvature(score_laws.Uniform(2), 1, np.array([0, 0.5])).mu > 0.99
assert expected_dual.curvature(score_laws.Uniform(2), 1, np.array([0, 1.5])).mu == 0

# %% [markdown]
# ## Check it against the oracle
#
# The comparator is a [linear program](glossary.md#linear-program) too: the best fixed bias for all batches together is the dual of one large balanced assignment. No fixed bias does better in hindsight.

# %%
from loadsparse.theory import lagrangian, linear_program

batches = law.sample(np.random.default_rng(6), 6 * 16).reshape(6, 16, 8)
prices, total = online.hindsight(batches, 2)
assert abs(total - linear_program.solve(batches.reshape(96, 8), 2).value / 16) < 1e-9
assert sum(float(lagrangian.dual(batch, 2, star)) for batch in batches) / 16 >= total

# %% [markdown]
# ## Numbers
#
# Four step sizes, four seeds each, 3,000 batches of 64 tokens. For steps $1/(\mu(n + n_0))$ with $n_0 = 2\beta/\mu$, and $\beta$ the largest curvature, the theory promises ([statement D9](../theory/README.md#d9-regret))
#
# $$ \text{regret after } N \text{ batches} \;\le\; 2\beta\,\|p_0 - p^*\|^2 + \frac{V}{\mu T} \ln\!\left(1 + \frac{N}{n_0}\right), \qquad V = K\left(1 - \frac{K}{E}\right): $$
#
# `online.smooth_bound`, with V (`online.second_moment`) the most that $\|A - L\|^2$ of a single token can be. A logarithm is a straight line on this axis.

# %%
arms = {
    "1 / (mu (n + n0))": {
        "rule": "proportional",
        "rate": 1 / curvature.mu,
        "schedule": "1/n",
        "offset": 2 * curvature.beta / curvature.mu,
    },
    "0.3 / sqrt n": {"rule": "proportional", "rate": 0.3, "schedule": "1/sqrt(n)"},
    "sign, 0.1 / n": {"rule": "sign", "rate": 0.1, "schedule": "1/n"},
    "sign, u = 0.01": {"rule": "sign", "rate": 0.01},
}
runs = {
    name: experiment.regret([online.Setting(steps=3000, skew=0.8, seed=s, **arm) for s in range(4)])
    for name, arm in arms.items()
}
figure, axis = canvas()
for name, found in runs.items():
    axis.semilogx(found[0].steps, np.mean([r.expected for r in found], axis=0), label=name)
axis.set(xlabel="batches N", ylabel="regret", title="Regret against the best fixed bias", ylim=(0, 3))
axis.legend()
show(figure, "The 1/n steps bend into nearly level straight lines; the constant sign step curves upwards without end.")
steps = np.array(runs["1 / (mu (n + n0))"][0].steps)
mean = np.mean([r.expected for r in runs["1 / (mu (n + n0))"]], axis=0)
bound = online.smooth_bound(2, 8, 64, curvature.mu, curvature.beta, float(np.linalg.norm(star)), steps)
slope = online.log_slope(runs["1 / (mu (n + n0))"])
print(
    f"growth per ln N: {slope.mean:.4f}, 95% interval [{slope.low:.4f}, {slope.high:.4f}]; theory allows {online.second_moment(2, 8) / (curvature.mu * 64):.4f}"
)
assert (mean <= bound).all()
last = {name: np.mean([r.expected[-1] for r in found]) for name, found in runs.items()}
assert last["sign, u = 0.01"] > 3 * last["1 / (mu (n + n0))"]

# %% [markdown]
# ## Exercises
#
# 1. Double the batch size. What happens to the growth per ln N that the theory allows?
# 2. Run the [sign rule](glossary.md#sign-rule) with u = 0.001 / n. Why does its regret grow without end?
# 3. Let the scores drift (`drift=0.004`). Which rule follows?
#
# <details><summary>Answers</summary>
#
# 1. The allowed growth per ln N is V / (μ T): with T = 128 instead of 64 it halves, to what the cell prints. (V does not depend on T.)
# 2. It can travel only 0.001 (1 + ln N), 0.009 in 3,000 steps; the best biases reach from −0.157 to 0.179, so it pays nearly the same in every step.
# 3. The constant step: it follows; the vanishing one stays behind.
#
# </details>

# %%
allowed = {tokens: online.second_moment(2, 8) / (curvature.mu * tokens) for tokens in (64, 128)}  # exercise 1
print(f"growth per ln N allowed: {allowed[64]:.4f} at 64 tokens, {allowed[128]:.4f} at 128")
assert allowed[128] == allowed[64] / 2
assert round(0.001 * (1 + np.log(3000)), 3) == 0.009
stuck = online.simulate(online.Setting(steps=3000, skew=0.8, rule="sign", rate=0.001, schedule="1/n"))  # exercise 2
assert np.abs(stuck.bias).max() <= 0.001 * (1 + np.log(3000))
drifting = {"steps": 3000, "skew": 0.8, "rule": "proportional", "drift": 0.004}  # exercise 3
followed = online.simulate(online.Setting(rate=0.3, **drifting)).expected[-1]
lost = online.simulate(online.Setting(rate=1 / curvature.mu, schedule="1/n", **drifting)).expected[-1]
print(f"drifting scores: constant step {followed:.1f}, vanishing step {lost:.1f}")
assert followed < lost

# %% [markdown]
# ## Summary
#
# In expectation the dual is curved, by a graph that says which experts compete; steps of 1/(μn) then have logarithmic regret, with a slope that shrinks with the batch. A constant step has a floor, and a drifting world needs one. Next: [what happens in training](34_what_happens_in_training.ipynb), where the scores drift indeed.
