from numba import cuda, uint32, uint64

from loadsparse.gpu import intrinsics as ptx

mma = ptx.mma_m16n8k16["f16"]  # mma(accumulators, a, b): a tuple of 4 float32; 4 words of A and 2 of B


def kernel(out, a, b):
    lane = uint32(cuda.threadIdx.x)
    base = ptx.shared_base()  # A in 512 bytes, B in the next 256
    ptx.store_shared_x4(uint32(base + lane * 16), 0, ptx.load_global_x4(a + uint64(lane * 16), 0))
    if lane < 16:
        ptx.store_shared_x4(uint32(base + 512 + lane * 16), 0, ptx.load_global_x4(b + uint64(lane * 16), 0))
    ptx.barrier()
    left = ptx.ldmatrix_x4(uint32(base + lane % 16 * 32 + lane // 16 * 16), 0)
    right = ptx.ldmatrix_x2_trans(uint32(base + 512 + lane % 16 * 16), 0)
    zeros = ptx.zeros(4)
    c0, c1, c2, c3 = mma(zeros, left, right)
    row, column = lane // 4, lane % 4 * 2
    out[row, column] = c0
    out[row, column + 1] = c1
    out[row + 8, column] = c2
    out[row + 8, column + 1] = c3
