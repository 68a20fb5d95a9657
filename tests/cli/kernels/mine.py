"""A kernel of one's own in 20 lines: C = A B, one thread per element, float32 sums."""

from numba import cuda, float32

from loadsparse.gpu import compiler


def matmul(a, b, c, m, n, k):
    row, column = cuda.grid(2)
    if row < m and column < n:
        total = float32(0)
        for i in range(k):
            total += float32(a[row * k + i]) * float32(b[i * n + column])
        c[row * n + column] = total


def kernel(a, n, arch):
    m, k = a.shape
    half = "CPointer(float16)"
    ptx = compiler.numba(matmul, f"void({half}, {half}, CPointer(float32), int32, int32, int32)", arch)
    grid = ((m + 15) // 16, (n + 7) // 8)
    return {"ptx": ptx, "grid": grid, "block": (16, 8), "args": ["a", "b", "c", m, n, k], "out": "f32"}
