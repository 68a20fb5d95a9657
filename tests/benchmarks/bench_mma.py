"""Bit-exact mma.sync and mma.sp: CPU time of one warp-wide multiplication in the engine (bar: m16n8k16 <= 1 us)."""

import ctypes
import time

import numpy as np

from loadsparse.gpu.simulator.engine import jit, mma, mma_usual

LOOP = """
declare i64 @{name}(ptr)
define i64 @loop(ptr %p, i64 %n) {{
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %j, %next ]
  %r = call i64 @{name}(ptr %p)
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %n
  br i1 %more, label %next, label %done
done:
  ret i64 0
}}
"""
TIMES = 20_000


def nanoseconds(variant: mma.Multiply, area: np.ndarray) -> float:
    text = mma_usual.text(variant)
    start = LOOP.format(name=variant.name).replace(f"declare i64 @{variant.name}(ptr)\n", "")
    loaded = jit.Loaded(jit.compile_object(text + start), {}, ("loop",))
    loop = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(loaded.addresses["loop"])
    best = float("inf")
    for _ in range(8):
        begin = time.thread_time()
        loop(area.ctypes.data, TIMES)
        best = min(best, time.thread_time() - begin)
    return best / TIMES * 1e9


VARIANTS = (
    ("f16", 16, "f32", False, ("sm_80", "sm_90")),
    ("f16", 16, "f16", False, ("sm_80", "sm_90")),
    ("bf16", 16, "f32", False, ("sm_80", "sm_90")),
    ("tf32", 8, "f32", False, ("sm_80", "sm_90")),
    ("e4m3", 32, "f32", False, ("sm_89", "sm_90")),
    ("f16", 32, "f32", True, ("sm_80", "sm_90")),
    ("bf16", 32, "f32", True, ("sm_80", "sm_90")),
)


def operands(kind: str, total: str) -> np.ndarray:
    """A, B and C of standard normal numbers (8 bits: of any finite ones) and legal metadata in the area of one warp."""
    raw = np.zeros(mma.AREA_BYTES + 64, np.uint8)
    area = raw[-raw.ctypes.data % 64 :][: mma.AREA_BYTES]
    rng = np.random.default_rng(0)
    values = rng.standard_normal(512).astype(np.float32)
    as_read = {
        "f16": values.astype(np.float16).view(np.uint8),
        "bf16": (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8),
        "tf32": values[:256].view(np.uint8),
        "e4m3": rng.integers(0, 0x7E, 1024, dtype=np.uint8),
    }
    area[: mma.C_AREA] = as_read[kind]
    area[mma.C_AREA : mma.D_AREA] = as_read["f16" if total == "f16" else "tf32"][:512]
    area[mma.METADATA_AREA :] = rng.choice(np.array([0x44, 0x88, 0x9C, 0xEE, 0xED], np.uint8), 128)
    return area


def main() -> int:
    print(f"{'instruction':40} {'arch':6} {'ns':>7} {'bar':>6}")
    slow = False
    for kind, k, out, sparse, archs in VARIANTS:
        area = operands(kind, out)
        for arch in archs:
            spent = nanoseconds(mma.variant(arch, (kind, kind), k, out, out, sparse), area)
            slow |= spent > 1000
            name = f"mma{'.sp' * sparse}.m16n8k{k}.{out}.{kind}.{kind}.{out}"
            print(f"{name:40} {arch:6} {spent:7.0f} {1000:6}")
    return int(slow)


if __name__ == "__main__":
    raise SystemExit(main())
