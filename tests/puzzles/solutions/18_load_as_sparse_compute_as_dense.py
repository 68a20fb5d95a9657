from numba import cuda, uint32, uint64

from loadsparse.gpu import intrinsics as ptx
from loadsparse.gpu.kernels.blocks import clear_shared, load_panels, load_rows

mma = ptx.mma_m16n8k16["f16"]


def kernel(out, items, offsets, b, tiles):
    t = cuda.threadIdx.x
    lane, warp = t % 32, t // 32
    a_tile = ptx.shared_base()
    b_tile = uint32(a_tile + 16384)
    acc = ptx.zeros(8)  # two row tiles x 4 results
    row = (
        32 * warp + lane % 16
    )  # whose chunks this lane names for ldmatrix; the second row tile lies 2048 bytes further
    for tile in range(tiles):
        clear_shared(uint32(a_tile + t * 16), 8, 2048)
        ptx.barrier()
        for i in range(4 * offsets[tile] + t, 4 * offsets[tile + 1], 128):
            item = items[i]
            ptx.store_shared_half(uint32(a_tile + 2 * (item >> 16)), 0, item)
        if t < 64:
            source = b + uint64((64 * tile + t) * 16)
            ptx.store_shared_x4(uint32(b_tile + t * 16), 0, ptx.load_global_x4(source, 0))
        ptx.barrier()
        for step in range(4):
            a_place = row * 128 + ((2 * step + lane // 16) ^ (row % 8)) * 16
            b_place = (16 * step + lane % 16) * 16
            acc = mma(
                acc, load_rows(uint32(a_tile + a_place), 0, 2, 2048), load_panels(uint32(b_tile + b_place), 0, 1, 0)
            )
        ptx.barrier()
    for i in range(2):  # where mma leaves its results
        for half in range(2):
            down, across = 32 * warp + 16 * i + 8 * half + lane // 4, lane % 4 * 2
            out[down, across] = acc[4 * i + 2 * half]
            out[down, across + 1] = acc[4 * i + 2 * half + 1]
