from numba import cuda, float32


def kernel(out, a):
    i = cuda.threadIdx.x
    shared = cuda.shared.array(64, float32)
    shared[i] = a[i]
    cuda.syncthreads()
    out[i] = shared[5 * i % 64]
