from numba import cuda, float32, uint32


def kernel(out, a, b):
    """All 8 warps bring the tiles; two of them multiply, four rows of one column in each thread: `right` serves four sums."""
    x, y = uint32(cuda.threadIdx.x), uint32(cuda.threadIdx.y)
    column, first = uint32(cuda.blockIdx.x * 16 + x), uint32(cuda.blockIdx.y * 16)
    left = cuda.shared.array((16, 16), float32)
    right = cuda.shared.array((16, 16), float32)
    s0, s1, s2, s3 = float32(0), float32(0), float32(0), float32(0)
    m, k, n = uint32(a.shape[0]), uint32(a.shape[1]), uint32(b.shape[1])
    row = uint32(first + y)
    start = uint32(0)
    while start < k:
        left[y, x] = a[row, uint32(start + x)] if row < m and uint32(start + x) < k else float32(0)
        right[y, x] = b[uint32(start + y), column] if uint32(start + y) < k and column < n else float32(0)
        cuda.syncthreads()
        if y < uint32(4):
            for i in range(16):
                r = right[uint32(i), x]
                s0 += left[y, uint32(i)] * r
                s1 += left[uint32(y + uint32(4)), uint32(i)] * r
                s2 += left[uint32(y + uint32(8)), uint32(i)] * r
                s3 += left[uint32(y + uint32(12)), uint32(i)] * r
        cuda.syncthreads()
        start = uint32(start + uint32(16))
    if y < uint32(4) and column < n:
        for i, total in ((0, s0), (4, s1), (8, s2), (12, s3)):
            if uint32(row + uint32(i)) < m:
                out[uint32(row + uint32(i)), column] = total
