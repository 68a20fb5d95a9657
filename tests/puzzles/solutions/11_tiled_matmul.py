from numba import cuda, float32


def kernel(out, a, b):
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.grid(2)
    left = cuda.shared.array((16, 16), float32)
    right = cuda.shared.array((16, 16), float32)
    total = float32(0)
    m, k = a.shape
    n = b.shape[1]
    for start in range(0, k, 16):
        left[y, x] = a[row, start + x] if row < m and start + x < k else float32(0)
        right[y, x] = b[start + y, column] if start + y < k and column < n else float32(0)
        cuda.syncthreads()
        for i in range(16):
            total += left[y, i] * right[i, x]
        cuda.syncthreads()
    if row < m and column < n:
        out[row, column] = total
