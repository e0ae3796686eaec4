"""Tests of the CUDA backend: in the simulator (tests/test_cuda_simulator.py starts them there), or on a card."""

import importlib
import sys

import pytest

from pitsolve.backends.cuda.launch import SIMULATED

if SIMULATED:
    sys.setswitchinterval(1e-5)  # a barrier of the simulator waits for every thread of a block to get its turn

WARP, FEW, BY_BYTES = 32, 8, {4: 32, 8: 32}
THREADS = {
    "arrays._THREADS": WARP, "dense_scan._LARGE_THREADS": WARP, "dense_scan._SHARED_THREADS": BY_BYTES,
    "dense_scan._THREADS": WARP, "filter._THREADS": FEW, "gated_adjoint._STREAMED_THREADS": WARP,
    "gated_adjoint._THREADS": WARP, "gated_linearise.THREADS": FEW, "gated_model._THREADS": WARP, "general_model._ALONE": FEW,
    "general_model._BLOCKS": 16, "general_model._PARTS": FEW, "general_model._THREADS": FEW, "general_windows._ALONE": FEW,
    "general_windows._MOST": FEW, "newton._THREADS": WARP, "newton._TILE_THREADS": BY_BYTES, "pointwise._THREADS": FEW,
    "scan._THREADS": BY_BYTES, "scan._WALK_THREADS": WARP, "transfer._MOST": FEW, "transfer._THREADS": FEW,
    "tridiagonal_large.THREADS": FEW,
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a warp or less: the simulator starts a thread of the host for every thread."""
    for place, threads in THREADS.items():
        module, _, name = place.partition(".")
        monkeypatch.setattr(importlib.import_module(f"pitsolve.backends.cuda.{module}"), name, threads)
