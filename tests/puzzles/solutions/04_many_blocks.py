from numba import cuda


def launch(n):
    return -(-n // 128), 128


def kernel(out, a, b, n):
    i = cuda.grid(1)
    if i < n:
        out[i] = a[i] - b[i]
