from numba import cuda, float32, uint32


def kernel(out, a):
    t = uint32(cuda.threadIdx.x)
    i = uint32(cuda.blockIdx.x * 128 + t)
    shared = cuda.shared.array(4, float32)
    value = a[i] if i < uint32(a.shape[0]) else float32(0)
    for distance in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, distance)
    shared[uint32(t >> uint32(5))] = value  # all lanes store the same
    cuda.syncthreads()
    if t == 0:
        out[cuda.blockIdx.x] = shared[0] + shared[1] + shared[2] + shared[3]
