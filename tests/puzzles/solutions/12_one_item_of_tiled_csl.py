from numba import cuda


def kernel(out, items):
    i = cuda.grid(1)
    if i < items.shape[0]:
        location = items[i] >> 16
        row = location >> 6
        out[i, 0] = row
        out[i, 1] = (location & 63) ^ ((row & 7) << 3)
        out[i, 2] = items[i] & 0xFFFF
