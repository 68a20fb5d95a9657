"""Every intrinsic does what its name says: executed on the simulator, judged by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import cuda, uint32, uint64

from loadsparse.gpu import compiler, simulator
from loadsparse.gpu import intrinsics as ptx
from loadsparse.gpu.kernels import blocks

LANES = np.arange(32)


def run(f: Any, *args: Any, shared_bytes: int = 4096) -> Any:
    """Compile for one warp and execute; every argument is a pointer."""
    text = compiler.numba(f, f"void({', '.join(['uint64'] * len(args))})")
    report = simulator.load(text, arch="sm_80")[f.__name__].launch(
        1, 32, *args, shared_bytes=shared_bytes, engine="interpreter"
    )
    assert report.ok, report.hazards
    return report


def fresh(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)


def test_words_and_halves_through_shared_memory() -> None:
    def kernel(a, c):
        lane = uint32(cuda.threadIdx.x)
        at, base = uint64(lane) * uint64(16), ptx.shared_base()
        ptx.store_shared_x4(uint32(base + lane * uint32(16)), 512, ptx.load_global_x4(a + at, 0))
        ptx.store_shared(uint32(base + lane * uint32(4)), 2048, ptx.load_global(a + at, 4))
        ptx.store_shared_half(uint32(base + lane * uint32(2)), 3072, ptx.load_global_half(a + at, 10))
        ptx.barrier()
        turned = uint32(lane ^ uint32(1))
        x0, x1 = ptx.load_shared_x2(uint32(base + turned * uint32(16)), 520)
        _, y1, _, _ = ptx.load_shared_x4(uint32(base + turned * uint32(16)), 512)
        ptx.store_global(c + at, 0, x0)
        ptx.store_global(c + at, 4, uint32(x1 ^ y1))
        ptx.store_global(c + at, 8, ptx.load_shared(uint32(base + turned * uint32(4)), 2048))
        ptx.store_global_half(c + at, 12, ptx.load_shared_half(uint32(base + turned * uint32(2)), 3072))
        ptx.store_global_half(c + at, 14, ptx.keep(lane))

    a, c = fresh(1, 32, 4), np.zeros((32, 4), np.uint32)
    run(kernel, a, c)
    other = a[LANES ^ 1]
    assert np.array_equal(c[:, 0], other[:, 2])
    assert np.array_equal(c[:, 1], other[:, 3] ^ other[:, 1])
    assert np.array_equal(c[:, 2], other[:, 1])
    assert np.array_equal(c[:, 3], other[:, 2] >> 16 | LANES << 16)


@pytest.mark.parametrize(("width", "copy"), [(16, ptx.cp_async_16), (8, ptx.cp_async_8), (4, ptx.cp_async_4)])
def test_cp_async_reads_only_size_bytes_and_fills_with_zeros(width: int, copy: Any) -> None:
    def kernel(a, c):
        lane = uint32(cuda.threadIdx.x)
        to = uint32(ptx.shared_base() + lane * uint32(16))
        ptx.store_shared_x4(to, 0, (lane, lane, lane, lane))
        size = uint32(uint32(lane & uint32(1)) * uint32(width))
        copy(to, 0, a + uint64(lane) * uint64(16), 0, size)
        ptx.cp_async_commit()
        ptx.cp_async_wait(0)
        first, second, third, fourth = ptx.load_shared_x4(to, 0)
        at = c + uint64(lane) * uint64(16)
        ptx.store_global(at, 0, first)
        ptx.store_global(at, 4, second)
        ptx.store_global(at, 8, third)
        ptx.store_global(at, 12, fourth)

    a, c = fresh(2, 32, 4), np.zeros((32, 4), np.uint32)
    run(kernel, a, c)
    wanted = np.repeat(LANES[:, None], 4, axis=1).astype(np.uint32)
    wanted[:, : width // 4] = np.where(LANES[:, None] % 2, a[:, : width // 4], 0)
    assert np.array_equal(c, wanted)


def test_copy_while_and_load_while_stop_at_the_end() -> None:
    def kernel(a, b, c):
        lane = uint32(cuda.threadIdx.x)
        base = ptx.shared_base()
        left = uint32(uint32(40) - lane)  # 40 vectors of 16 bytes: the second copy serves lanes 0 to 7
        blocks.clear_shared(uint32(base + lane * uint32(16)), 2, 512)
        blocks.copy_while(uint32(base + lane * uint32(16)), a + uint64(lane) * uint64(16), 2, 512, left)
        ptx.cp_async_commit()
        ptx.cp_async_wait(0)
        ptx.store_global(b + uint64(lane) * uint64(4), 0, ptx.load_shared(uint32(base + lane * uint32(16)), 512))
        staged = blocks.load_while(a + uint64(lane) * uint64(16), 2, 512, left)
        if lane < uint32(8):
            ptx.store_global(c + uint64(lane) * uint64(4), 0, staged[4])

    a, b, c = fresh(3, 40, 4), np.zeros(32, np.uint32), np.zeros(8, np.uint32)
    run(kernel, a, b, c)
    assert np.array_equal(b, np.concatenate([a[32:, 0], np.zeros(24, np.uint32)]))
    assert np.array_equal(c, a[32:, 0])


def test_bit_operations() -> None:
    def kernel(a, c):
        lane = uint64(uint32(cuda.threadIdx.x))
        x, y, s, _ = ptx.load_global_x4(a + lane * uint64(16), 0)
        ptx.store_global(c + lane * uint64(8), 0, ptx.popc(x))
        ptx.store_global(c + lane * uint64(8), 4, ptx.prmt(x, y, uint32(s & uint32(0x7777))))

    a, c = fresh(4, 32, 4), np.zeros((32, 2), np.uint32)
    run(kernel, a, c)
    assert c[:, 0].tolist() == [int(x).bit_count() for x in a[:, 0]]
    source = np.ascontiguousarray(a[:, :2]).view(np.uint8)
    wanted = [source[lane, [a[lane, 2] >> 4 * i & 7 for i in range(4)]].view(np.uint32)[0] for lane in LANES]
    assert c[:, 1].tolist() == wanted


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_pack_halves_puts_the_first_argument_low(kind: str) -> None:
    pack = ptx.pack_halves[kind]

    def kernel(a, c):
        lane = uint64(uint32(cuda.threadIdx.x))
        low, high, _, _ = ptx.load_global_x4_f32(a + lane * uint64(16), 0)
        ptx.store_global(c + lane * uint64(4), 0, pack(low, high))

    a = np.random.default_rng(5).standard_normal((32, 4)).astype(np.float32)
    c = np.zeros(32, np.uint32)
    run(kernel, a, c)
    got = c.view(np.uint16).reshape(32, 2)
    if kind == "f16":
        wanted = a[:, :2].astype(np.float16).view(np.uint16)
    else:
        words = a[:, :2].view(np.uint32)
        wanted = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)
    assert np.array_equal(got, wanted)


def test_ldmatrix_and_mma_multiply_tiles() -> None:
    """A[32, 16] x B[16, 24] of small integers: load_rows and load_panels feed mma, store_partials puts C back."""
    mma = ptx.mma_m16n8k16["f16"]

    def kernel(a, b, c, used):
        lane = uint32(cuda.threadIdx.x)
        base = ptx.shared_base()
        for i in range(2):  # A: rows of 32 bytes; B: 3 panels of 16 rows x 16 bytes, 256 bytes apart
            at = uint32(lane * uint32(16) + uint32(i * 512))
            ptx.store_shared_x4(uint32(base + at), 0, ptx.load_global_x4(a + uint64(at), 0))
        ptx.store_shared_x4(
            uint32(base + lane * uint32(16)), 1024, ptx.load_global_x4(b + uint64(lane) * uint64(16), 0)
        )
        if lane < uint32(16):
            more = ptx.load_global_x4(b + uint64(lane) * uint64(16), 512)
            ptx.store_shared_x4(uint32(base + lane * uint32(16)), 1536, more)
        ptx.barrier()
        row, high = uint32(lane & uint32(15)), uint32(lane >> uint32(4))
        left = blocks.load_rows(uint32(base + row * uint32(32) + high * uint32(16)), 0, 2, 512)
        right = blocks.load_panels(uint32(base + row * uint32(16) + high * uint32(256)), 1024, 3, 256)
        acc = mma(ptx.zeros(24), left, right)
        at = uint32(uint32(lane >> uint32(2)) * uint32(24) + uint32(lane & uint32(3)) * uint32(2))
        blocks.store_partials(c + uint64(at) * uint64(4), acc, 3, ptx.load_global(used, 0))

    rng = np.random.default_rng(6)
    a, b = (rng.integers(-8, 9, shape).astype(np.float16) for shape in ((32, 16), (16, 24)))
    panels = np.ascontiguousarray(b.reshape(16, 3, 8).swapaxes(0, 1))
    for used in (3, 2):  # what lies beyond the panels in use stays as it was
        c = np.zeros((32, 24), np.float32)
        run(kernel, a, panels, c, np.array([used], np.uint32))
        wanted = a.astype(np.float32) @ b.astype(np.float32)
        wanted[:, 8 * used :] = 0
        assert np.array_equal(c, wanted)


def test_intrinsics_refuse_what_cannot_be_compiled() -> None:
    with pytest.raises(NotImplementedError, match="popc"):
        ptx.popc(1)

    def kernel(c, n):
        ptx.store_global_f32(c, 0, ptx.zeros(n)[0])

    with pytest.raises(compiler.CompileError, match="kernel: Numba cannot compile it") as refusal:
        compiler.numba(kernel, "void(uint64, int64)")
    assert "\n" not in str(refusal.value)
