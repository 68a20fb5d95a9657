"""One CUDA C++ kernel `k` in both engines, which must agree in every byte, count, hazard and printed word."""

import numpy as np

from loadsparse.gpu import compiler, simulator


def both(source, *arguments, arch="sm_80", grid=1, block=32, options=(), native=True):
    """Launches in both engines, demands equality, and returns the arrays of the first with its report."""
    ptx = compiler.cuda(source, arch, *options)
    found = []
    for engine in ("llvm" if native else "auto", "interpreter"):
        arrays = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        found.append((arrays, simulator.load(ptx, arch)["k"].launch(grid, block, *arrays, engine=engine)))
    (first, one), (second, two) = found
    for a, b in zip(first, second, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8))
    assert one.metrics == two.metrics
    assert one.lines == two.lines
    assert sorted(map(str, one.hazards)) == sorted(map(str, two.hazards))
    assert one.printed == two.printed
    return first, one
