from numba import cuda, float32, uint32


def kernel(out, a):
    x, y = uint32(cuda.threadIdx.x), uint32(cuda.threadIdx.y)
    row, column = uint32(cuda.blockIdx.y * 32), uint32(cuda.blockIdx.x * 32)
    tile = cuda.shared.array((32, 33), float32)
    rows, columns = uint32(a.shape[0]), uint32(a.shape[1])
    if uint32(row + y) < rows and uint32(column + x) < columns:
        tile[y, x] = a[uint32(row + y), uint32(column + x)]
    cuda.syncthreads()
    if uint32(column + y) < columns and uint32(row + x) < rows:
        out[uint32(column + y), uint32(row + x)] = tile[x, y]
