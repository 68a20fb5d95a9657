from numba import cuda, uint32


def kernel(out, items):
    i = uint32(cuda.blockIdx.x * 32 + cuda.threadIdx.x)
    if i < uint32(items.shape[0]):
        item = items[i]
        location = uint32(item >> uint32(16))
        row = uint32(location >> uint32(6))
        out[i, 0] = row
        out[i, 1] = uint32(uint32(location & uint32(63)) ^ uint32(uint32(row & uint32(7)) << uint32(3)))
        out[i, 2] = uint32(item & uint32(0xFFFF))
