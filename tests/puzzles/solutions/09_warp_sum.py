from numba import cuda


def kernel(out, a):
    i, lane = cuda.grid(1), cuda.threadIdx.x
    value = a[i]
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
    if lane == 0:
        out[cuda.blockIdx.x] = value
