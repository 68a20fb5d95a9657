from numba import cuda, uint32, uint64

from loadsparse.gpu.intrinsics import barrier, cp_async_16, cp_async_commit, cp_async_wait, load_shared, shared_base


def kernel(out, a, tiles):
    """All addresses of a tile are one register and constants."""
    t = uint32(cuda.threadIdx.x)
    into, read = uint32(shared_base() + t * uint32(16)), uint32(shared_base() + uint32(uint32(63) - t) * uint32(4))
    s0, s1, s2, s3 = uint32(0), uint32(0), uint32(0), uint32(0)
    source, left = a + uint64(t) * uint64(16), uint32(tiles)
    now = uint32(0)
    cp_async_16(into, 0, source, 0, uint32(16))
    cp_async_commit()
    while left:
        cp_async_wait(0)
        barrier()
        left = uint32(left - uint32(1))
        place = uint32(read + now)
        now = uint32(now ^ uint32(1024))
        if left:
            source += uint64(1024)
            cp_async_16(uint32(into + now), 0, source, 0, uint32(16))
            cp_async_commit()
        s0 = uint32(s0 + load_shared(place, 768))
        s1 = uint32(s1 + load_shared(place, 512))
        s2 = uint32(s2 + load_shared(place, 256))
        s3 = uint32(s3 + load_shared(place, 0))
    i = uint64(t)
    out[i], out[i + uint64(64)], out[i + uint64(128)], out[i + uint64(192)] = s0, s1, s2, s3
