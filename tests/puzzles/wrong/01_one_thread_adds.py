WRONG = [
    ("type", "whole arrays", "out = a + b", "def kernel(out, a, b):\n    out = a + b\n"),
    ("wrong", "out[0] is", None, "def kernel(out, a, b):\n    out[0] = a[0] - b[0]\n"),
    ("unwritten", "Assign to out[0]", None, "def kernel(out, a, b):\n    c = a[0] + b[0]\n"),
    ("type", "Write the result into `out`", "return", "def kernel(out, a, b):\n    return a[0] + b[0]\n"),
    ("overwritten", "wrote to its input `a`", None, "def kernel(out, a, b):\n    a[0] += b[0]\n    out[0] = a[0]\n"),
    ("syntax", "cannot read", "def kernel", "def kernel(out, a, b)\n    out[0] = a[0] + b[0]\n"),
    ("name", "the name `c` is not known", "out[0]", "def kernel(out, a, b):\n    out[0] = a[0] + c[0]\n"),
    ("missing", "no function 'kernel'", None, "def kern(out, a, b):\n    out[0] = a[0] + b[0]\n"),
    ("missing", "takes 2 parameters, the puzzle has 3", None, "def kernel(out, a):\n    out[0] = a[0]\n"),
    ("bounds", "element 1 of `b`, which has 1", "b[1]", "def kernel(out, a, b):\n    out[0] = a[0] + b[1]\n"),
    (
        "index",
        "indexed with 2 indices",
        "out[0, 0]",
        "def kernel(out, a, b):\n    out[0, 0] = a[0] + b[0]\n",
    ),
]
