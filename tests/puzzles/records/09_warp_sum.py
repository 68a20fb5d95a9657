from numba import cuda, uint32


def kernel(out, a):
    lane, block = uint32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
    value = a[uint32(block * 32 + lane)]
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
    if lane == 0:
        out[block] = value
