def kernel(out, a, b):
    out[0] = a[0] + b[0]
