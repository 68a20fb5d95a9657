from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, ldmatrix_x4, load_global_x4, shared_base, store_shared_x4


def kernel(out, a):
    lane = uint32(cuda.threadIdx.x)
    base = shared_base()
    for i in range(4):  # each lane brings 4 of the 128 chunks
        row, chunk = (32 * i + lane) // 8, lane % 8
        place = row * 128 + (chunk ^ (row % 8)) * 16
        store_shared_x4(uint32(base + place), 0, load_global_x4(a + uint64(row * 128 + chunk * 16), 0))
    barrier()
    for step in range(4):  # the 16 columns 16 * step ...
        row, chunk = lane % 16, 2 * step + lane // 16
        place = row * 128 + (chunk ^ (row % 8)) * 16
        w0, w1, w2, w3 = ldmatrix_x4(uint32(base + place), 0)
        out[lane, 4 * step] = w0
        out[lane, 4 * step + 1] = w1
        out[lane, 4 * step + 2] = w2
        out[lane, 4 * step + 3] = w3
