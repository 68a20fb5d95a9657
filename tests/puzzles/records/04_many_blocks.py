from numba import cuda, uint32, uint64


def launch(n):
    return -(-n // 1024), 128


def kernel(out, a, b, n):
    """A warp subtracts 256 neighbouring elements, 8 for each lane: one guard where all of them exist."""
    t = uint32(cuda.threadIdx.x)
    i = uint64(cuda.blockIdx.x * 1024 + uint32(t & uint32(96)) * 8 + uint32(t & uint32(31)))
    size = uint64(n)
    if i + uint64(224) < size:
        for step in range(8):
            out[i + uint64(32 * step)] = a[i + uint64(32 * step)] - b[i + uint64(32 * step)]
    else:
        while i < size:
            out[i] = a[i] - b[i]
            i += uint64(32)
