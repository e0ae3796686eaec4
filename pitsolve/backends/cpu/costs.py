"""What work costs on this backend: memory for a slab of time, lengths of windows, and what windows gain over the loop."""

from __future__ import annotations

import os

import numpy as np

from pitsolve.backends.cpu.gated_windows import windows_at_once
from pitsolve.cells.base import GatedCell

_LANES = 64  # windows in all, on short sequences; fixed, so that the result does not depend on the machine's threads
_SHORTEST, _LONGEST = 32, 1024  # steps of a window by default
_FEWEST_STEPS = 2048  # steps in all below which a probe and two launches cost more than windows gain
_GAINS = ((8, 2.0), (16, 1.4), (48, 1.05), (96, 1.2), (np.inf, 1.5))  # one sweep over the loop on one core, up to a hidden size
_GAIN_WIDTH = 32  # windows at once when they were measured
_PROCESSORS = os.cpu_count() or 1


def iteration_memory() -> int:
    """Bytes of scratch for a slab of an iteration: larger slabs of Jacobians fall out of the cache and gain nothing."""
    return 32 << 20


def loop_memory() -> int:
    """Bytes of scratch for a slab of the loop or of the gradient: what is computed ahead stays in the second-level cache."""
    return 4 << 20


def default_window(batch: int, steps: int) -> int:
    """Steps of a window: few enough windows to merge quickly, enough to fill the lanes of two threads; odd.

    Rows that a power of two separates would share the sets of a cache.
    """
    length = -(-steps // max(1, _LANES // max(1, batch)))
    return min(max(length, _SHORTEST), max(_LONGEST, _SHORTEST)) | 1


def fewest_pullbacks() -> int:
    """Sequences from which on a loop over pullbacks is taken rather than Jacobians and a scan.

    On one thread it takes a half to a seventh of the time, and one sequence has few more threads to use.
    """
    return 1


def window_gain(model, batch: int, steps: int, window: int) -> float:
    """How many times cheaper one sweep of windows is than the loop, for so many sequences of ``steps`` in all; 0 if never.

    The number of processors counts, the number of threads in use does not, so that a choice that depends on it, and with it the
    last bits, are the same for any number.
    """
    if not isinstance(model.cell, GatedCell) or model.cell.heads > 1 or steps < _FEWEST_STEPS:
        return 0.0
    width = windows_at_once(model.dtype)
    tasks = -(-steps // (window * width))
    gain = next(gain for size, gain in _GAINS if model.cell.hidden_size <= size) * min(1.0, width / _GAIN_WIDTH)
    return gain * min(_PROCESSORS, tasks) / min(_PROCESSORS, batch)
