"""Prune the trained experts, run them on the sparse kernels, and recover: `python -m deepseekmoe.prune` after `train`.

For each sparsity: bits per byte before and after a short training in which what was pruned stays zero; bytes of all
experts, dense and in the kernels' formats; and every product of a MoE layer on real tokens, executed by the simulator
and judged as `loadsparse verify` judges.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer

from loadsparse.cli.console import fail, progress
from loadsparse.gpu.moe import SparseLayer, activate
from loadsparse.gpu.verify.experts import ExpertCase
from loadsparse.gpu.verify.run import judge_launch
from loadsparse.reference import moe, pruning
from loadsparse.theory import experiment

from . import data, model, report, results, run
from .train import HERE, STORE, settings

SPARSITIES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
KERNELS = ("grouped_lscd", "grouped_bitmap")
RECOVERY_STEPS, RECOVERY_RATE = 100, 1e-3
JUDGED_TOKENS = 128


def pruned(weights: model.Weights, sparsity: float) -> model.Weights:
    """The weights with every matrix of every expert of the MoE blocks pruned by magnitude, routed and shared alike."""

    def cut(stacked: jax.Array) -> jax.Array:
        return jnp.asarray(np.stack([pruning.magnitude(np.asarray(matrix), sparsity) for matrix in stacked]))

    blocks = [
        block | {group: jax.tree.map(cut, block[group]) for group in ("shared", "routed") if group in block}
        for block in weights["blocks"]
    ]
    return weights | {"blocks": blocks}


@lru_cache(maxsize=2)
def recovery(config: model.Config) -> tuple[optax.GradientTransformation, Any]:
    """(AdamW, one compiled training step in which zeros stay zeros)."""
    rule = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RECOVERY_RATE, b2=0.95))

    def step(weights: Any, moments: Any, text: Any, biases: Any) -> tuple[Any, Any]:
        gradient = jax.grad(lambda w: model.loss(w, text, biases, 0.0, config)[0])(weights)
        updates, moments = rule.update(gradient, moments, weights)
        updates = jax.tree.map(lambda update, weight: jnp.where(weight != 0, update, 0), updates, weights)
        return optax.apply_updates(weights, updates), moments

    return rule, jax.jit(step, donate_argnums=(0, 1))


def recovered(weights: model.Weights, biases: np.ndarray, setting: run.Setting, text: data.Corpus, steps: int) -> Any:
    """The weights after `steps` steps on the batches that would have come next; the bias stays."""
    rule, step = recovery(setting.config)
    moments = rule.init(weights)
    weights, p = jax.tree.map(jnp.copy, weights), jnp.asarray(biases, jnp.float32)
    for number in range(setting.steps, setting.steps + steps):
        batch = text.batch(setting.seed, number, setting.sequences, setting.config.sequence)
        weights, moments = step(weights, moments, jnp.asarray(batch), p)
    return weights


def layer_of(block: model.Weights, k: int, dtype: Any = np.float16) -> moe.Layer:
    """A MoE block as the layer of `reference.moe`, its experts rounded to `dtype`."""

    def experts(stacked: model.Weights) -> tuple[moe.Expert, ...]:
        parts = [np.asarray(stacked[name]).astype(dtype) for name in ("gate", "up", "down")]
        return tuple(moe.Expert(*(part[number] for part in parts)) for number in range(len(parts[0])))

    return moe.Layer(np.asarray(block["router"], np.float64), experts(block["shared"]), experts(block["routed"]), k)


def judged(layer: moe.Layer, x: np.ndarray, bias: np.ndarray, kernel: str) -> dict[str, Any]:
    """Both launches of a layer on tokens x float16 [T, D], judged as verify judges, and its output against the dense layer.

    error: largest |y - y of `reference.moe`| over the largest |y|.
    """
    encoded, dense = SparseLayer.encode(layer, kernel), moe.forward(layer, x, bias)
    gates = np.take_along_axis(dense.gates, dense.choices, axis=1)
    tokens, _, counts = encoded.by_expert(dense.choices, gates)
    experts = (*layer.routed, *layer.shared)
    b = np.ascontiguousarray(x[tokens].T)
    rows = []
    for name, matrices, held in (
        ("gate and up", [np.concatenate([moe.dense(e.gate), moe.dense(e.up)]) for e in experts], encoded.gate_up),
        ("down", [moe.dense(e.down) for e in experts], encoded.down),
    ):
        case = ExpertCase(
            name, np.asarray(matrices, np.float16), b, "f16", "trained experts, real tokens", tuple(counts.tolist())
        )
        launch = encoded.kernel.plan(held, b, counts)
        row = judge_launch(launch, case, kernel=kernel)
        rows.append(
            {"product": name, "ok": row.ok}
            | {field: getattr(row, field) for field in ("exact", "accurate", "clean", "complete")}
        )
        if name != "down":
            b = activate(launch.run()[0])
    y = encoded.forward(x, bias).y
    error = float(np.abs(y - dense.y).max() / np.abs(dense.y).max())
    return {"products": rows, "error": error, "ok": all(row["ok"] for row in rows)}


def expert_bytes(layer: moe.Layer) -> dict[str, int]:
    """Bytes of all experts of a layer: dense float16, and as each kernel holds them."""
    dense = sum(2 * moe.dense(part).size for e in (*layer.routed, *layer.shared) for part in (e.gate, e.up, e.down))
    return {"dense": dense} | {kernel: SparseLayer.encode(layer, kernel).nbytes for kernel in KERNELS}


def one(task: dict[str, Any], folder: str) -> dict[str, Any]:
    """One sparsity of one trained run: {"setting": ..., "sparsity", "steps"} -> its record."""
    setting, sparsity = run.Setting(**task["setting"]), task["sparsity"]
    trained, _ = run.run(setting, Path(folder))
    text, config = data.standard_library(), setting.config
    _, look = run.compiled(config, setting.steps, setting.rate)
    windows = text.windows(setting.windows, config.sequence)

    def bits(weights: model.Weights) -> float:
        return run.evaluate(weights, trained.biases, windows, setting.sequences, look)[0]

    before = pruned(trained.weights, sparsity)
    after = recovered(before, trained.biases, setting, text, task["steps"])
    layers = [layer_of(block, config.k) for block in after["blocks"] if "router" in block]
    found: dict[str, Any] = {
        "before": round(bits(before), 5),
        "after": round(bits(after), 5),
        "bytes": {name: sum(expert_bytes(layer)[name] for layer in layers) for name in ("dense", *KERNELS)},
    }
    if sparsity > 0:
        _, routings = look(
            after, jnp.asarray(windows[:: max(1, len(windows) // 8)][:8]), jnp.asarray(trained.biases, jnp.float32)
        )
        xs = [
            np.asarray(routing.inputs)[:: max(1, len(routing.inputs) // JUDGED_TOKENS)].astype(np.float16)
            for routing in routings
        ]
        found["kernels"] = {
            kernel: [judged(layer, x, bias, kernel) for layer, x, bias in zip(layers, xs, trained.biases, strict=True)]
            for kernel in KERNELS
        }
    return found


def markdown(log: results.Record) -> str:
    """The table: one row per sparsity, mean and 95% interval over seeds; bytes and errors are those of the first seed."""
    lines = [
        "| sparsity | bits/byte pruned | after recovery | lost | bytes LSCD | bytes bitmap | products judged | largest error |",
        "|---" * 8 + "|",
    ]
    rows = {
        s: [one for one in log["rows"] if one["sparsity"] == s] for s in sorted({r["sparsity"] for r in log["rows"]})
    }
    dense = {one["seed"]: one["after"] for one in rows[0.0]}
    for sparsity, found in rows.items():
        lost = results.interval([one["after"] - dense[one["seed"]] for one in found if one["seed"] in dense])
        held = found[0]["bytes"]
        shares = " | ".join(f"{held[kernel] / held['dense']:.1%}" for kernel in KERNELS)
        layers = [layer for one in found for kernel in one.get("kernels", {}).values() for layer in kernel]
        products = [product for layer in layers for product in layer["products"]]
        good = f"{sum(product['ok'] for product in products)} of {len(products)}" if products else "-"
        error = f"{max(layer['error'] for layer in layers):.1e}" if layers else "-"
        values = (results.interval([one[name] for one in found]) for name in ("before", "after"))
        lines.append(f"| {sparsity:.0%} | " + " | ".join(map(str, (*values, lost, shares, good, error))) + " |")
    return "\n".join(lines)


app = typer.Typer(add_completion=False)


@app.command()
def command(
    arm: Annotated[str, typer.Option(help="The trained arm to prune.")] = "sign 1e-3",
    seeds: Annotated[int, typer.Option(help="Its runs, with seeds 0, 1, ...", min=1, max=100)] = 3,
    steps: Annotated[int, typer.Option(help="Training steps of the recovery.", min=1)] = RECOVERY_STEPS,
    store: Annotated[Path, typer.Option(help="Folder of finished runs.")] = STORE,
    folder: Annotated[Path, typer.Option(help="Where prune.json and README.md are.")] = HERE,
    workers: Annotated[int | None, typer.Option(help="Local processes; default: one per core.", min=1)] = None,
) -> None:
    """Prune trained experts to 50-90%, judge the sparse kernels on them, recover; writes prune.json and its table."""
    try:
        wanted = [one for one in settings([arm], seeds) if experiment.stored(store, run.to_task(one)) is not None]
        if not wanted:
            raise ValueError(
                f"{store} holds no finished run of {arm!r}: run `python -m deepseekmoe.train --arm '{arm}'`"
            )
        tasks = [
            {"setting": run.to_task(setting), "sparsity": sparsity, "steps": steps}
            for setting in wanted
            for sparsity in SPARSITIES
        ]
        work = partial(one, folder=str(store.resolve()))
        with progress("pruning", quiet=False) as update:
            found = experiment.run_all(
                work,
                tasks,
                experiment.Processes(workers),
                store / "pruned",
                lambda done, total: update("pruning", done, total),
            )
    except ValueError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or 'file'}: {error.strerror or error}") from None
    rows = [
        {"seed": task["setting"]["seed"], "sparsity": task["sparsity"]} | record
        for task, record in zip(tasks, found, strict=True)
    ]
    log = {
        "command": "cd tutorials && python -m deepseekmoe.prune",
        "versions": report.versions(),
        "setting": asdict(wanted[0]) | {"recovery_steps": steps, "recovery_rate": RECOVERY_RATE},
        "rows": rows,
    }
    report.replace(folder / "prune.json", report.to_text(log, "rows").encode())
    report.into(folder / "README.md", "pruning", markdown(log))
    print(markdown(log))


if __name__ == "__main__":
    app()
