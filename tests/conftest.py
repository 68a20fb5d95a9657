"""One Hypothesis profile for all tests, one BLAS thread for each of their processes, a collector that leaves pytest alone."""

import gc
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two workers with two threads each fight over two cores

from hypothesis import settings

# A JIT breaks deadlines.  Continuous integration is reproducible; elsewhere every run draws fresh examples and prints
# the blob that repeats a failure.
settings.register_profile("loadsparse", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("loadsparse")


def pytest_collection_finish() -> None:
    """Thousands of test items live to the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
