from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, ldmatrix_x4, load_global_x4, shared_base, store_shared_x4


def kernel(out, a):
    lane = uint32(cuda.threadIdx.x)
    base = shared_base()  # address of the tile, in bytes
    store_shared_x4(uint32(base + lane * 16), 0, load_global_x4(a + uint64(lane * 16), 0))  # the tile comes in
    barrier()
    address = base + lane % 16 * 32 + lane // 16 * 16
    upper_left, lower_left, upper_right, lower_right = ldmatrix_x4(uint32(address), 0)
    out[lane, 0] = upper_left
    out[lane, 1] = lower_left
    out[lane, 2] = upper_right
    out[lane, 3] = lower_right
