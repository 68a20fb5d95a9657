import numpy as np
from numba import cuda, uint32, uint64

from loadsparse.gpu import intrinsics as ptx
from loadsparse.gpu.kernels.blocks import clear_shared, load_panels, load_rows

mma = ptx.mma_m16n8k16["f16"]


def kernel(out, items, offsets, b, tiles):
    t = uint32(cuda.threadIdx.x)
    lane, warp = uint32(t & uint32(31)), uint32(t >> uint32(5))
    a_tile = ptx.shared_base()
    b_tile = uint32(a_tile + uint32(16384))
    acc = ptx.zeros(8)  # two row tiles x 4 results
    row = uint32(32 * warp + uint32(lane & uint32(15)))
    pairs = items.view(np.uint64)  # two items at a time: a tile is padded to fours
    a_row = uint32(a_tile + row * uint32(128))
    b_row = uint32(b_tile + uint32(lane & uint32(15)) * uint32(16))
    stop, source = uint32(0), b + uint64(t) * uint64(16)
    tile, last = uint32(0), uint32(tiles)
    while tile < last:
        clear_shared(uint32(a_tile + t * uint32(16)), 8, 2048)
        tile = uint32(tile + uint32(1))
        if t < uint32(64):
            ptx.store_shared_x4(uint32(b_tile + t * uint32(16)), 0, ptx.load_global_x4(source, 0))
        source += uint64(1024)
        i = uint64(uint32(stop + t))
        stop = uint32(2 * offsets[tile])
        ptx.barrier()
        while i < uint64(stop):
            pair = pairs[i]
            low, high = uint32(pair), uint32(pair >> uint64(32))
            ptx.store_shared_half(uint32(a_tile + uint32(uint32(low >> uint32(15)) & uint32(0x1FFFE))), 0, low)
            ptx.store_shared_half(uint32(a_tile + uint32(uint32(high >> uint32(15)) & uint32(0x1FFFE))), 0, high)
            i += uint64(128)
        ptx.barrier()
        for step in range(4):
            chunk = uint32(uint32(uint32(2 * step) + uint32(lane >> uint32(4))) ^ uint32(row & uint32(7)))
            left = load_rows(uint32(a_row + chunk * uint32(16)), 0, 2, 2048)
            acc = mma(acc, left, load_panels(b_row, step * 256, 1, 0))
        ptx.barrier()
    for i in range(2):  # where mma leaves its results
        for half in range(2):
            down = uint32(32 * warp + uint32(16 * i + 8 * half) + uint32(lane >> uint32(2)))
            across = uint32(uint32(lane & uint32(3)) * uint32(2))
            out[down, across] = acc[4 * i + 2 * half]
            out[down, uint32(across + uint32(1))] = acc[4 * i + 2 * half + 1]
