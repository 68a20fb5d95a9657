from numba import cuda, float32


def kernel(out, a):
    i = cuda.threadIdx.x
    out[i] = a[i] * float32(0.1)
