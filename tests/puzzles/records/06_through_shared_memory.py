from numba import cuda, float32, uint32


def kernel(out, a):
    i = uint32(cuda.threadIdx.x)
    shared = cuda.shared.array(64, float32)
    shared[i] = a[i]
    cuda.syncthreads()
    out[i] = shared[uint32(5 * i) & uint32(63)]
