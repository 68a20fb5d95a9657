from functools import partial

from edit import edited

edit = partial(edited, "09_warp_sum")

WRONG = [
    ("wrong", "expected", None, edit(("(16, 8, 4, 2, 1)", "(16, 8, 4, 2)"))),
    (
        "costly",
        "Five steps",
        None,
        edit(
            ("(16, 8, 4, 2, 1)", "(16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0)"),
            ("value += cuda", "value += (step > 0) * cuda"),
        ),
    ),
    (
        "conflicts",
        "a shuffle reads the register",
        None,
        "from numba import cuda, float32\n\n\ndef kernel(out, a):\n    i, lane = cuda.grid(1), cuda.threadIdx.x\n"
        "    shared = cuda.shared.array(32, float32)\n    shared[lane] = a[i]\n    cuda.syncthreads()\n"
        "    if lane == 0:\n        total = float32(0)\n        for j in range(32):\n            total += shared[j]\n"
        "        out[cuda.blockIdx.x] = total\n",
    ),
    ("unwritten", "out[1]", None, edit(("if lane == 0:", "if i == 0:"))),
]
