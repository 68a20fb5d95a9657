"""The `loadsparse` command: a thin skin; every command calls a function that a notebook can call.

Nothing heavy is imported here, so that `--help` answers at once: each command imports what it runs.
"""

from __future__ import annotations

import os
import sys

import typer

from loadsparse.cli import (
    balance,
    claims,
    compare,
    learn,
    llm,
    predict,
    profile,
    puzzle,
    regret,
    trace,
    verify,
    weights,
)
from loadsparse.cli.console import fail

UsageError = typer.BadParameter.__base__  # a wrong option, argument or command; typer gives it no name of its own

app = typer.Typer(
    name="loadsparse",
    help="Load sparse, compute dense, balance the load: verify Tensor Core kernels without a GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("verify")(verify.command)
app.command("predict")(predict.command)
app.command("compare")(compare.command)
app.command("profile")(profile.command)
app.command("trace")(trace.command)
app.command("balance")(balance.command)
app.command("regret")(regret.command)
app.command("claims")(claims.command)
app.command("learn")(learn.command)
app.add_typer(puzzle.app, name="puzzle")
app.add_typer(llm.app, name="llm")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Entry point: exit 0 on success, 1 on a failed check, 2 on bad input with one line on stderr."""
    os.environ.setdefault(
        "NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1"
    )  # where colorama is, it would end every output
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a pipe without UTF-8 must not end in a traceback
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            raise SystemExit(2) from None
        raise SystemExit(fail(f"{error.format_message()} (see --help)").exit_code) from None
    except typer.Abort:
        raise SystemExit(130) from None
    raise SystemExit(code or 0)


if __name__ == "__main__":
    main()
