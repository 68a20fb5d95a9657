from numba import cuda, int32, uint32


def kernel(out, a):
    t = uint32(cuda.threadIdx.x)
    i = uint32(cuda.blockIdx.x * 64 + t)
    n = uint32(a.shape[0])
    shared = cuda.shared.array(66, int32)
    mine = a[i] if i < n else int32(0)
    shared[t + uint32(1)] = mine
    if uint32(t - uint32(1)) >= uint32(62):  # 0 and 63
        j = uint32(i + uint32(1)) if t else uint32(i - uint32(1))
        shared[uint32(65) if t else uint32(0)] = a[j] if j < n else int32(0)  # -1 is the largest number of all
    cuda.syncthreads()
    if i < n:
        out[i] = shared[t] + mine + shared[t + uint32(2)]
