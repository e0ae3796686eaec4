"""Blocks of a warp or less, for tests and for Numba's simulator, which starts a thread of the host for every thread."""

import importlib
from collections.abc import Callable

WARP, FEW, BY_BYTES = 32, 8, {4: 32, 8: 32}
THREADS = {
    "arrays._THREADS": WARP, "dense_reduce._THREADS": WARP, "dense_scan._LARGE_THREADS": WARP,
    "dense_scan._THREADS": WARP, "filter._THREADS": FEW, "gated_adjoint._STREAMED_THREADS": WARP,
    "gated_adjoint._THREADS": WARP, "gated_linearise.THREADS": FEW, "gated_model._THREADS": WARP, "general_model._ALONE": FEW,
    "general_model._BLOCKS": 16, "general_model._PARTS": FEW, "general_model._THREADS": FEW, "general_windows._ALONE": FEW,
    "general_windows._MOST": FEW, "newton._THREADS": WARP, "newton._TILE_THREADS": BY_BYTES, "pointwise._THREADS": FEW,
    "scan._THREADS": BY_BYTES, "scan._WALK_THREADS": WARP, "transfer._MOST": FEW, "transfer._THREADS": FEW,
    "tridiagonal_large.THREADS": FEW,
}


def use_small_blocks(set_attribute: Callable[[object, str, object], None]) -> None:
    """Set the sizes of blocks in their modules by ``setattr``, or by what a test has in its place."""
    for place, threads in THREADS.items():
        module, _, name = place.partition(".")
        set_attribute(importlib.import_module(f"pitsolve.backends.cuda.{module}"), name, threads)
