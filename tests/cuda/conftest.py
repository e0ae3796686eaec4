"""Tests of the CUDA backend: in the simulator (tests/test_cuda_simulator.py starts them there), or on a card."""

import pytest

from pitsolve.backends.cuda.small_blocks import use_small_blocks


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a warp or less."""
    use_small_blocks(monkeypatch.setattr)
