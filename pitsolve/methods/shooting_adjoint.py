"""The adjoint by windows of time: all windows backward at once from zero, then what neighbours passed on.

The adjoint recurrence is linear, so a new sweep carries only the change of its start, and stops where
that is negligible.
"""

from __future__ import annotations

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.methods.problem import Problem
from pitsolve.methods.shooting import Windows


def adjoint_shooting(problem: Problem, states: np.ndarray, dstates: np.ndarray, dx: np.ndarray, *, tol: float,
                     window: int | None = None) -> tuple[Parameters, np.ndarray]:
    """Parameter gradients and dL/dh_0 of a gated cell, or of one that states its pullback; dL/dx is written to ``dx``.

    With c_w the adjoint before window w and Phi_w^T the transposed Jacobian of the window, c_w = b_w + Phi_w^T c_{w+1}. The
    first sweep finds every b_w, further ones add Phi_w^T times what is new in c_{w+1}, if it exceeds ``tol`` times the largest
    |c|. After as many sweeps as windows nothing can be new.
    """
    verbs, arrays = problem.model.windows, problem.backend.arrays
    windows = Windows.cut(problem.stop, window or problem.backend.default_window(problem.stop.size, problem.steps))
    totals = verbs.totals(windows.row.size, dx)
    new, dh0 = (arrays.zeros((count, states.shape[2]), states.dtype) for count in (windows.row.size, problem.stop.size))
    todo, before = np.arange(windows.row.size), dstates
    scale = problem.backend.magnitude(dstates)
    while True:
        carries = verbs.accumulate(totals, problem.x, states, problem.h0, new, *windows[todo], before, tol * scale)
        opening = np.flatnonzero(windows.first[todo] == 0)
        row = windows.row[todo[opening]]
        arrays.put_rows(dh0, row, arrays.combine(1.0, arrays.rows(dh0, row), 1.0, arrays.rows(carries, opening)))
        sizes = arrays.largest(carries)
        scale = max(scale, sizes.max(initial=0.0))
        passed_on = np.flatnonzero((windows.first[todo] > 0) & (sizes > tol * scale))
        if passed_on.size == 0:
            return verbs.finish(totals), dh0
        new, todo, before = arrays.rows(carries, passed_on), todo[passed_on] - 1, None


def carries_by_shooting(problem: Problem, states: np.ndarray, dstates: np.ndarray, *, tol: float,
                        window: int | None = None) -> np.ndarray:
    """c_t = J_t^T (dL/dh_t + c_{t+1}) for all t, for any cell: windows whose start has moved are swept again."""
    verbs, arrays, magnitude = problem.model.windows, problem.backend.arrays, problem.backend.magnitude
    windows = Windows.cut(problem.stop, window or problem.backend.default_window(problem.stop.size, problem.steps))
    carries = arrays.zeros(states.shape, states.dtype)
    starts, ends = (arrays.zeros((windows.row.size, states.shape[2]), states.dtype) for _ in range(2))
    todo, follow, least = np.arange(windows.row.size), windows.follow, magnitude(dstates)
    while todo.size:
        new = verbs.pull(problem.x, states, problem.h0, carries, arrays.rows(starts, todo), *windows[todo], before=dstates)
        arrays.put_rows(ends, todo, new)
        change = arrays.combine(1.0, arrays.rows(ends, follow), -1.0, arrays.rows(starts, follow - 1))
        moved = follow[arrays.largest(change) > tol * max(magnitude(ends), least)]
        todo = moved - 1
        arrays.put_rows(starts, todo, arrays.rows(ends, moved))
    arrays.put(carries, windows.row, windows.first, ends)
    return carries
