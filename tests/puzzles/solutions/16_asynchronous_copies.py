from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, cp_async_16, cp_async_commit, cp_async_wait, load_shared, shared_base


def kernel(out, a, tiles):
    t = cuda.threadIdx.x
    base = shared_base()  # buffer 0; buffer 1 lies 1024 bytes further
    s0, s1, s2, s3 = uint32(0), uint32(0), uint32(0), uint32(0)
    cp_async_16(uint32(base + t * 16), 0, a + uint64(t * 16), 0, uint32(16))  # tile 0
    cp_async_commit()
    for tile in range(tiles):
        now = base + tile % 2 * 1024
        cp_async_wait(0)
        barrier()
        if tile + 1 < tiles:
            other = base + (tile + 1) % 2 * 1024
            cp_async_16(uint32(other + t * 16), 0, a + uint64((tile + 1) * 1024 + t * 16), 0, uint32(16))
            cp_async_commit()
        s0 += load_shared(uint32(now + (255 - t) * 4), 0)  # elements t, t + 64, t + 128, t + 192 of the answer
        s1 += load_shared(uint32(now + (191 - t) * 4), 0)
        s2 += load_shared(uint32(now + (127 - t) * 4), 0)
        s3 += load_shared(uint32(now + (63 - t) * 4), 0)
    out[t] = s0
    out[t + 64] = s1
    out[t + 128] = s2
    out[t + 192] = s3
