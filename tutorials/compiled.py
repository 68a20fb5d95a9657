"""The CUDA C++ of the course, compiled: only NVIDIA's compiler reads it, and not every learner has that.

    ptx = compiled.cuda(source)      the packaged PTX of a source of the course; any other source is compiled

`make shelf` fills compiled.zip; a test compiles every source in it anew and compares.
"""

from __future__ import annotations

import json
import zipfile
from functools import cache
from pathlib import Path

from loadsparse.gpu import compiler

PACKAGED = Path(__file__).resolve().with_name("compiled.zip")
ARCH = "sm_80"


@cache
def packaged() -> dict[str, str]:
    """PTX by source."""
    with zipfile.ZipFile(PACKAGED) as archive:
        found: dict[str, str] = json.loads(archive.read("ptx.json"))
    return found


def cuda(source: str) -> str:
    """PTX for sm_80 of CUDA C++.  Raises compiler.CompileError: NoCompilerError where a new source needs NVIDIA's compiler."""
    return packaged().get(source) or compiler.cuda(source, ARCH)
