"""Windows of a general cell: many stretches of time at once, forward through the steps or backward through their Jacobians."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cuda import arrays, general
from pitsolve.backends.cuda.general import copy_state
from pitsolve.backends.cuda.launch import blocks_for, cuda, device, specialise
from pitsolve.cells.base import Parameters
from pitsolve.cells.memory import scratch
from pitsolve.compile import constant, inline, kernel

SOURCE = constant("SOURCE")  # whether a source is added after each transposed step
BEFORE = constant("BEFORE")  # whether one is added before it
STATE = constant("STATE")
INPUT = constant("INPUT")
THREADS = constant("THREADS")
REAL = constant("REAL")
bundle = constant("bundle")
derivative = constant("derivative")

_ALONE = 32  # threads of a block where a thread is a window: there are few, which shall spread over the card
_MOST = 256  # threads of a block that is a window
_SMALL = 8  # a state up to this size is pulled by one thread


@kernel
def pull(jacobian, before, after, starts, carries, ends, row, first, last):
    """c = J_t^T (c + before_t) + after_t backward through every window; a thread is a window and holds c in registers."""
    w = cuda.grid(1)
    if w < row.size:
        b, begin, end = row[w], first[w], last[w]
        rows = scratch(2, STATE, starts[w, 0])
        c, new = rows[0], rows[1]
        copy_state(starts[w], c)
        for t in range(end - 1, begin - 1, -1):
            for j in range(STATE):
                new[j] = after[b, t, j] if SOURCE else REAL(0.0)
            for i in range(STATE):
                a = c[i] + before[b, t, i] if BEFORE else c[i]
                for j in range(STATE):
                    new[j] += jacobian[b, t, 0, i, j] * a
            copy_state(new, c)
            if t > begin:
                copy_state(c, carries[b, t])
        copy_state(c, ends[w])


@kernel
def pull_by_block(jacobian, before, after, starts, carries, ends, row, first, last):
    """The same for large states: a block is a window, c is in shared memory and a thread computes every ``THREADS``-th number
    of it, so that the threads of a warp read neighbours in a row of the Jacobian."""
    w, thread = cuda.blockIdx.x, cuda.threadIdx.x
    c = cuda.shared.array(STATE, REAL)
    new = cuda.shared.array(STATE, REAL)
    b, begin, end = row[w], first[w], last[w]
    for j in range(thread, STATE, THREADS):
        c[j] = starts[w, j]
    for t in range(end - 1, begin - 1, -1):
        if BEFORE:
            for j in range(thread, STATE, THREADS):
                c[j] += before[b, t, j]
        cuda.syncthreads()
        for j in range(thread, STATE, THREADS):
            value = after[b, t, j] if SOURCE else REAL(0.0)
            for i in range(STATE):
                value += jacobian[b, t, 0, i, j] * c[i]
            new[j] = value
        cuda.syncthreads()
        for j in range(thread, STATE, THREADS):
            c[j] = new[j]
            if t > begin:
                carries[b, t, j] = new[j]
    for j in range(thread, STATE, THREADS):
        ends[w, j] = c[j]


@kernel
def accumulate(theta, x, states, previous, before, tolerance, starts, dtheta, dx, ends, row, first, last):
    """The same by the pullback that the cell states, which gives the gradients too, added to ``dtheta`` (parameters, parts).

    A thread is a part and takes every ``dtheta.shape[1]``-th window. Without BEFORE, a window stops where c is below
    ``tolerance``, and ends in zero.
    """
    part = cuda.grid(1)
    if part < dtheta.shape[1]:
        rows, pulled = scratch(2, STATE, states[0, 0, 0]), scratch(1, INPUT, states[0, 0, 0])[0]
        adjoint, c = rows[0], rows[1]
        p, dp = bundle(theta), bundle(dtheta[:, part])
        for w in range(part, row.size, dtheta.shape[1]):
            b, begin = row[w], first[w]
            copy_state(starts[w], c)
            t = last[w] - 1
            while t >= begin and (BEFORE or not negligible(c, tolerance)):
                for i in range(STATE):
                    adjoint[i] = c[i] + before[b, t, i] if BEFORE else c[i]
                h = previous[b] if t == 0 else states[b, t - 1]
                if BEFORE:
                    derivative(p, x[b, t], h, states[b, t], adjoint, dp, dx[b, t], c)
                else:
                    for j in range(INPUT):
                        pulled[j] = REAL(0.0)
                    derivative(p, x[b, t], h, states[b, t], adjoint, dp, pulled, c)
                    for j in range(INPUT):
                        dx[b, t, j] += pulled[j]
                t -= 1
            for i in range(STATE):
                ends[w, i] = c[i] if t < begin else REAL(0.0)


@inline
def negligible(c, tolerance):
    for i in range(STATE):
        if not abs(c[i]) <= tolerance:  # NaN is not
            return False
    return True


class GeneralWindows:
    """The window verbs of a general model.

    Window w is the half-open range of steps [first[w], last[w]) of sequence row[w]; windows must not overlap.
    """

    def __init__(self, model, kernel, theta):
        self._model, self._kernel, self._theta = model, kernel, theta
        self._linearised = (None, None, None)

    def sweep(self, x, states, starts, row, first, last, source=None):
        """h = f(h, x_t) + g_t through every window at once, from ``starts`` (W, n).

        All states but the last of each window are written to ``states``; the last ones are returned, (W, n).
        """
        ends = arrays.empty(starts.shape, starts.dtype)
        added = states if source is None else source
        self._kernel(general.sweep, SOURCE=source is not None, LAST=False)(
            blocks_for(row.size, _ALONE), _ALONE, self._theta, x, added, starts, states, ends,
            *map(device().indices, (row, first, last)))
        return ends

    def merge(self, x, states, starts, row, first, last, tol, ends) -> tuple[np.ndarray, np.ndarray]:
        """The same again from other starts, over the states of before, until a new state agrees with the old one.

        Agreement is within ``tol``. The agreeing state is not written, so that the difference is the residual that remains.
        Windows that run to their end update ``ends``. Returns the steps done and the difference of every window.
        """
        steps, differences = arrays.empty((row.size,), np.int32), arrays.empty((row.size,), starts.dtype)
        self._kernel(general.merge)(
            blocks_for(row.size, _ALONE), _ALONE, self._theta, x, float(tol), starts, states, ends,
            *map(device().indices, (row, first, last)), steps, differences)
        return device().download(steps).astype(np.int64), device().download(differences).astype(np.float64)

    def pull(self, x, states, previous, carries, starts, row, first, last, before=None, after=None):
        """c = J_t^T (c + before_t) + after_t backward through every window, from ``starts``, J_t = df/dh (h_{t-1}, x_t).

        All but the last c of each window, that of its first step, are written to ``carries``; those are returned.
        The Jacobians are kept for as long as the calls come with the same arrays.
        """
        n, ends = starts.shape[1], arrays.empty(starts.shape, starts.dtype)
        jacobian = self._jacobian(x, states, previous)
        small = n <= _SMALL
        threads = _ALONE if small else min(_MOST, 32 * blocks_for(n, 32))
        constants = {} if small else {"THREADS": threads}
        specialise(pull if small else pull_by_block, starts.dtype, BEFORE=before is not None, SOURCE=after is not None, STATE=n,
                   **constants)(
            blocks_for(row.size, _ALONE) if small else row.size, threads, jacobian, carries if before is None else before,
            carries if after is None else after, starts, carries, ends, *map(device().indices, (row, first, last)))
        return ends

    def totals(self, windows: int, dx) -> dict:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        return self._model.totals(dx)

    def accumulate(self, totals, x, states, previous, starts, row, first, last, before=None, tol=0.0):
        """Like :func:`pull`, by the pullback that the cell states, adding to the gradients in place of keeping c.

        Without ``before`` it adds what a change of ``starts`` does, until c falls below ``tol``.
        """
        ends, theta = arrays.empty(starts.shape, starts.dtype), totals["theta"]
        if row.size:
            self._kernel(accumulate, derivative=self._model.cell.pullback, BEFORE=before is not None)(
                blocks_for(min(theta.shape[1], row.size), _ALONE), _ALONE, self._theta, x, states, previous,
                states if before is None else before, float(tol), starts, theta, totals["x"], ends,
                *map(device().indices, (row, first, last)))
        return ends

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all threads."""
        return self._model.finish(totals)

    def _jacobian(self, x, states, previous):
        of, at, jacobian = self._linearised
        if of is not x or at is not states:
            model, (batch, steps) = self._model, x.shape[:2]
            bounds = np.zeros(batch, np.int64), np.full(batch, steps)
            jacobian = arrays.copy(model.linearise(model.BLOCKS, x, states, previous, 0, steps, *bounds)[1])
            self._linearised = x, states, jacobian
        return jacobian
