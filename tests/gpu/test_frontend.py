"""Numba kernels and numba.cuda scripts on the simulator: memory, linking, arguments, scripts, numba-cuda's tests."""

from __future__ import annotations

import ctypes
import enum
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

from numba import cuda, types

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.frontend import device_library
from loadsparse.gpu.simulator.frontend.inline import inline_calls
from loadsparse.gpu.simulator.frontend.install import SEAM
from loadsparse.gpu.simulator.frontend.launcher import pack
from loadsparse.gpu.simulator.frontend.linker import LinkError, link, merge
from loadsparse.gpu.simulator.frontend.memory import DeviceMemory, InvalidAddress, OutOfMemory, host_bytes
from loadsparse.gpu.simulator.frontend.run import dimensions, placed
from loadsparse.gpu.simulator.frontend.text import statements
from loadsparse.gpu.simulator.parser import parse
from loadsparse.gpu.simulator.program import Variable

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


# Memory


def test_memory_is_undefined_until_it_is_written() -> None:
    memory = DeviceMemory(capacity=100)
    address = memory.allocate(16)
    allocation = memory.allocations[address >> 36]
    assert not allocation.defined.any()
    memory.write(address + 4, np.arange(8, dtype=np.uint8))
    assert allocation.defined.tolist() == [0] * 4 + [1] * 8 + [0] * 4
    other = memory.allocate(16)
    memory.copy(other, address, 16)
    assert memory.allocations[other >> 36].defined.tolist() == allocation.defined.tolist()
    assert memory.read(other, 16).tolist() == memory.read(address, 16).tolist()


def test_memory_refuses_what_is_not_there() -> None:
    memory = DeviceMemory(capacity=100)
    address = memory.allocate(60)
    with pytest.raises(OutOfMemory, match=r"41 bytes asked for, 40 of 100"):
        memory.allocate(41)
    for start, size in ((address, 61), (address + 59, 2), (0, 1), (address + (1 << 36), 1), (address + 60, 1)):
        with pytest.raises(InvalidAddress):
            memory.read(start, size)
    memory.free(address)
    with pytest.raises(InvalidAddress):
        memory.write(address, np.zeros(1, np.uint8))
    with pytest.raises(InvalidAddress):
        memory.free(address)
    assert memory.allocate(100) != address


def test_freed_addresses_rest_before_they_come_back() -> None:
    memory = DeviceMemory()
    first = memory.allocate(8)
    memory.free(first)
    seen = []
    for _ in range(5000):
        seen.append(memory.allocate(8))
        memory.free(seen[-1])
    assert first not in seen[:4000]
    assert max(seen) >> 36 < 5000
    assert memory.used == 0


def test_host_memory_is_seen_in_place() -> None:
    memory = DeviceMemory()
    array = np.arange(10, dtype=np.int32)
    address = memory.adopt_host(array.ctypes.data, array.nbytes)
    memory.fill(address + 4, 0xFF, 4)
    assert array[1] == -1
    assert array[2] == 2
    assert host_bytes(array.ctypes.data, 0).size == 0


# Parameters


def parameter(size: int, offset: int) -> Variable:
    return Variable("p", "param", "b8", size, size, offset)


def test_parameters_are_packed_by_their_sizes() -> None:
    values = [-1, True, np.float32(1.5), 2.5, ctypes.c_int16(-2), np.int64(7), 1 + 2j]
    sizes = [4, 1, 4, 8, 2, 8, 16]
    offsets = [0, 4, 8, 16, 24, 32, 40]
    packed = pack([parameter(s, o) for s, o in zip(sizes, offsets, strict=True)], values).tobytes()
    expected = bytearray(56)
    for offset, value in zip(
        offsets,
        [np.int32(-1), np.uint8(1), np.float32(1.5), np.float64(2.5), np.int16(-2), np.int64(7), np.complex128(1 + 2j)],
        strict=True,
    ):
        expected[offset : offset + value.nbytes] = value.tobytes()
    assert packed == bytes(expected)


def test_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 parameters, 2 values"):
        pack([parameter(4, 0)], [1, 2])
    with pytest.raises(ValueError, match="parameter 0 has 4 bytes"):
        pack([parameter(4, 0)], [2.5])


# Linking


def function(name: str, linkage: str = ".visible", body: str = "{ ret; }") -> str:
    return f"{linkage} .func {name} ()\n{body}\n"


def test_a_lone_module_is_not_touched() -> None:
    text = HEAD + "// hello\n" + function("f")
    assert link([text]) is text


def test_declarations_are_resolved_and_private_names_kept_apart() -> None:
    first = (
        HEAD
        + ".global .u32 table = 1;\n.extern .func g ();\n"
        + (".visible .entry k () { .reg .b32 %r<2>; ld.global.u32 %r1, [table]; call g, (); ret; }\n")
    )
    second = (
        HEAD + ".global .u32 table = 2;\n" + function("g", body="{ .reg .b32 %r<2>; ld.global.u32 %r1, [table]; ret; }")
    )
    program = parse(merge([first, second]))
    assert set(program.kernels) == {"k", "g"}
    tables = [v for v in program.globals if v.name.startswith("table")]
    assert sorted(int.from_bytes(v.data, "little") for v in tables) == [1, 2]
    (load, _, _), (other, _) = (program.kernels[n].instructions for n in ("k", "g"))
    assert load.operands[1].base.data == (1).to_bytes(4, "little")
    assert other.operands[1].base.data == (2).to_bytes(4, "little")


def test_weak_definitions_yield_and_strong_ones_clash() -> None:
    weak = HEAD + function("f", ".weak", "{ bar.sync 0; ret; }")
    strong = HEAD + function("f")
    assert len(parse(link([weak, weak])).kernels["f"].instructions) == 2
    with pytest.raises(LinkError, match="f is defined by two modules"):
        link([strong, strong])


def test_source_files_are_renumbered() -> None:
    module = HEAD + '.visible .func {name} () {{ .loc 1 {line} 2\n ret; }}\n.file 1 "{name}.py"\n'
    program = parse(link([module.format(name="a", line=3), module.format(name="b", line=4)]))
    places = {name: kernel.instructions[0].location for name, kernel in program.kernels.items()}
    assert (places["a"].file, places["a"].line) == ("a.py", 3)
    assert (places["b"].file, places["b"].line) == ("b.py", 4)


def test_the_device_library_parses_and_is_added_where_it_is_missing() -> None:
    for text in device_library.LIBRARY:
        parse(text)
    caller = HEAD + ".extern .func (.param .b64 r) malloc (.param .b64 n);\n.visible .entry k () { ret; }\n"
    assert {"malloc", "free", "k"} <= set(parse(link([caller])).kernels)


INDIRECT = (
    HEAD
    + """
.global .u64 table[2] = {twice, thrice};
.func (.param .b32 r) twice (.param .b32 x)
{ .reg .b32 %r<3>; ld.param.u32 %r1, [x]; add.u32 %r1, %r1, %r1; st.param.b32 [r], %r1; ret; }
.func (.param .b32 r) thrice (.param .b32 x)
{ .reg .b32 %r<3>; ld.param.u32 %r1, [x]; mul.lo.u32 %r1, %r1, 3; st.param.b32 [r], %r1; ret; }
.func wrong (.param .b64 x) { ret; }
.visible .entry k (.param .u64 out, .param .u32 which)
{
    .reg .b32 %r<4>; .reg .b64 %d<6>; .reg .pred %p<2>;
    ld.param.u64 %d1, [out];
    ld.param.u32 %r1, [which];
    mul.wide.u32 %d2, %r1, 8;
    mov.u64 %d3, table;
    add.u64 %d3, %d3, %d2;
    ld.global.u64 %d4, [%d3];
    setp.gt.u32 %p1, %r1, 1;
    @%p1 mov.u64 %d4, wrong;
    { .param .b32 a; .param .b32 b;
      st.param.b32 [a], 7;
      proto: .callprototype (.param .b32 _) _ (.param .b32 _);
      call (b), %d4, (a), proto;
      ld.param.b32 %r2, [b]; }
    st.global.u32 [%d1], %r2;
    ret;
}
"""
)


@pytest.mark.parametrize(("which", "expected"), [(0, 14), (1, 21)])
def test_indirect_calls_choose_among_functions(which: int, expected: int) -> None:
    out = np.zeros(1, np.uint32)
    report = simulator.load(link([INDIRECT]))["k"].launch(1, 1, out, np.uint32(which))
    assert report.ok, report.hazards
    assert out[0] == expected


def test_an_indirect_call_of_another_shape_is_a_trap() -> None:
    report = simulator.load(link([INDIRECT.replace("setp.gt.u32 %p1, %r1, 1", "setp.eq.u32 %p1, %r1, 1")]))["k"].launch(
        1, 1, np.zeros(1, np.uint32), np.uint32(1)
    )
    assert [hazard.kind for hazard in report.hazards] == ["trap"]


NESTED = (
    HEAD
    + """
.func (.param .b32 r) sign (.param .b32 x)
{ .reg .b32 %r<3>; .reg .pred %p<2>; ld.param.s32 %r1, [x]; setp.lt.s32 %p1, %r1, 0; @%p1 bra NEGATIVE;
  st.param.b32 [r], 1; ret;
NEGATIVE: st.param.b32 [r], -1; ret; }
.func (.param .b32 r) absolute (.param .b32 x)
{ .reg .b32 %r<5>; .param .b32 x_sign; ld.param.s32 %r1, [x];
  { .param .b32 x; st.param.b32 [x], %r1; call.uni (x_sign), sign, (x); ld.param.b32 %r2, [x_sign]; }
  mul.lo.s32 %r3, %r1, %r2; st.param.b32 [r], %r3; ret; }
.visible .entry k (.param .u64 out)
{
    .reg .b32 %r<5>; .reg .b64 %d<5>;
    mov.u32 %r1, %tid.x;
    sub.s32 %r2, 3, %r1;
    { .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; call (b), absolute, (a); ld.param.b32 %r3, [b]; }
    { .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; call (b), sign, (a); ld.param.b32 %r4, [b]; }
    mul.lo.s32 %r3, %r3, 10;
    add.s32 %r3, %r3, %r4;
    ld.param.u64 %d1, [out];
    mul.wide.u32 %d2, %r1, 4;
    add.u64 %d3, %d1, %d2;
    st.global.u32 [%d3], %r3;
    ret;
}
"""
)


def test_called_bodies_in_place_compute_the_same() -> None:
    placed = inline_calls(NESTED)
    assert "call" not in placed.partition(".entry")[2]
    expected = [10 * abs(d) + (1 if d >= 0 else -1) for d in (3, 2, 1, 0, -1, -2, -3, -4)]
    for text, engine in ((NESTED, "interpreter"), (placed, "interpreter"), (placed, "llvm")):
        out = np.zeros(8, np.int32)
        report = simulator.load(text)["k"].launch(1, 8, out, engine=engine)
        assert report.ok, report.hazards
        assert out.tolist() == expected
    plain = HEAD + function("f")
    assert inline_calls(plain) is plain


WIDTHS = (
    HEAD
    + """
.func (.param .b64 r) sum (.param .b32 x, .param .b8 y, .param .b16 z)
{ .reg .b64 %rd<6>; .reg .b16 %h<3>; ld.param.s32 %rd1, [x]; ld.param.s8 %h1, [y]; ld.param.u16 %rd2, [z];
  cvt.s64.s16 %rd3, %h1; add.s64 %rd4, %rd1, %rd2; add.s64 %rd5, %rd4, %rd3; st.param.b64 [r], %rd5; ret; }
.visible .entry k (.param .u64 out)
{ .reg .b64 %rd<4>; .reg .b32 %r<2>; .reg .b16 %h<2>;
  mov.b64 %rd1, 0x5fffffff0; mov.b32 %r1, 0xfe03; mov.b16 %h1, -2; ld.param.u64 %rd2, [out];
  { .param .b32 a; .param .b8 b; .param .b16 c; .param .b64 d;
    st.param.b32 [a], %rd1; st.param.b8 [b], %r1; st.param.b16 [c], %h1; call (d), sum, (a, b, c); ld.param.b64 %rd3, [d]; }
  st.global.u64 [%rd2], %rd3; ret; }
"""
)


@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
def test_parameters_narrower_than_their_registers_are_cut_and_extended(engine: str) -> None:
    placed = inline_calls(WIDTHS)
    assert "call" not in placed.partition(".entry")[2]
    for text in (WIDTHS, placed) if engine == "interpreter" else (placed,):
        out = np.zeros(1, np.int64)
        assert simulator.load(text)["k"].launch(1, 1, out, engine=engine).ok
        assert out[0] == -16 + 3 + 65534


def test_structures_stay_in_parameter_memory() -> None:
    pair = (
        HEAD
        + """
    .func (.param .b32 r) second (.param .align 4 .b8 p[8])
    { .reg .b32 %r<2>; ld.param.b32 %r1, [p+4]; st.param.b32 [r], %r1; ret; }
    .visible .entry k (.param .u64 out)
    { .reg .b32 %r<2>; .reg .b64 %d<2>; ld.param.u64 %d1, [out];
      { .param .align 4 .b8 a[8]; .param .b32 b; st.param.b32 [a], 5; st.param.b32 [a+4], 6;
        call (b), second, (a); ld.param.b32 %r1, [b]; }
      st.global.u32 [%d1], %r1; ret; }
    """
    )
    out = np.zeros(1, np.int32)
    assert simulator.load(link([pair]))["k"].launch(1, 1, out).ok
    assert out[0] == 6


def test_recursion_and_shared_variables_are_left_alone() -> None:
    recursive = HEAD + ".func f () { call f, (); ret; }\n.visible .entry k () { call f, (); ret; }\n"
    assert inline_calls(recursive).partition(".entry")[2].count("call") == 1
    shared = HEAD + ".func f () { .shared .align 4 .b8 x[4]; ret; }\n.visible .entry k () { call f, (); ret; }\n"
    assert inline_calls(shared) is shared


def test_statements_keep_initialisers_and_drop_nothing() -> None:
    text = HEAD + '.global .align 4 .b8 x[3] = {1, 2, 3};\n.visible .func f () { { ret; } }\n.file 1 "a;{b}.py"\n'
    found = [(s.name, s.linkage) for s in statements(text)]
    assert found == [("", "")] * 3 + [("x", "static"), ("f", "visible"), ("", "")]


# run


@cuda.jit
def copy_with(source, target, scale):
    i, j = cuda.grid(2)
    if i < target.shape[0] and j < target.shape[1]:
        target[i, j] = source[i, j] * scale


LAYOUTS = {
    "C": lambda a: a,
    "F": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "strided": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    "backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout(layout: str) -> None:
    values = np.arange(35.0).reshape(5, 7)
    source = LAYOUTS[layout](values)
    target = LAYOUTS[layout](np.full((5, 7), -1.0))
    report = simulator.run(copy_with)[(1, 2), (8, 4)](source, target, 3)
    assert report.ok, report.hazards
    np.testing.assert_array_equal(target, values * 3)
    np.testing.assert_array_equal(source, values)


def test_overlapping_arrays_overlap_on_the_device() -> None:
    whole = np.zeros(10, np.int32)
    memory = DeviceMemory()
    with placed([whole[2:6], whole[4:], np.zeros(3)], memory) as addresses:
        a, b = addresses[whole[2:].ctypes.data], addresses[whole[4:].ctypes.data]
        assert b - a == 8
        assert a >> 36 == b >> 36
        assert len(memory.allocations) == 2
    assert not memory.allocations

    def shift(x, y):
        i = cuda.threadIdx.x
        if i < x.size:
            y[i] = x[i] + 1

    whole[:] = np.arange(10)
    assert simulator.run(shift)[1, 32](whole[:5], whole[5:]).ok
    assert whole.tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 5]


class Color(enum.IntEnum):
    RED = 3
    BLUE = 5


RECORD = np.dtype([("a", np.int32), ("b", np.float64)], align=True)


@cuda.jit
def every_kind(out, flag, small, half, single, double, z, pair, moment, color, record):
    out[0] = flag
    out[1] = small
    out[2] = half
    out[3] = single
    out[4] = double
    out[5] = z.real
    out[6] = z.imag
    out[7] = pair[0][1] + pair[1]
    out[8] = moment == moment
    out[9] = color == Color.BLUE
    out[10] = record.a + record["b"]


def test_scalars_tuples_dates_enumerations_and_records() -> None:
    out = np.zeros(11)
    record = np.array([(4, 0.5)], RECORD)[0]
    report = simulator.run(every_kind)[1, 1](
        out, True, np.int8(-3), np.float16(0.25), np.float32(0.1), 0.1, 1 - 2j, (np.array([1.0, 8.0]), 16),
        np.datetime64("2020-01-02"), Color.BLUE, record,
    )  # fmt: skip
    assert report.ok, report.hazards
    assert out.tolist() == [1, -3, 0.25, float(np.float32(0.1)), 0.1, 1, -2, 24, 1, 1, 4.5]


def test_empty_arrays_are_null_pointers() -> None:
    def sizes(x, out):
        out[0] = x.size

    out = np.full(1, -1)
    assert simulator.run(sizes)[1, 1](np.zeros(0), out).ok
    assert out[0] == 0


def test_a_kernel_that_strays_is_reported_with_its_line() -> None:
    def stray(x):
        x[cuda.grid(1)] = 1

    report = simulator.run(stray)[1, 64](np.zeros(40, np.float32))
    (hazard,) = report.hazards
    assert not report.ok
    assert "bounds" in str(hazard)
    line = stray.__code__.co_firstlineno + 1
    assert f"test_frontend.py:{line}" in str(hazard)


@cuda.jit(device=True)
def squared(value):
    return value * value


def test_a_runner_may_be_launched_often() -> None:
    def add(x, y):
        i = cuda.grid(1)
        if i < x.size:
            x[i] += y

    runner, x = simulator.run(add), np.zeros(100)
    for launch in range(5):
        assert runner[4, 32](x, launch).ok
        assert runner[4, 32](x, 0.5).ok
    assert set(x) == {12.5}


def test_device_functions_need_no_driver() -> None:
    def kernel(x):
        x[cuda.threadIdx.x] = squared(x[cuda.threadIdx.x])

    x = np.arange(8.0)
    assert simulator.run(kernel)[1, 8](x).ok
    assert x.tolist() == [0, 1, 4, 9, 16, 25, 36, 49]


def test_dynamic_shared_memory() -> None:
    @cuda.jit
    def reverse(x):
        tile = cuda.shared.array(0, types.float32)
        i = cuda.threadIdx.x
        tile[i] = x[i]
        cuda.syncthreads()
        x[i] = tile[cuda.blockDim.x - 1 - i]

    x = np.arange(64, dtype=np.float32)
    assert simulator.run(reverse)[1, 64, 0, 256](x).ok
    assert x.tolist() == list(range(63, -1, -1))


def test_grid_synchronisation_of_cooperative_groups() -> None:
    @cuda.jit
    def rounds(x):
        grid = cuda.cg.this_grid()
        i = cuda.grid(1)
        for _ in range(3):
            left = x[(i + 1) % x.size]
            grid.sync()
            x[i] = left
            grid.sync()

    x = np.arange(96)
    report = simulator.run(rounds)[3, 32](x)
    assert report.ok, report.hazards
    assert x.tolist() == np.roll(np.arange(96), -3).tolist()


def test_bad_launches_are_refused() -> None:
    for given in ((), (1, 2, 3, 4), 0, (4, -1)):
        with pytest.raises(ValueError, match="1 to 3 extents"):
            dimensions(given)
    with pytest.raises(ValueError, match="a launch is"):
        simulator.run(copy_with)[1]
    with pytest.raises(ValueError, match="uses link"):
        simulator.run(cuda.jit(link=["x.cu"])(copy_with.py_func))


# Scripts


def script(tmp_path: Path, source: str, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "loadsparse.gpu.simulator", *options, str(path), "one", "two"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def test_a_script_runs_unmodified(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import sys
        import numpy as np
        from numba import cuda, float32, int32, vectorize

        assert cuda.is_available()
        assert sys.argv[1:] == ["one", "two"]
        assert cuda.get_current_device().compute_capability == (8, 0)
        assert len(cuda.gpus) == 1

        table = np.arange(32, dtype=np.int32) ** 2

        @cuda.jit(device=True)
        def shifted(value, by):
            return value + by

        @cuda.jit
        def everything(x, total, printed):
            tile = cuda.shared.array(32, int32)
            private = cuda.local.array(4, int32)
            constant = cuda.const.array_like(table)
            lane = cuda.laneid
            tile[lane] = constant[lane]
            for i in range(4):
                private[i] = tile[lane]
            cuda.syncthreads()
            value = shifted(tile[31 - lane], private[3])
            value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 1)
            cuda.atomic.add(total, 0, value)
            x[cuda.grid(1)] = value
            if printed and lane == 0:
                print("block", cuda.blockIdx.x, x.size)

        stream = cuda.stream()
        begun, ended = cuda.event(), cuda.event()
        x = cuda.device_array(64, np.int32, stream=stream)
        total = cuda.to_device(np.zeros(1, np.int64), stream=stream)
        begun.record(stream)
        everything[2, 32, stream](x, total, True)
        ended.record(stream)
        ended.synchronize()
        stream.synchronize()
        assert cuda.event_elapsed_time(begun, ended) > 0

        base = table[::-1] + table
        expected = base + base[np.arange(32) ^ 1]
        assert x.copy_to_host().tolist() == expected.tolist() * 2
        assert total.copy_to_host()[0] == 2 * expected.sum()

        for make in (cuda.mapped_array, cuda.managed_array):
            host = make(32, np.int32)
            host[:] = 5
            everything[1, 32](host, total, False)
            cuda.synchronize()
            assert host.tolist() == expected.tolist()
        pinned = cuda.pinned_array(64, np.int32)
        x.copy_to_host(pinned)
        assert pinned[:32].tolist() == expected.tolist()
        ordinary = np.zeros(32, np.int32)
        with cuda.mapped(ordinary) as window:
            everything[1, 32](window, total, False)
        assert ordinary.tolist() == expected.tolist()

        @vectorize(["float32(float32, float32)"], target="cuda")
        def add(a, b):
            return a + b

        assert add(np.ones(100, np.float32), np.arange(100, dtype=np.float32)).tolist() == list(range(1, 101))
        assert cuda.reduce(lambda a, b: a + b)(np.arange(1000.0)) == 499500.0
        print("done")
        """,
    )
    assert sorted(done.stdout.splitlines()) == ["block 0 64", "block 1 64", "done"]


def test_cuda_sources_are_linked_and_globals_persist(tmp_path: Path) -> None:
    (tmp_path / "count.cu").write_text(
        "__device__ int calls;\n"
        'extern "C" __device__ int count(int *out, int by) { *out = atomicAdd(&calls, by); return 0; }\n'
    )
    script(
        tmp_path,
        f"""
        import numpy as np
        from numba import cuda, types

        count = cuda.declare_device("count", types.int32(types.int32), link={str(tmp_path / "count.cu")!r})

        @cuda.jit
        def kernel(out):
            out[0] = count(5)

        out = np.zeros(1, np.int32)
        for launch in range(3):
            kernel[1, 1](out)
            assert out[0] == 5 * launch
        """,
    )


HAZARDOUS = """
import numpy as np
from numba import cuda

@cuda.jit
def stray(x):
    x[cuda.grid(1)] = 1  # line 7

x = cuda.device_array(40, np.float32)
stray[1, 64](x)
y = cuda.device_array(4, np.float32)
stray[1, 4](y)
print("went on", y.copy_to_host().sum())
"""


def test_hazards_of_a_script_name_kernel_and_line(tmp_path: Path) -> None:
    done = script(tmp_path, HAZARDOUS, status=1)
    assert done.stdout == "went on 4.0\n"
    (line,) = done.stderr.strip().splitlines()
    assert "bounds" in line
    assert "stray" in line
    assert "script.py:7" in line


def test_hazards_as_json_and_without_checks(tmp_path: Path) -> None:
    done = script(tmp_path, HAZARDOUS, "--json", status=1)
    found = json.loads(done.stderr.splitlines()[-1])
    assert (found["ok"], found["launches"], len(found["hazards"])) == (False, 2, 1)
    assert found["hazards"][0]["kind"] == "bounds"
    done = script(tmp_path, HAZARDOUS, "--no-checks", "--json")
    assert json.loads(done.stderr.splitlines()[-1]) == {"ok": True, "launches": 2, "hazards": []}


def test_uninitialised_device_memory_is_found_across_launches(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import numpy as np
        from numba import cuda

        @cuda.jit
        def copy(x, y):
            i = cuda.grid(1)
            y[i] = x[i]

        x, y, z = (cuda.device_array(32, np.float32) for _ in range(3))
        x[:16] = 1.0
        copy[1, 32](x, y)
        """,
        status=1,
    )
    assert "uninitialized" in done.stderr
    assert "script.py:8" in done.stderr


def test_a_failing_script_keeps_its_traceback(tmp_path: Path) -> None:
    done = script(tmp_path, "def f():\n    raise KeyError('mine')\n\nf()\n", status=1)
    assert "KeyError: 'mine'" in done.stderr
    assert "line 4, in <module>" in done.stderr
    assert "runpy" not in done.stderr
    assert script(tmp_path, "raise SystemExit(7)", status=7).stderr == ""


def test_bad_scripts_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from loadsparse.gpu.simulator.frontend.script import main

    assert main(["nowhere.py"]) == 2
    assert capsys.readouterr().err == "no such script: nowhere.py\n"


def test_the_seam_exists_in_this_numba_cuda() -> None:
    import importlib

    for module, names in SEAM.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


# A bounded sample of numba-cuda's own suite, of which tests/numba_suite.py runs all

SAMPLE = ("test_constmem",)


def test_a_sample_of_numbas_suite(tmp_path: Path) -> None:
    pytest.importorskip("filecheck", reason="numba-cuda's tests import filecheck")
    driver = Path(__file__).parents[1] / "numba_suite.py"
    for name in SAMPLE:
        done = subprocess.run(
            [sys.executable, str(driver), "--only", name, "--skip-numba", "--folder", str(tmp_path), "--seconds", "20"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


RECORDED = Path(__file__).parent / "data" / "numba_suite.json"


def test_the_recorded_run_of_numbas_suite_meets_its_bar() -> None:
    record = json.loads(RECORDED.read_text())
    launching = record["launching"]
    assert launching["passed"] / launching["tests"] >= launching["bar"] == 0.9
    assert launching["tests"] >= 850
    assert launching["passed"] + len(record["not_passed"]) == launching["tests"]
    assert all(reason for reason in record["excluded"].values())
