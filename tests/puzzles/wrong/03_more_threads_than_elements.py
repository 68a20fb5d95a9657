HEAD = "from numba import cuda\n\n\ndef kernel(out, a):\n    i = cuda.threadIdx.x\n"

WRONG = [
    ("bounds", "if i < n", "out[i] = ", f"{HEAD}    out[i] = a[i] + a[i]\n"),
    ("bounds", "of `a`, which has 20", "a[i]", f"{HEAD}    if i <= a.shape[0]:\n        out[i] = a[i] + a[i]\n"),
    (
        "unwritten",
        "elements were never written",
        None,
        f"{HEAD}    if i < a.shape[0] - 1:\n        out[i] = a[i] + a[i]\n",
    ),
    ("unwritten", "out[20]", None, f"{HEAD}    if i < 20 and i < a.shape[0]:\n        out[i] = a[i] + a[i]\n"),
    ("budget", "never ends", None, f"{HEAD}    while i < a.shape[0]:\n        out[i] = a[i]\n"),
]
