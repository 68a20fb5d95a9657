"""`loadsparse llm`: a real small language model, pruned: its perplexity, and one of its blocks on our kernels."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadsparse.cli.console import Json, Plain, bad_input, console, progress

if TYPE_CHECKING:
    from loadsparse.reference.llm import Model

app = typer.Typer(
    help="A real small language model, pruned: perplexity, and a block on our kernels.", no_args_is_help=True
)

ModelFile = Annotated[
    Path | None, typer.Option("--model", help="A .gguf file; default: SmolLM2-135M-Instruct, fetched once (98 MB).")
]
TextFile = Annotated[Path | None, typer.Option("--text", help="UTF-8 text; default: Python's own language reference.")]
WHY = (
    "One-shot pruning without any retraining. A small model has few weights to spare, and errors add up over its blocks; "
    "the authors of Flash-LLM retrain at 80% (cited: accuracy -1.44% on OPT-30B)."
)


def _load(model: Path | None, text: Path | None, tokens: int) -> tuple[Model, list[int], dict[str, Any]]:
    """The model, 2 x `tokens` tokens of the text (evaluation, then calibration), and where both come from."""
    from loadsparse.gpu.verify.errors import InputError
    from loadsparse.reference import llm, weights

    path = weights.fetch("smollm2") if model is None else model
    try:
        found, tokenizer = llm.load(path)
    except llm.ModelError as error:
        raise InputError(str(error)) from None
    try:
        read = llm.sample_text() if text is None else text.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{text}: not UTF-8 text") from None
    numbers = tokenizer.encode(read[: 16 * tokens])  # a token is far shorter than 8 characters on average
    if len(numbers) < 2 * tokens:
        raise InputError(f"the text has {len(numbers)} tokens; {2 * tokens} are asked for: lower --tokens")
    default = f"the language reference in Python {platform.python_version()}"
    source = {
        "model": path.name if model is not None else f"{path.name} (dequantised 4-bit)",
        "text": str(text) if text is not None else default,
        "text_sha256": hashlib.sha256(read.encode()).hexdigest(),
    }
    return found, numbers[: 2 * tokens], source


@app.command()
def perplexity(
    model: ModelFile = None,
    text: TextFile = None,
    sparsity: Annotated[str, typer.Option(help="Shares of zeros, with commas.")] = "0.5,0.6,0.7,0.8",
    tokens: Annotated[
        int, typer.Option(help="Tokens to judge on; Wanda is calibrated on as many others.", min=2)
    ] = 1024,
    window: Annotated[int, typer.Option(help="Tokens that are seen together.", min=2, max=8192)] = 512,
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """Perplexity on real text: dense, and pruned once by magnitude and by Wanda.

    Example: loadsparse llm perplexity --sparsity 0.5,0.8 --tokens 512
    """
    with bad_input():
        from loadsparse.gpu.verify.errors import InputError
        from loadsparse.reference import llm

        try:
            shares = [float(share) for share in sparsity.split(",")]
        except ValueError:
            raise InputError(f"--sparsity {sparsity}: give numbers with commas, such as 0.5,0.8") from None
        if not all(0 <= share <= 1 for share in shares):
            raise InputError(f"--sparsity {sparsity}: a sparsity lies between 0 and 1")
        found, numbers, source = _load(model, text, tokens)
        rows: list[dict[str, Any]] = []
        wanted = [("dense", 0.0)] + [(method, share) for method in ("magnitude", "wanda") for share in shares]
        with progress("perplexity", quiet=as_json or plain) as update:
            update("calibrating", 0, len(wanted))
            norms = llm.activation_norms(found, numbers[tokens:], window)
            for done, (method, share) in enumerate(wanted):
                update(f"{method} {share:.0%}", done, len(wanted))
                variant = found
                if method != "dense":
                    variant = llm.pruned(found, share, norms if method == "wanda" else None)
                judged = llm.perplexity(variant, numbers[:tokens], window)
                rows.append(
                    {"method": method, "sparsity": share, "perplexity": judged.perplexity, "tokens": judged.tokens}
                )
    if as_json:
        typer.echo(json.dumps({**source, "window": window, "rows": rows, "note": WHY}))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("pruned by", "sparsity", "perplexity", "x dense"):
        table.add_column(name, justify="left" if name == "pruned by" else "right")
    for row in rows:
        ratio = row["perplexity"] / rows[0]["perplexity"]
        table.add_row(row["method"], f"{row['sparsity']:.0%}", f"{row['perplexity']:.2f}", f"{ratio:.2f}")
    out = console(plain)
    out.print(table)
    out.print(
        f"{source['model']} on {rows[0]['tokens']} tokens of {source['text']}, windows of {window}.",
        markup=False,
    )
    out.print(WHY, markup=False)


@app.command()
def block(
    model: ModelFile = None,
    text: TextFile = None,
    index: Annotated[int, typer.Option(help="Which block.", min=0)] = 15,
    kernel: Annotated[str, typer.Option(help="The kernel that takes all seven products.")] = "lscd",
    sparsity: Annotated[float, typer.Option(help="Share of zeros, by magnitude.", min=0, max=1)] = 0.8,
    tokens: Annotated[int, typer.Option(help="Tokens decoded at once: N of the products.", min=2, max=128)] = 16,
    arch: Annotated[str, typer.Option(help="Whose Tensor Cores: sm_80, sm_89 or sm_90.")] = "sm_80",
    as_json: Json = False,
    plain: Plain = False,
) -> None:
    """One decoder block of the pruned model with all matrix products on a kernel, in the simulator, verified.

    Example: loadsparse llm block --index 0 --kernel bitmap
    """
    with bad_input():
        from loadsparse.gpu.llm import run_block
        from loadsparse.gpu.verify.errors import InputError
        from loadsparse.reference import llm

        found, numbers, source = _load(model, text, tokens)
        if index >= len(found.blocks):
            raise InputError(f"there is no block {index}: the model has 0 to {len(found.blocks) - 1}")
        with progress("block", quiet=as_json or plain) as update:
            update("blocks before it", 0, 2)
            variant = llm.pruned(found, sparsity)
            x = variant.embedding[numbers[:tokens]]
            for before in range(index):
                x = variant.block(before, x)
            update("its products, simulated", 1, 2)
            run = run_block(variant, index, x, kernel, arch)
    if as_json:
        rows = [{**vars(product), "ok": product.ok} for product in run.products]
        typer.echo(
            json.dumps(
                {**source, "ok": run.ok, "block": index, "kernel": kernel, "arch": arch, "sparsity": sparsity}
                | {"exact": run.exact, "error": run.error, "products": rows}
            )
        )
        raise typer.Exit(0 if run.ok else 1)
    from rich import box
    from rich.table import Table

    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
    for name in ("product", "M x N x K", "exact", "accurate", "clean", "complete", "warp instructions", "bytes of A"):
        table.add_column(name, justify="left" if name == "product" else "right")
    for product in run.products:
        verdicts = (product.exact, product.accurate, product.clean, product.complete)
        table.add_row(
            product.name,
            " x ".join(map(str, product.shape)),
            *("-" if verdict is None else "yes" if verdict else "NO" for verdict in verdicts),
            f"{product.instructions:,}",
            f"{product.bytes_a:,}",
        )
    out = console(plain)
    out.print(table)
    same = "equals" if run.exact else "DIFFERS FROM"
    out.print(
        f"The block's output {same} the NumPy block on the Tensor Core oracle's products, bit for bit; "
        f"to float32 throughout it differs by {run.error:.1e} of the largest value. Counted by the simulator.",
        markup=False,
    )
    raise typer.Exit(0 if run.ok else 1)
