"""Settings for all tests."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two test processes share the cores; waiting threads must not spin

# Compilation makes single examples slow, and a failure must come back on every run.
settings.register_profile("pitsolve", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("pitsolve")
