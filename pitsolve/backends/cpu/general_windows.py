"""Windows of a general cell: many stretches of time at once, forward through the steps or backward through their Jacobians."""

from __future__ import annotations

import numpy as np
from numba import prange

from pitsolve.cells.base import Parameters
from pitsolve.compile import constant, inline, kernel, specialise

SOURCE = constant("SOURCE")  # whether a source is added after each step
BEFORE = constant("BEFORE")  # whether one is added before each transposed step
bundle = constant("bundle")
step = constant("step")
derivative = constant("derivative")

_APART = 16  # numbers between the scratch rows of two tasks, so that they do not share a cache line


@kernel(parallel=True)
def sweep(theta, x, source, starts, states, ends, row, first, last):
    """Every window on its own, from ``starts[w]`` to ``ends[w]``; the states between go into ``states``."""
    for number in prange(row.size):
        w = np.int64(number)
        sweep_window(theta, x, source, starts[w], states, ends[w], row[w], first[w], last[w])


@kernel
def sweep_window(theta, x, source, start, states, end, b, first, last):
    p = bundle(theta)
    h = start
    for t in range(first, last):
        new = states[b, t] if t < last - 1 else end
        step(p, x[b, t], h, new)
        if SOURCE:
            for i in range(new.size):
                new[i] += source[b, t, i]
        h = new
    if last <= first:
        for i in range(end.size):
            end[i] = start[i]


@kernel(parallel=True)
def merge(theta, x, tolerance, starts, states, ends, row, first, last, steps, differences):
    """Every window again, until a new state agrees with the stored one; ``starts`` is worked on."""
    for number in prange(row.size):
        w = np.int64(number)
        merge_window(theta, x, tolerance, starts[w], states, ends[w], row[w], first[w], last[w], steps, differences, w)


@kernel
def merge_window(theta, x, tolerance, h, states, end, b, first, last, steps, differences, w):
    p = bundle(theta)
    differences[w] = 0.0
    steps[w] = last - first
    for t in range(first, last):
        step(p, x[b, t], h, end)
        stored = states[b, t]
        difference = 0.0
        for i in range(end.size):
            change = abs(end[i] - stored[i]) / max(1.0, abs(stored[i]))
            if difference == difference and not change <= difference:  # NaN stays: it agrees with nothing
                difference = change
        if difference <= tolerance:
            differences[w] = difference
            steps[w] = t + 1 - first
            for i in range(end.size):
                end[i] = states[b, last - 1, i]
            break
        for i in range(end.size):
            h[i] = end[i]
            if t < last - 1:
                stored[i] = end[i]


@kernel(parallel=True)
def pull(jacobian, before, after, starts, carries, ends, row, first, last):
    """The same backward with the transposed Jacobians (B, T, 1, n, n)."""
    for number in prange(row.size):
        w = np.int64(number)
        pull_window(jacobian, before, after, starts[w], carries, ends[w], row[w], first[w], last[w])


@kernel
def pull_window(jacobian, before, after, start, carries, end, b, first, last):
    c = start
    for t in range(last - 1, first - 1, -1):
        new = carries[b, t] if t > first else end
        for j in range(new.size):
            new[j] = after[b, t, j] if SOURCE else 0.0
        for i in range(new.size):
            a = c[i]
            if BEFORE:
                a += before[b, t, i]
            for j in range(new.size):
                new[j] += jacobian[b, t, 0, i, j] * a
        c = new
    if last <= first:
        for i in range(end.size):
            end[i] = start[i]


@kernel(parallel=True)
def accumulate(theta, x, states, previous, before, tolerance, starts, rows, dtheta, dx, ends, row, first, last):
    """The same by the stated pullback, which gives the gradients too; tasks share the windows and have sums of their own.

    Without BEFORE, a window stops where c is below ``tolerance``, and ends in zero.
    """
    tasks = dtheta.shape[0]
    for number in prange(tasks):
        task = np.int64(number)
        for w in range(task * row.size // tasks, (task + 1) * row.size // tasks):
            accumulate_window(theta, x, states, previous, before, tolerance, starts[w], rows[task], dtheta[task], dx, ends[w],
                              row[w], first[w], last[w])


@kernel
def accumulate_window(theta, x, states, previous, before, tolerance, start, rows, dtheta, dx, end, b, first, last):
    p, dp = bundle(theta), bundle(dtheta)
    n = end.size
    adjoint, c, pulled = rows[:n], rows[n:2 * n], rows[2 * n:2 * n + x.shape[2]]
    for i in range(n):
        c[i] = start[i]
    t = last - 1
    while t >= first and (BEFORE or not negligible(c, tolerance)):
        for i in range(n):
            adjoint[i] = c[i] + before[b, t, i] if BEFORE else c[i]
        h = previous[b] if t == 0 else states[b, t - 1]
        if BEFORE:
            derivative(p, x[b, t], h, states[b, t], adjoint, dp, dx[b, t], c)
        else:
            for j in range(pulled.size):
                pulled[j] = 0.0
            derivative(p, x[b, t], h, states[b, t], adjoint, dp, pulled, c)
            for j in range(pulled.size):
                dx[b, t, j] += pulled[j]
        t -= 1
    for i in range(n):
        end[i] = c[i] if t < first else 0.0


@inline
def negligible(c, tolerance):
    for i in range(c.size):
        if not abs(c[i]) <= tolerance:  # NaN is not
            return False
    return True


class GeneralWindows:
    """The window verbs of a general model.

    Window w is the half-open range of steps [first[w], last[w]) of sequence row[w]; windows must not overlap.
    """

    def __init__(self, model, kernel, theta: np.ndarray):
        self._model, self._kernel, self._theta = model, kernel, theta
        self._linearised = (None, None, None)

    def sweep(self, x, states, starts, row, first, last, source=None) -> np.ndarray:
        """h = f(h, x_t) + g_t through every window at once, from ``starts`` (W, n).

        All states but the last of each window are written to ``states``; the last ones are returned, (W, n).
        """
        ends = np.empty_like(starts)
        added = states if source is None else source
        self._kernel(sweep, SOURCE=source is not None)(
            self._theta, x, added, starts, states, ends, row, first, last)
        return ends

    def merge(self, x, states, starts, row, first, last, tol, ends) -> tuple[np.ndarray, np.ndarray]:
        """The same again from other starts, over the states of before, until a new state agrees with the old one.

        Agreement is within ``tol``. The agreeing state is not written, so that the difference is the residual that remains.
        Windows that run to their end update ``ends``. Returns the steps done and the difference of every window.
        """
        steps, differences = np.zeros(row.size, np.int64), np.zeros(row.size)
        self._kernel(merge)(self._theta, x, tol, starts.copy(), states, ends, row, first, last, steps, differences)
        return steps, differences

    def pull(self, x, states, previous, carries, starts, row, first, last, before=None, after=None) -> np.ndarray:
        """c = J_t^T (c + before_t) + after_t backward through every window, from ``starts``, J_t = df/dh (h_{t-1}, x_t).

        All but the last c of each window, that of its first step, are written to ``carries``; those are returned.
        The Jacobians are kept for as long as the calls come with the same arrays.
        """
        ends = np.empty_like(starts)
        jacobian = self._jacobian(x, states, previous)
        specialise(pull, BEFORE=before is not None, SOURCE=after is not None)(
            jacobian, carries if before is None else before, carries if after is None else after,
            starts, carries, ends, row, first, last)
        return ends

    def totals(self, windows: int, dx: np.ndarray) -> dict[str, np.ndarray]:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        return self._model.totals(dx)

    def accumulate(self, totals, x, states, previous, starts, row, first, last, before=None, tol=0.0) -> np.ndarray:
        """Like :func:`pull`, by the pullback that the cell states, adding to the gradients in place of keeping c.

        Without ``before`` it adds what a change of ``starts`` does, until c falls below ``tol``.
        """
        n, theta, ends = starts.shape[1], totals["theta"], np.empty_like(starts)
        rows = self._model.work.take("pulled", theta.shape[0], 2 * n + x.shape[2] + _APART)
        self._kernel(accumulate, self._model.cell.pullback, BEFORE=before is not None)(
            self._theta, x, states, previous, states if before is None else before, tol, starts, rows, theta, totals["x"], ends,
            row, first, last)
        return ends

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all tasks."""
        return self._model.finish(totals)

    def _jacobian(self, x, states, previous) -> np.ndarray:
        of, at, jacobian = self._linearised
        if of is not x or at is not states:
            model, (batch, steps) = self._model, x.shape[:2]
            bounds = np.zeros(batch, np.int64), np.full(batch, steps)
            jacobian = model.linearise(model.BLOCKS, x, states, previous, 0, steps, *bounds)[1].copy()
            self._linearised = x, states, jacobian
        return jacobian
