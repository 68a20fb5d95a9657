from numba import cuda, uint32

from loadsparse.gpu.intrinsics import barrier, load_shared_half, shared_base, store_shared_half
from loadsparse.gpu.kernels.blocks import clear_shared  # (address, how many 16-byte stores, bytes between them)


def kernel(out, items, count):
    t = cuda.threadIdx.x
    base = shared_base()
    clear_shared(uint32(base + t * 16), 8, 2048)  # 128 threads x 8 stores x 16 bytes
    barrier()
    for i in range(t, count, 128):
        item = items[i]
        store_shared_half(uint32(base + 2 * (item >> 16)), 0, item)
    barrier()
    for row in range(128):
        if t < 64:
            place = row * 64 + (t ^ ((row & 7) << 3))
            out[row, t] = load_shared_half(uint32(base + 2 * place), 0)
