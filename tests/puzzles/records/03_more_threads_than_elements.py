from numba import cuda, uint32


def kernel(out, a):
    i = uint32(cuda.threadIdx.x)
    if i < a.shape[0]:
        out[i] = a[i] + a[i]
