"""A small DeepSeekMoE, trained with every balancer on the Python standard library's own source.

One thread per run: the runs of an experiment go side by side, and sums keep their order, so that a resumed run repeats
every bit.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
