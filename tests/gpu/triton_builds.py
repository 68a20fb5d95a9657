"""The Triton kernels of test_triton.py, compiled here or as recorded: Triton is a gigabyte that not everybody installs.

python tests/gpu/triton_builds.py     compiles them anew into tests/gpu/data/triton.json (needs Triton)
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from loadsparse.gpu import compiler
from loadsparse.gpu.triton_kernel import TritonKernel

RECORD = Path(__file__).with_name("data") / "triton.json"
ADDED = ("add", "*fp32:16, *fp32:16, *fp32:16, i32", {"BLOCK": 256})
MULTIPLIED = ("multiply", "*fp16:16, *fp16:16, *fp32:16, i32:16", {"N": 32, "BM": 32, "BK": 32})
BUILDS: dict[str, tuple[tuple[str, str, dict[str, int]], str, dict[str, Any]]] = {
    **{f"add {arch}": (ADDED, arch, {"num_warps": 2}) for arch in ("sm_80", "sm_89", "sm_90")},
    **{f"multiply {arch}": (MULTIPLIED, arch, {"num_stages": 3}) for arch in ("sm_80", "sm_89")},
    "double_without_mask": (("double_without_mask", "*fp32:16, *fp32:16", {"BLOCK": 256}), "sm_80", {}),
}
"""(kernel of triton_programs, types, constants), architecture, Triton's options."""


def fresh(name: str) -> TritonKernel:
    """Compiled now."""
    (kernel, types, constants), arch, options = BUILDS[name]
    return compiler.triton(getattr(import_module("triton_programs"), kernel), types, constants, arch, **options)


def recorded(name: str) -> TritonKernel:
    """As it was compiled."""
    found = json.loads(RECORD.read_text(encoding="utf-8"))["kernels"][name]
    return TritonKernel(**{**found, "scratch": tuple(found["scratch"]), "ptx": "\n".join(found["ptx"])})


def main() -> None:
    kernels = {}
    for name in BUILDS:
        built = fresh(name)
        text = built.ptx.partition("\t.section")[0]  # what follows is for debuggers, and knows the folder
        text = re.sub(r'(\.file\s+\d+\s+").*[/\\](.*")', r"\1\2", text)
        kernels[name] = asdict(replace(built, ptx="")) | {"ptx": text.splitlines()}
    record = {"triton": import_module("triton").__version__, "kernels": kernels}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
