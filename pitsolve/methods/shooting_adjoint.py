"""The adjoint by windows of time: all windows backward at once from zero, then what neighbours passed on.

The adjoint recurrence is linear, so a new sweep carries only the change of its start, and stops where
that is negligible.
"""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu.pointwise import magnitude
from pitsolve.cells.base import Parameters
from pitsolve.methods.problem import Problem
from pitsolve.methods.shooting import Windows, default_window


def adjoint_shooting(problem: Problem, states: np.ndarray, dstates: np.ndarray, dx: np.ndarray, *, tol: float,
                     window: int | None = None) -> tuple[Parameters, np.ndarray]:
    """Parameter gradients and dL/dh_0 of a gated cell; dL/dx is written to ``dx``.

    With c_w the adjoint before window w and Phi_w^T the transposed Jacobian of the window, c_w = b_w + Phi_w^T c_{w+1}. The
    first sweep finds every b_w, further ones add Phi_w^T times what is new in c_{w+1}, if it exceeds ``tol`` times the largest
    |c|. After as many sweeps as windows nothing can be new.
    """
    verbs = problem.model.windows
    windows = Windows.cut(problem.stop, window or default_window(problem.stop.size, problem.steps))
    totals = verbs.totals(windows.row.size, dx)
    new = np.zeros((windows.row.size, problem.h0.shape[1]), states.dtype)
    todo, before, dh0 = slice(None), dstates, np.zeros_like(problem.h0)
    leading, follow = np.flatnonzero(windows.first == 0), windows.follow
    scale = magnitude(dstates)
    while True:
        carries = np.zeros_like(new)
        carries[todo] = verbs.accumulate(totals, problem.x, states, problem.h0, new[todo], *windows[todo], before, tol * scale)
        dh0[windows.row[leading]] += carries[leading]
        scale = max(scale, np.abs(carries).max(initial=0.0))
        new = np.zeros_like(carries)
        new[follow - 1] = carries[follow]
        todo, before = np.flatnonzero(np.abs(new).max(axis=1, initial=0.0) > tol * scale), None
        if todo.size == 0:
            return verbs.finish(totals), dh0


def carries_by_shooting(problem: Problem, states: np.ndarray, dstates: np.ndarray, *, tol: float,
                        window: int | None = None) -> np.ndarray:
    """c_t = J_t^T (dL/dh_t + c_{t+1}) for all t, for any cell: windows whose start has moved are swept again."""
    verbs = problem.model.windows
    windows = Windows.cut(problem.stop, window or default_window(problem.stop.size, problem.steps))
    carries = np.zeros_like(states)
    starts = np.zeros((windows.row.size, states.shape[2]), states.dtype)
    ends, todo, follow = np.zeros_like(starts), np.arange(windows.row.size), windows.follow
    while todo.size:
        ends[todo] = verbs.pull(problem.x, states, problem.h0, carries, starts[todo], *windows[todo], before=dstates)
        scale = max(magnitude(ends), magnitude(dstates))
        moved = follow[np.abs(ends[follow] - starts[follow - 1]).max(axis=1, initial=0.0) > tol * scale]
        todo = moved - 1
        starts[todo] = ends[moved]
    carries[windows.row, windows.first] = ends
    return carries
