"""The choice behind method="auto": the loop, or windows as lanes where the model forgets fast enough for them to pay."""

from __future__ import annotations

import numpy as np

from pitsolve.methods.problem import Problem

_PROBE = 64  # steps in which the forgetting is measured
_MARGIN = 0.8  # of the predicted gain that is trusted
PATIENCE = 3  # iterations after which windows that were chosen here give way to the loop


def choose(problem: Problem, tol: float) -> str:
    """``"shooting"`` or ``"sequential"``.

    The loop takes T steps a sequence, windows of L steps about L + m if they merge after m, each step r times cheaper: windows
    win if m < (r - 1) L. The backend knows r, measured once and for all (docs/methods/windows.md). m is predicted from the
    distance of two solutions with different starts, which a forgetting model brings together geometrically.
    """
    backend, batch = problem.backend, problem.stop.size
    window = backend.default_window(batch, problem.steps)
    ratio = backend.window_gain(problem.model, batch, int(problem.stop.sum()), window)
    if ratio <= 1.0:
        return "sequential"
    return "shooting" if _merging(problem, tol) < _MARGIN * (ratio - 1.0) * window else "sequential"


def _merging(problem: Problem, tol: float) -> float:
    """Steps after which two solutions differ by less than ``tol``, extrapolated from the first sequence; inf if they do not."""
    model, arrays, b = problem.model, problem.backend.arrays, int(np.argmax(problem.stop))
    steps, size = min(_PROBE, int(problem.stop[b])), problem.h0.shape[1]
    x = arrays.take(problem.x, np.full(2 * steps, b), np.tile(np.arange(steps), 2)).reshape((2, steps, problem.x.shape[2]))
    # Two starts that no weight vector prefers: h_0, and h_0 moved by one, up and down in turn.
    starts = arrays.to_host(arrays.rows(problem.h0, np.array([b, b]))).copy()
    starts[1] += np.where(np.arange(size) % 2, -1, 1).astype(model.dtype)
    states = arrays.empty((2, steps, size), model.dtype)
    bounds = np.zeros(2, np.int64), np.full(2, steps)
    model.propagate(x, model.carry(arrays.from_host(starts)), states, 0, steps, *bounds)
    states = arrays.to_host(states)
    with np.errstate(over="ignore", invalid="ignore"):  # a model that overflows does not merge
        middle, last = (float(np.abs(states[1, t] - states[0, t]).max()) for t in (steps // 2 - 1, steps - 1))
    if last <= tol:
        return float(steps)
    if not last < middle:
        return np.inf
    return steps + np.log(last / tol) * (steps - steps // 2) / np.log(middle / last)
