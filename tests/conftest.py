"""Settings for all tests."""

import os

from hypothesis import settings
from numba import cuda

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two test processes share the cores; waiting threads must not spin

# Compilation makes single examples slow, and a failure must come back on every run.
settings.register_profile("pitsolve", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("pitsolve")

# tests/cuda needs a card or the simulator, which is chosen before Numba is imported: test_cuda_simulator.py starts it there.
collect_ignore = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or cuda.is_available() else ["cuda"]
