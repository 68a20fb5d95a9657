"""PTX that NVRTC and Numba wrote, executed and compared with NumPy."""

import struct
from pathlib import Path

import numpy as np
import pytest

from loadsparse.gpu import simulator

DATA = Path(__file__).parent / "data"


def load(name):
    return simulator.load((DATA / f"{name}.ptx").read_text(encoding="utf-8"))


@pytest.mark.parametrize("n", range(9))
def test_switches_structures_calls_and_generic_pointers(n):
    a, b = [3, 1, 4, 1, 5, 9], 2.5
    out = np.arange(100, 132, dtype=np.int32)
    report = load("nvrtc_control_sm_80")["k"].launch(1, 32, struct.pack("<6if", *a, b), out, n, engine="interpreter")
    assert report.ok, report
    for i in range(32):
        value = {0: 1, 1: 22, 2: i + (i & 15), 3: a[i % 6], 4: a[i % 6] + 2, 5: 3 * i, 6: 18, 7: 109 + i}.get(n, -1)
        assert out[i] == (i if i % 2 == 0 else value) + 1


def test_asynchronous_copies_with_zero_fill():
    a = np.arange(1, 257, dtype=np.float32).reshape(64, 4)
    b = np.zeros_like(a)
    for mode in ("late", "eager"):
        kernel = load("nvrtc_cp_async_sm_80")["k"]
        report = kernel.launch(1, 32, a, simulator.empty(b), shared_bytes=1024, engine="interpreter", cp_async=mode)
        assert report.ok, report
        assert np.array_equal(b[:32], np.roll(a[:32], -1, axis=0))
        assert np.array_equal(b[32:, :2], a[32:, :2])
        assert not b[32:, 2:].any()


def test_function_call_local_memory_constants_and_sine():
    n = 100
    a = np.linspace(-1e6, 1e6, 128, dtype=np.float32)
    c = np.zeros(128, np.float32)
    report = load("nvrtc_calls_sm_80")["k1"].launch(1, 128, a, simulator.empty(c), n, engine="interpreter")
    assert report.ok, report
    kept = np.where(np.arange(128) < n, a, np.float32(0))
    doubled = 2 * np.roll(kept, -1).astype(np.float64)
    expected = doubled + np.array([1, 2, 3, 4])[np.arange(128) & 3] + np.sin(a.astype(np.float64))
    error = np.abs(c[:n] - expected[:n])
    assert (error <= 3 * np.spacing(np.abs(doubled[:n]).astype(np.float32)) + 1e-6).all()
    assert not c[n:].any()
    assert report.printed.startswith("hello 3 ")


def test_numba_shared_memory_kernel():
    module = load("numba_shared_sm_80")
    (name,) = module
    a = np.arange(128, dtype=np.float32)
    b, c = 3 * a, np.zeros_like(a)

    def array(x):  # meminfo, parent, items, item size, data, shape, stride
        return None, None, x.size, x.itemsize, x, x.size, x.itemsize

    report = module[name].launch(2, 64, *array(a), *array(b), *array(c), a.size, engine="interpreter")
    assert report.ok, report
    shared = 2 * a.reshape(2, 64)
    lanes = shared.reshape(4, 32)
    down = np.concatenate([lanes[:, 1:], lanes[:, -1:]], axis=1).reshape(128)
    assert np.array_equal(c, shared[:, ::-1].reshape(128) + b + down)
