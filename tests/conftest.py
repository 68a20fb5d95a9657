"""One Hypothesis profile for all tests, and nothing else."""

import os

from hypothesis import settings

# A JIT breaks deadlines.  Continuous integration is reproducible; elsewhere every run draws fresh examples and prints
# the blob that repeats a failure.
settings.register_profile("loadsparse", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("loadsparse")
