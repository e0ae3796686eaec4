"""Settings for all tests."""

from hypothesis import settings

# Compilation makes single examples slow, and a failure must come back on every run.
settings.register_profile("pitsolve", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("pitsolve")
