from numba import cuda


def kernel(out, a, b):
    x, y = cuda.grid(2)
    if y < out.shape[0] and x < out.shape[1]:
        out[y, x] = a[y] + b[x]
