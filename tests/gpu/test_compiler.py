"""Sources to PTX, PTX to machine code: names, registers, spills, and one line for every refusal."""

from __future__ import annotations

import re
from typing import Any

import pytest
from numba import cuda, uint32, uint64

from loadsparse.gpu import compiler
from loadsparse.gpu.intrinsics import cp_async_wait, load_global, store_global
from loadsparse.gpu.kernels import bitmap, lscd

BITMAP: dict[str, Any] = {"stages": 4, "copies": 5}


def copy(a, c):  # type: ignore[no-untyped-def]
    at = uint64(uint32(cuda.threadIdx.x)) * uint64(4)
    store_global(c + at, 0, load_global(a + at, 0))


@cuda.jit(device=True, inline="always")
def copied(c, a, at):  # type: ignore[no-untyped-def]
    value = load_global(a + at, 0)
    store_global(c + at, 0, value)


def copy_by_a_device_function(a, c):  # type: ignore[no-untyped-def]
    copied(c, a, uint64(uint32(cuda.threadIdx.x)) * uint64(4))


def test_inlined_code_keeps_the_line_it_was_written_in() -> None:
    """Above the kernel's def; and code of another file (intrinsics.py) has the line that called it."""
    ptx = compiler.numba(copy_by_a_device_function, "void(uint64, uint64)").splitlines()
    first = copied.py_func.__code__.co_firstlineno  # the decorator
    kernel = copy_by_a_device_function.__code__.co_firstlineno

    def line_of(opcode: str) -> int:
        at = next(n for n, text in enumerate(ptx) if opcode in text)
        return next(int(text.split()[2]) for text in reversed(ptx[:at]) if text.strip().startswith(".loc"))

    assert (line_of("ld.global"), line_of("st.global")) == (first + 2, first + 3)
    assert line_of("mov.u32") in (kernel, kernel + 1)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_numba_to_ptx_to_sass(arch: str) -> None:
    ptx = compiler.numba(copy, "void(uint64, uint64)", arch, name="renamed", launch_bounds=64, registers=32)
    assert compiler.entries(ptx) == ["renamed"]
    assert f".target {arch}" in ptx
    assert ".maxnreg 32" in ptx
    assert "test_compiler.py" in ptx  # source lines
    made = compiler.resources(ptx, arch)
    assert 0 < made["registers"] <= 32
    assert (made["spill_bytes"], made["stack_bytes"]) == (0, 0)
    assert "LDG" in made["sass"]


def waiting(groups):  # type: ignore[no-untyped-def]
    cp_async_wait(groups)


@pytest.mark.filterwarnings("default")
def test_an_instruction_that_the_compiler_drops_is_an_error() -> None:
    """libNVVM only warns when an operand that must be a constant is a variable, and leaves the instruction out."""
    with pytest.raises(compiler.CompileError, match="constraint 'n'"):
        compiler.numba(waiting, "void(int32)")


def test_cuda_to_ptx() -> None:
    ptx = compiler.cuda(
        'extern "C" __global__ void f(float* x) { __shared__ float y[64]; y[threadIdx.x] = *x; *x = y[0]; }'
    )
    assert compiler.entries(ptx) == ["f"]
    assert compiler.resources(ptx)["shared_bytes"] == 256


def test_spills_are_counted() -> None:
    body = "".join(f"float v{i} = x[{i} * n];" for i in range(64)) + "__syncthreads();"
    body += "".join(f"x[{i} * n + 1] = v{i} * v{63 - i};" for i in range(64))
    ptx = compiler.cuda(f'extern "C" __global__ void f(float* x, int n) {{ {body} }}')
    assert compiler.resources(ptx)["spill_bytes"] == 0
    tight = re.sub(r"^(?=\{)", ".maxnreg 24\n", ptx, count=1, flags=re.MULTILINE)
    assert compiler.resources(tight)["spill_bytes"] > 0


def _refusals() -> list[tuple[Any, str]]:
    return [
        (lambda: compiler.cuda("__global__ void f( {"), r"CUDA C\+\+: .*error"),
        (lambda: compiler.resources(".version 8.0\n.target sm_80\n.address_size 64\nnonsense"), "PTX for sm_80: "),
        (lambda: compiler.numba(lambda x: x + "text", "void(uint64)"), "Numba cannot compile it"),
        (lambda: compiler.cuda("", "sm_1"), "unknown architecture 'sm_1': known are"),
    ]


@pytest.mark.parametrize(("call", "message"), _refusals())
def test_refusals_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


LSCD = {1: 128, 2: 154, 4: 168, 8: 164}  # Flash-LLM's own registers at N = 8, 16, 32, 64
BITMAP_REGISTERS = {1: 80, 2: 80, 4: 112, 8: 128}


@pytest.mark.claim(
    id="sass-resources",
    source="ours",
    phrase="no spills, no local memory, and no more registers than Flash-LLM's kernel",
    assumption="sm_80 and sm_90 machine code made by nvJitLink 13; N = 8, 16, 32, 64",
    function="loadsparse.gpu.compiler.resources",
    status="compiled",
)
@pytest.mark.parametrize(
    ("panels", "arch"), [(1, "sm_80"), (2, "sm_80"), (4, "sm_80"), (8, "sm_80"), (4, "sm_90"), (8, "sm_90")]
)
@pytest.mark.parametrize("kernel", ["lscd", "bitmap 8", "bitmap 4"])
def test_kernels_fit_their_registers(kernel: str, panels: int, arch: str) -> None:
    """Registers within the bars, no spill, no local memory; Tensor Cores, ldmatrix and cp.async in the SASS."""
    common = ("f16", panels, 16, False, True, arch)
    if kernel == "lscd":
        ptx, most = lscd.compiled(*common), LSCD[panels]
    else:
        rows = 512 if panels > 4 else 256
        ptx, most = bitmap.compiled(*common, tile_m=rows, bits=int(kernel[-1]), **BITMAP), BITMAP_REGISTERS[panels]
    made = compiler.resources(ptx, arch)
    assert made["registers"] <= most
    assert (made["spill_bytes"], made["stack_bytes"]) == (0, 0)
    opcodes = set(re.findall(r"\b(HMMA|LDSM|LDGSTS|STL|LDL)\b", made["sass"]))
    assert opcodes == {"HMMA", "LDSM", "LDGSTS"}
