"""The choice behind method="auto": the loop, or windows as lanes where the model forgets fast enough for them to pay."""

from __future__ import annotations

import os

import numpy as np

from pitsolve.backends.cpu.gated_windows import windows_at_once
from pitsolve.cells.base import GatedCell
from pitsolve.methods.problem import Problem
from pitsolve.methods.shooting import default_window

_PROBE = 64  # steps in which the forgetting is measured
_SHORTEST = 2048  # steps in all below which a probe and two launches cost more than windows gain
_GAINS = ((8, 2.0), (16, 1.4), (48, 1.05), (96, 1.2), (np.inf, 1.5))  # one sweep over the loop on one core, up to a hidden size
_GAIN_WIDTH = 32  # windows at once when they were measured
_PROCESSORS = os.cpu_count() or 1
_MARGIN = 0.8  # of the predicted gain that is trusted
PATIENCE = 3  # iterations after which windows that were chosen here give way to the loop


def choose(problem: Problem, tol: float) -> str:
    """``"shooting"`` or ``"sequential"``.

    The loop takes T steps a sequence, windows of L steps about L + m if they merge after m, each step r times cheaper: windows
    win if m < (r - 1) L. r is measured once and for all (docs/methods/windows.md). m is predicted from the distance of two
    solutions with different starts, which a forgetting model brings together geometrically. The number of processors counts,
    the number of threads in use does not, so that the choice, and with it the last bits, are the same for any number.
    """
    model, steps = problem.model, int(problem.stop.sum())
    batch = problem.stop.size
    if not isinstance(model.cell, GatedCell) or model.cell.heads > 1 or steps < _SHORTEST:
        return "sequential"
    window = default_window(batch, problem.steps)
    width = windows_at_once(model.dtype)
    tasks = -(-steps // (window * width))
    gain = next(gain for size, gain in _GAINS if model.cell.hidden_size <= size) * min(1.0, width / _GAIN_WIDTH)
    ratio = gain * min(_PROCESSORS, tasks) / min(_PROCESSORS, batch)
    if ratio <= 1.0:
        return "sequential"
    return "shooting" if _merging(problem, tol) < _MARGIN * (ratio - 1.0) * window else "sequential"


def _merging(problem: Problem, tol: float) -> float:
    """Steps after which two solutions differ by less than ``tol``, extrapolated from the first sequence; inf if they do not."""
    model, b = problem.model, int(np.argmax(problem.stop))
    steps = min(_PROBE, int(problem.stop[b]))
    x = np.ascontiguousarray(np.broadcast_to(problem.x[b, :steps], (2, steps, problem.x.shape[2])))
    # Two starts that no weight vector prefers: h_0, and h_0 moved by one, up and down in turn.
    starts = np.stack([problem.h0[b], problem.h0[b] + np.where(np.arange(problem.h0.shape[1]) % 2, -1, 1).astype(model.dtype)])
    states = np.empty((2, steps, problem.h0.shape[1]), model.dtype)
    bounds = np.zeros(2, np.int64), np.full(2, steps)
    model.propagate(x, model.carry(starts), states, 0, steps, *bounds)
    with np.errstate(over="ignore", invalid="ignore"):  # a model that overflows does not merge
        middle, last = (float(np.abs(states[1, t] - states[0, t]).max()) for t in (steps // 2 - 1, steps - 1))
    if last <= tol:
        return float(steps)
    if not last < middle:
        return np.inf
    return steps + np.log(last / tol) * (steps - steps // 2) / np.log(middle / last)
