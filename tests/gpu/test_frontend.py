"""Numba kernels on the simulator: device memory, parameters, arguments of every kind."""

from __future__ import annotations

import ctypes
import enum

import numpy as np
import pytest
from numba import cuda, types

from loadsparse.gpu import simulator
from loadsparse.gpu.simulator.frontend.launcher import pack
from loadsparse.gpu.simulator.frontend.memory import DeviceMemory, InvalidAddress, OutOfMemory, host_bytes
from loadsparse.gpu.simulator.frontend.run import dimensions, placed
from loadsparse.gpu.simulator.program import Variable

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


# Memory


def test_memory_is_undefined_until_it_is_written() -> None:
    memory = DeviceMemory(capacity=100)
    address = memory.allocate(16)
    allocation = memory.allocations[address >> 36]
    assert not allocation.defined.any()
    memory.write(address + 4, np.arange(8, dtype=np.uint8))
    assert allocation.defined.tolist() == [0] * 4 + [255] * 8 + [0] * 4
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
