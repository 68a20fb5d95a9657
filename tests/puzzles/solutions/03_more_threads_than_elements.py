from numba import cuda


def kernel(out, a):
    i = cuda.threadIdx.x
    if i < a.shape[0]:
        out[i] = a[i] + a[i]
