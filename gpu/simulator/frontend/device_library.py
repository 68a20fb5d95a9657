"""Device functions that NVIDIA ships as machine code, written again in PTX so that they can be simulated."""

from __future__ import annotations

HEAP_BYTES = 8 << 20
"""Size of the heap of device-side `malloc`: CUDA's default."""

_HEADER = ".version 7.0\n.target sm_70\n.address_size 64\n"

# The last block to arrive opens the next generation; the others spin on it, by atomics, so that the order is visible.
GRID_SYNC = (
    _HEADER
    + """
.global .align 4 .u32 loadsparse_grid_arrived;
.global .align 4 .u32 loadsparse_grid_generation;

.visible .func (.param .b64 result) cudaCGGetIntrinsicHandle (.param .b32 scope)
{
    .reg .b64 %d<2>;
    mov.u64 %d1, 1;
    st.param.b64 [result], %d1;
    ret;
}

.visible .func (.param .b32 result) cudaCGSynchronize (.param .b64 handle, .param .b32 flags)
{
    .reg .pred %p<4>;
    .reg .b32 %r<16>;
    .reg .b64 %d<4>;
    bar.sync 0;
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %tid.y;
    mov.u32 %r3, %tid.z;
    or.b32 %r1, %r1, %r2;
    or.b32 %r1, %r1, %r3;
    setp.ne.s32 %p1, %r1, 0;
    @%p1 bra WAITED;
    mov.u64 %d1, loadsparse_grid_arrived;
    mov.u64 %d2, loadsparse_grid_generation;
    mov.u32 %r4, %nctaid.x;
    mov.u32 %r5, %nctaid.y;
    mul.lo.u32 %r4, %r4, %r5;
    mov.u32 %r5, %nctaid.z;
    mul.lo.u32 %r4, %r4, %r5;
    sub.u32 %r4, %r4, 1;
    membar.gl;
    atom.global.acq_rel.gpu.add.u32 %r6, [%d2], 0;
    atom.global.acq_rel.gpu.inc.u32 %r7, [%d1], %r4;
    setp.ne.u32 %p2, %r7, %r4;
    @%p2 bra SPIN;
    atom.global.acq_rel.gpu.add.u32 %r8, [%d2], 1;
    bra OPENED;
SPIN:
    nanosleep.u32 20;
    atom.global.acq_rel.gpu.add.u32 %r8, [%d2], 0;
    setp.eq.u32 %p3, %r8, %r6;
    @%p3 bra SPIN;
OPENED:
    membar.gl;
WAITED:
    bar.sync 0;
    mov.u32 %r9, 0;
    st.param.b32 [result], %r9;
    ret;
}
"""
)

# A bump allocator: nothing is given back before the module is unloaded, and what does not fit is a null pointer.
MALLOC = (
    _HEADER
    + f"""
.global .align 16 .b8 loadsparse_heap[{HEAP_BYTES}];
.global .align 8 .u64 loadsparse_heap_used;

.visible .func (.param .b64 result) malloc (.param .b64 size)
{{
    .reg .pred %p<2>;
    .reg .b64 %d<8>;
    ld.param.u64 %d1, [size];
    add.u64 %d1, %d1, 15;
    and.b64 %d1, %d1, -16;
    mov.u64 %d2, loadsparse_heap_used;
    atom.global.add.u64 %d3, [%d2], %d1;
    add.u64 %d4, %d3, %d1;
    mov.u64 %d5, loadsparse_heap;
    cvta.global.u64 %d5, %d5;
    add.u64 %d6, %d5, %d3;
    setp.gt.u64 %p1, %d4, {HEAP_BYTES};
    selp.b64 %d7, 0, %d6, %p1;
    st.param.b64 [result], %d7;
    ret;
}}

.visible .func free (.param .b64 pointer)
{{
    ret;
}}
"""
)

LIBRARY = (GRID_SYNC, MALLOC)
