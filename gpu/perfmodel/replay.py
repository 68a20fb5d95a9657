"""Every published comparison again, ours beside theirs.

Run `python -m loadsparse.gpu.perfmodel.replay` or `loadsparse predict --replay`.  Only the calibration rows were fitted,
and each point says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from loadsparse.gpu.perfmodel.endtoend import end_to_end
from loadsparse.gpu.perfmodel.fit import calibration
from loadsparse.gpu.perfmodel.gpu import DATA, Gpu, load
from loadsparse.gpu.perfmodel.kernel import predict, roofline
from loadsparse.gpu.perfmodel.models import get

PEERS = ("sputnik", "sparta", "cublas")


@dataclass(frozen=True)
class Point:
    """One published number beside ours; None: out of memory.  `roofline` is the plain roofline's answer."""

    figure: str
    what: str
    published: float | None
    predicted: float | None
    roofline: float | None
    fitted: bool = False

    @property
    def error(self) -> float | None:
        """predicted / published - 1; None where either is out of memory."""
        return None if not self.published or not self.predicted else self.predicted / self.published - 1

    @property
    def agrees(self) -> bool:
        """Whether both or neither are out of memory."""
        return (self.published is None) == (self.predicted is None)


def published() -> dict[str, Any]:
    """The numbers of data/published.json."""
    data: dict[str, Any] = json.loads((DATA / "published.json").read_text(encoding="utf-8"))
    return data


def calibration_points() -> Iterator[Point]:
    """Milliseconds of the fitted rows."""
    for row in calibration():
        for kernel, seconds in row.seconds.items():
            found = predict(kernel, row.m, row.n, row.k, row.sparsity)
            what = f"{kernel} {row.m} x {row.n} x {row.k} at {row.sparsity:.0%}"
            yield Point("calibration", what, seconds * 1e3, found.seconds * 1e3, found.roofline_seconds * 1e3, True)


def sweep_points() -> Iterator[Point]:
    """Milliseconds against sparsity."""
    data = published()["sweep"]
    m, n, k = data["m"], data["n"], data["k"]
    for kernel in ("flash-llm", "cublas", "sparta", "sputnik"):
        for percent, value in data[kernel].items():
            found = predict(kernel, m, n, k, int(percent) / 100)
            yield Point("sweep", f"{kernel} at {percent}%", value, found.seconds * 1e3, found.roofline_seconds * 1e3)


def average_points() -> Iterator[Point]:
    """Mean speed-ups of Flash-LLM over 12 OPT shapes and three N; the headlines are means over the sparsities."""
    data = published()["averages"]
    shapes = [(a * h, b * h) for h in data["hidden"] for a, b in ((3, 1), (1, 1), (4, 1), (1, 4))]
    ratios: dict[str, list[float]] = {}
    roofs: dict[str, list[float]] = {}
    for peer in PEERS:
        for percent, value in data[peer].items():
            s = int(percent) / 100
            ours, plain = [], []
            for m, k in shapes:
                for n in data["n"]:
                    ours.append(predict(peer, m, n, k, s).seconds / predict("flash-llm", m, n, k, s).seconds)
                    plain.append(roofline(peer, m, n, k, s) / roofline("flash-llm", m, n, k, s))
            ratios.setdefault(peer, []).extend(ours)
            roofs.setdefault(peer, []).extend(plain)
            yield Point("averages", f"over {peer} at {percent}%", value, fmean(ours), fmean(plain))
    for peer, value in data["headline"].items():
        yield Point("averages", f"over {peer}, headline", value, fmean(ratios[peer]), fmean(roofs[peer]))


def spinfer_points() -> Iterator[Point]:
    """Mean speed-ups of SpInfer on another GPU: counted for the A100, timed by its authors, never fitted."""
    data = published()["spinfer"]
    m, k, gpu = data["m"], data["k"], data["gpu"]
    grid = [(n, s) for n in data["n"] for s in data["sparsity"]]
    for peer in ("cublas", "flash-llm"):
        ours = [predict(peer, m, n, k, s, gpu).seconds / predict("spinfer", m, n, k, s, gpu).seconds for n, s in grid]
        plain = [roofline(peer, m, n, k, s, gpu) / roofline("spinfer", m, n, k, s, gpu) for n, s in grid]
        yield Point("RTX 4090", f"spinfer over {peer}", data[peer], fmean(ours), fmean(plain))


def end_to_end_points() -> Iterator[Point]:
    """Tokens per GPU-second of OPT-66B."""
    data = published()["end_to_end"]
    for name in ("flash-llm", "fastertransformer", "deepspeed"):
        for gpus, batches in data[name].items():
            for batch, value in batches.items():
                found = end_to_end(
                    data["model"], name, int(gpus), int(batch),
                    sparsity=data["sparsity"], prompt=data["prompt"], output=data["output"],
                )  # fmt: skip
                what = f"{name}, {gpus} GPUs, batch {batch}"
                yield Point("end to end", what, value, found.tokens_per_gpu_second or None, None)


def measured(
    model: str, kernel: str, gpus: int, batch: int, *, gpu: str | Gpu, sparsity: float, prompt: int, output: int
) -> float | str | None:
    """Published tokens per GPU-second of exactly this configuration, "out of memory", or None: nobody published it."""
    data = published()["end_to_end"]
    asked = (get(model).name, load(gpu), prompt, output)
    if asked != (data["model"], load("a100-80gb"), data["prompt"], data["output"]):
        return None
    if kernel == "flash-llm" and sparsity != data["sparsity"]:
        return None
    rates = data.get(kernel, {}).get(str(gpus), {})
    return (rates[str(batch)] or "out of memory") if str(batch) in rates else None


def points() -> list[Point]:
    """Everything, in the order of the paper."""
    return [*calibration_points(), *sweep_points(), *average_points(), *spinfer_points(), *end_to_end_points()]


def summary(found: list[Point]) -> list[dict[str, Any]]:
    """Mean and largest absolute relative error by figure and kernel, ours and the roofline's."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in found:
        who = point.what.removeprefix("over ").split()[0].strip(",")
        groups.setdefault((point.figure, who), []).append(point)
    rows = []
    for (figure, who), members in groups.items():
        errors = [abs(p.error) for p in members if p.error is not None]
        plain = [abs(p.roofline / p.published - 1) for p in members if p.roofline and p.published]
        rows.append({
            "figure": figure, "kernel": who, "points": len(members), "fitted": members[0].fitted,
            "mean_error": fmean(errors) if errors else None, "largest_error": max(errors, default=None),
            "roofline_mean_error": fmean(plain) if plain else None, "memory_agrees": all(p.agrees for p in members),
        })  # fmt: skip
    return rows


def main() -> None:
    """Print every point that was not fitted, then the summary."""
    found = points()
    for point in found:
        if not point.fitted:
            theirs, ours = (f"{v:9.3f}" if v else "   memory" for v in (point.published, point.predicted))
            plain = f"{point.roofline:9.3f}" if point.roofline else " " * 9
            error = f"{point.error:+7.1%}" if point.error is not None else ("   same" if point.agrees else "  WRONG")
            print(f"{point.figure:12} {point.what:38} {theirs} {ours} {error}   roofline {plain}")
    print()
    for row in summary(found):
        mean, largest, roof = (f"{v:7.1%}" if v is not None else "      -" for v in
                               (row["mean_error"], row["largest_error"], row["roofline_mean_error"]))  # fmt: skip
        fit = "fitted" if row["fitted"] else "      "
        print(
            f"{row['figure']:12} {row['kernel']:18} {row['points']:4} points {fit} mean {mean} largest {largest} roofline {roof}"
        )


if __name__ == "__main__":
    main()
