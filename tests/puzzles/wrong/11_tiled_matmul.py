from functools import partial

from edit import edited

edit = partial(edited, "11_tiled_matmul")

WRONG = [
    ("race", "one after them", None, edit(("right[i, x]\n        cuda.syncthreads()\n", "right[i, x]\n"))),
    ("race", "one before the products", None, edit(("float32(0)\n        cuda.syncthreads()\n", "float32(0)\n"))),
    ("bounds", "guard", None, edit((" if row < m and start + x < k else float32(0)", ""))),
    ("wrong", "expected", None, edit(("range(0, k, 16)", "range(0, k - 15, 16)"))),
    ("wrong", "expected", None, edit(("left[y, i] * right[i, x]", "left[i, y] * right[i, x]"))),
    (
        "costly",
        "shared memory only",
        None,
        "from numba import cuda, float32\n\n\ndef kernel(out, a, b):\n    column, row = cuda.grid(2)\n"
        "    if row < out.shape[0] and column < out.shape[1]:\n        total = float32(0)\n"
        "        for i in range(a.shape[1]):\n            total += a[row, i] * b[i, column]\n        out[row, column] = total\n",
    ),
    ("float64", "write float32", None, edit(("total = float32(0)", "total = 0.0"))),
]
