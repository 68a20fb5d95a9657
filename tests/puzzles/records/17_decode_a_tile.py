import numpy as np
from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, load_shared_x2, shared_base, store_shared_half
from loadsparse.gpu.kernels.blocks import clear_shared


def kernel(out, items, count):
    t = uint32(cuda.threadIdx.x)
    base = shared_base()
    clear_shared(uint32(base + t * uint32(16)), 8, 2048)
    barrier()
    pairs, i, size = items.view(np.uint64), uint64(t), uint64(uint32(count) >> uint32(1))  # a tile is padded to fours
    while i < size:
        pair = pairs[i]
        low, high = uint32(pair), uint32(pair >> uint64(32))
        store_shared_half(uint32(base + uint32(uint32(low >> uint32(15)) & uint32(0x1FFFE))), 0, low)
        store_shared_half(uint32(base + uint32(uint32(high >> uint32(15)) & uint32(0x1FFFE))), 0, high)
        i += uint64(128)
    barrier()
    fours = out.view(np.uint64)  # four halves a word, 16 words a row: eight rows a step
    row, column = uint32(t >> uint32(4)), uint32(t & uint32(15))
    place = uint32(base + row * uint32(128) + uint32(uint32(column * uint32(8)) ^ uint32(row * uint32(16))))
    for step in range(16):
        low, high = load_shared_x2(place, 0)
        fours[uint64(row) + uint64(8 * step), uint64(column)] = uint64(low) | uint64(high) << uint64(32)
        place = uint32(place + uint32(1024))
