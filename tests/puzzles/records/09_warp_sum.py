from numba import cuda, uint32


def kernel(out, a):
    block = uint32(cuda.blockIdx.x)
    value = a[uint32(block * 32 + uint32(cuda.threadIdx.x))]
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
    out[block] = value  # every lane has the sum, and may write it
