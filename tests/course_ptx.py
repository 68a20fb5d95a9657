"""Compile the CUDA C++ of the tutorials into tutorials/compiled.zip: part of `make shelf`.

A chapter's sources are what it asks `compiled.cuda` for when all of its cells run.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import notebooks

from loadsparse.gpu import compiler
from loadsparse.tutorials import compiled

MADE = notebooks.TUTORIALS / "compiled.zip"
DATE = (1980, 1, 1, 0, 0, 0)  # the archive depends on its contents alone


def chapters() -> list[Path]:
    return [script for script in notebooks.scripts() if "compiled.cuda(" in script.read_text(encoding="utf-8")]


def fresh(source: str) -> str:
    """PTX of today's compiler, without the folder it ran in."""
    return compiler.cuda(source, compiled.ARCH).replace(f'"{os.getcwd()}/', '"')


def sources(script: Path) -> list[str]:
    """What the chapter compiles, in order."""
    asked: dict[str, str] = {}

    def cuda(source: str) -> str:
        return asked.setdefault(source, fresh(source))

    code = [cell.source for cell in notebooks.source(script).cells if cell.cell_type == "code"]
    with patch.object(compiled, "cuda", cuda), patch("IPython.display.display"), redirect_stdout(io.StringIO()):
        exec(compile("\n".join(code), str(script), "exec"), {"__name__": "chapter"})
    return list(asked)


def main() -> None:
    sys.path.insert(0, str(notebooks.TUTORIALS))
    found = {source: fresh(source) for script in chapters() for source in sources(script)}
    part = MADE.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        archive.writestr(zipfile.ZipInfo("ptx.json", DATE), json.dumps(found, indent=0), zipfile.ZIP_LZMA)
    os.replace(part, MADE)
    print(f"{MADE.name}: {len(found)} sources, {MADE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
