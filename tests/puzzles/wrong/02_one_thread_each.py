HEAD = "from numba import cuda, float32\n\n\ndef kernel(out, a):\n    i = cuda.threadIdx.x\n"

WRONG = [
    (
        "collision",
        "two threads race here for element 0 of `out`",
        "out[0]",
        f"{HEAD}    out[0] = a[i] * float32(0.1)\n",
    ),
    ("float64", "write float32(0.1)", "a[i] * 0.1", f"{HEAD}    out[i] = a[i] * 0.1\n"),
    (
        "unwritten",
        "31 of 32 elements were never written; the first is out[1]",
        None,
        f"{HEAD}    if i == 0:\n        out[0] = a[0] * float32(0.1)\n",
    ),
    ("name", "Did you mean `threadIdx`?", "threadidx", HEAD.replace("threadIdx", "threadidx") + "    out[i] = a[i]\n"),
    ("name", "Did you mean `i`?", "a[ii]", f"{HEAD}    out[i] = a[ii] * float32(0.1)\n"),
    ("bounds", "element 32 of `a`", "a[i + 1]", f"{HEAD}    out[i] = a[i + 1] * float32(0.1)\n"),
    ("index", "not an integer", "a[i / 1]", f"{HEAD}    out[i] = a[i / 1] * float32(0.1)\n"),
    ("type", "no sorted(", "sorted", f"{HEAD}    out[i] = sorted(a)[0]\n"),
    ("constant", "tuple of mixed types", "t[i]", f"{HEAD}    t = (float32(10), 10)\n    out[i] = a[i] + t[i]\n"),
]
