"""The shelf: PTX of the project's own kernels as NVIDIA's compiler makes it, packaged, so that no compiler has to run.

A kernel's variant on the shelf is used only while it is current: each entry carries a digest of the source files that it was
made from.  What is not there, or no longer current, is compiled.  `make shelf` fills it; the file is a zip archive:

    about.json                  versions of the compilers that made it
    lscd.compiled.json          {"digest": of the sources, "ptx": {arguments as JSON: PTX, file names relative to the package}}

It is read as data that anybody may have written: sizes are limited, and what is no such archive is one CompileError.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import zipfile
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from loadsparse.gpu.compiler import CompileError

SHELF = Path(__file__).parent / "shelf.zip"
PACKAGE = Path(__file__).parents[2]
LARGEST = 64 * 2**20
"""Most bytes of one member when unpacked."""


def shelved(build: Callable[..., str]) -> Callable[..., str]:
    """Decorator of a function that compiles a kernel: its PTX from the shelf, or compiled, once per process."""
    signature = inspect.signature(build)

    @cache
    @wraps(build)
    def ptx(*args: Any, **options: Any) -> str:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        found = entries(name_of(build)).get(json.dumps(bound.arguments))
        return build(*args, **options) if found is None else with_places(found)

    return ptx


def name_of(build: Callable[..., str]) -> str:
    """ "lscd.compiled": how the shelf calls a function."""
    return f"{build.__module__.rpartition('.')[2]}.{build.__name__}"


@cache
def entries(name: str) -> dict[str, str]:
    """Current PTX of one function by its arguments; none if the shelf lacks it or the sources changed.  Raises CompileError."""
    if not SHELF.exists():
        return {}
    try:
        found = member(f"{name}.json")
        if found is None:
            return {}
        texts: dict[str, str] = found["ptx"]
        if not (isinstance(found["digest"], str) and all(isinstance(text, str) for text in texts.values())):
            raise ValueError(f"{name}.json is no table of texts")
    except Exception as error:  # zipfile, its decompressors and json each raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CompileError(
            f"{SHELF.name}, the packaged kernels, is damaged: {reason}; delete it, or reinstall"
        ) from error
    return texts if found["digest"] == digest(name.partition(".")[0]) else {}


def member(name: str) -> Any:
    """One JSON member of the archive; None if there is no such member.  Raises ValueError, BadZipFile and the like."""
    with zipfile.ZipFile(SHELF) as archive:
        if name not in archive.namelist():
            return None
        if (size := archive.getinfo(name).file_size) > LARGEST:
            raise ValueError(f"{name} would unpack to {size} bytes")
        return json.loads(archive.read(name))


def digest(module: str) -> str:
    """SHA-256 of the sources that a kernel of `module` is made from: see `sources`."""
    made = hashlib.sha256()
    for path in sources(module):
        made.update(f"{path.relative_to(PACKAGE).as_posix()}\n{path.read_text(encoding='utf-8')}\0".encode())
    return made.hexdigest()


def sources(module: str) -> list[Path]:
    """The module, those of gpu/kernels that it imports (and they, and so on), the compiler, the intrinsics, the formats."""
    kernels, formats = PACKAGE / "gpu" / "kernels", PACKAGE / "reference" / "formats"
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        seen |= waiting
        texts = [(kernels / f"{name}.py").read_text(encoding="utf-8") for name in waiting]
        waiting = {name for text in texts for name in imported(text) if (kernels / f"{name}.py").exists()} - seen
    common = [PACKAGE / "gpu" / "compiler.py", PACKAGE / "gpu" / "intrinsics.py"]
    return [*(kernels / f"{name}.py" for name in sorted(seen - {"shelf"})), *common, *sorted(formats.glob("*.py"))]


def imported(text: str) -> set[str]:
    """Names that a source may import from gpu/kernels."""
    whole = re.findall(r"^\s*from loadsparse\.gpu\.kernels import (\([^)]*\)|.*)$", text, re.MULTILINE)
    return set(re.findall(r"\bloadsparse\.gpu\.kernels\.(\w+)", text)) | set(re.findall(r"\w+", " ".join(whole)))


def without_places(ptx: str) -> str:
    """PTX whose file names are relative to the package."""
    return ptx.replace(f'"{PACKAGE.as_posix()}/', '"')


def with_places(ptx: str) -> str:
    """PTX whose file names are those of this installation."""
    return re.sub(
        r'^(\s*\.file\s+\d+ ")(?=gpu/)', lambda found: f"{found[1]}{PACKAGE.as_posix()}/", ptx, flags=re.MULTILINE
    )
