from numba import cuda, float32, uint32


def kernel(out, a):
    i = uint32(cuda.threadIdx.x)  # unsigned: no index counts from the end
    out[i] = a[i] * float32(0.1)
