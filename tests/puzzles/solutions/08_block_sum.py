from numba import cuda, float32


def kernel(out, a):
    i, t = cuda.grid(1), cuda.threadIdx.x
    shared = cuda.shared.array(128, float32)
    shared[t] = a[i] if i < a.shape[0] else float32(0)
    cuda.syncthreads()
    distance = 64
    while distance > 0:
        if t < distance:
            shared[t] += shared[t + distance]
        cuda.syncthreads()
        distance //= 2
    if t == 0:
        out[cuda.blockIdx.x] = shared[0]
