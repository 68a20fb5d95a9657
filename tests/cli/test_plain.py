"""On a terminal, `--plain` prints no control codes and NO_COLOR no colours: for screen readers, logs and eyes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from loadsparse.cli.main import app

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")

ESCAPE = re.compile(rb"\x1b")
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d|10\d)(?:;\d+)*m")
ALWAYS_PLAIN = {
    "trace": ["trace", "lscd", "--shape", "16,8,16", "--count", "3", "--plain"],
    "learn": ["learn", "here", "--no-open"],
    "puzzle start": ["puzzle", "start", "1"],
    "weights fetch": ["weights", "fetch", "nothing-of-this-name"],
}
CHEAP = (
    ["claims"],
    ["puzzle", "list"],
    ["puzzle", "check", "1", "answer.py"],
    ["predict", "lscd", "--shape", "128,8,128", "--sparsity", "0.8"],
    ["balance", "skewed:64,8", "--top-k", "2"],
)


def commands(group: Any, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """(name, options) of every command."""
    for word, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {word}".strip())
    if not hasattr(group, "commands"):
        yield name, {option for parameter in group.params for option in getattr(parameter, "opts", ())}


def on_a_terminal(folder: Path, arguments: list[str], **variables: str) -> bytes:
    """What a command writes to a terminal with 256 colours."""
    (folder / "answer.py").write_text("def kernel(out, a, b):\n    out[0] = a[0] - b[0]\n")
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "loadsparse.cli.main", *arguments]
    environment = {**kept, "TERM": "xterm-256color", **variables}
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, cwd=folder, env=environment):
        os.close(terminal)
        written = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # Linux's way to say that the other side has closed
                break
            if not piece:
                break
            written += piece
    os.close(main)
    return written


def test_every_command_can_be_plain() -> None:
    assert not {name for name, options in commands(typer.main.get_command(app)) if "--plain" not in options}


@pytest.mark.parametrize("name", ALWAYS_PLAIN)
def test_some_commands_are_always_plain(name: str, tmp_path: Path) -> None:
    written = on_a_terminal(tmp_path, ALWAYS_PLAIN[name])
    assert written
    assert not ESCAPE.search(written)


@pytest.mark.parametrize("arguments", CHEAP, ids=" ".join)
def test_plain_and_no_color(arguments: list[str], tmp_path: Path) -> None:
    plain = on_a_terminal(tmp_path, [*arguments, "--plain"])
    assert plain
    assert not ESCAPE.search(plain)
    assert not COLOUR.search(on_a_terminal(tmp_path, arguments, NO_COLOR="1"))


def test_colours_are_seen(tmp_path: Path) -> None:
    """What the tests above look for is there without NO_COLOR."""
    written = on_a_terminal(tmp_path, ["puzzle", "check", "1", "answer.py"])
    assert COLOUR.search(written)
    assert b"not yet" in written
