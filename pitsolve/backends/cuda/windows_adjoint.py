"""The backward verbs of a gated cell on windows of time: sweeps of c, and parameter gradients from what all sweeps found.

The adjoint is linear. So the sweeps of ``accumulate`` only add up the adjoint states, and ``finish`` takes the outer products
of all steps, once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pitsolve.backends.cuda.gated_adjoint import CARRY, CHANGE, LAMBDA, GatedAdjoint, Steps
from pitsolve.backends.cuda.launch import device
from pitsolve.cells.base import Parameters

_MEMORY = 1 << 30  # bytes of pre-activations that exist at a time


class WindowsAdjoint:
    """The backward half of :class:`GatedWindows`."""

    def __init__(self, adjoint: GatedAdjoint):
        self.adjoint, self.cell = adjoint, adjoint.cell
        self._most = max(1, _MEMORY // (adjoint.rows_of_unit * self.cell.hidden_size * adjoint.dtype.itemsize))

    def pull(self, x, states, previous, carries, starts, row, first, last, before=None, after=None):
        """c <- J_t^T (c + before_t) + after_t back through every window, from its row of ``starts`` (W, S).

        c of every step goes to ``carries`` (B, T, S), that of the first step of every window not there but to the result.
        J_t is the Jacobian at (h_{t-1}, x_t), h from ``states`` and, before the first step, from ``previous`` (B, S).
        """
        ends = device().empty(starts.shape, starts.dtype)
        for steps, rows, chosen in self._pieces(x, states, previous, (row, first, last)):
            windows = (row[chosen], first[chosen], last[chosen])
            self.adjoint.pull(rows, steps, states, previous, before, after, windows, chosen, starts, carries, ends, CARRY)
        return ends

    def totals(self, windows: int, dx) -> dict:
        """The sums of :meth:`GatedAdjoint.totals`, and the adjoint states that sweeps add to."""
        batch, steps, _ = dx.shape
        return {**self.adjoint.totals(dx), "adjoint": device().empty((batch, steps, self.cell.state_size), self.adjoint.dtype),
                "stop": np.zeros(batch, np.int64), "rows": None}

    def accumulate(self, totals, x, states, previous, starts, row, first, last, before=None, tol=0.0):
        """Like :func:`pull`, adding to the parameter gradients and to dL/dx in place of keeping c.

        Without ``before`` it adds what a change of ``starts`` does, until c falls below ``tol``; all steps of a sequence must
        have been swept with it by then.
        """
        np.maximum.at(totals["stop"], row, last)
        totals["model"] = x, states, previous
        self._keep(totals)
        ends = device().empty(starts.shape, starts.dtype)
        keep, tol = (CHANGE, tol) if before is None else (LAMBDA, None)
        for steps, rows, chosen in self._pieces(x, states, previous, (row, first, last), totals["rows"]):
            windows = (row[chosen], first[chosen], last[chosen])
            self.adjoint.pull(rows, steps, states, previous, before, None, windows, chosen, starts, totals["adjoint"], ends,
                              keep, tol)
        return ends

    def finish(self, totals) -> Parameters:
        """The parameter gradients and dL/dx, from the adjoint states of all sweeps."""
        if "model" in totals:
            x, states, previous = totals["model"]
            stop, length = totals["stop"], states.shape[1]
            count = states.shape[0] * length
            for begin in range(0, count, self._most):
                steps = Steps(begin // length, begin % length, 0, length, min(self._most, count - begin))
                rows = totals["rows"]
                if rows is None:
                    rows = self._rows(steps, x, states, previous, stop)
                self.adjoint.add(totals, rows, steps, x, states, previous, totals["adjoint"], np.zeros_like(stop), stop)
        return self.adjoint.finish(totals)

    def _keep(self, totals) -> None:
        """The pre-activations of all steps, for all sweeps, where there is memory for them."""
        x, states, previous = totals["model"]
        count = states.shape[0] * states.shape[1]
        if totals["rows"] is None and 0 < count <= self._most:
            steps = Steps(0, 0, 0, states.shape[1], count)
            totals["rows"] = self._rows(steps, x, states, previous, totals["stop"], "kept")

    def _rows(self, steps: Steps, x, states, previous, stop: np.ndarray, name: str = "rows"):
        rows = self.adjoint.work.take(name, steps.count * self.adjoint.rows_of_unit * self.cell.hidden_size)
        self.adjoint.preactivate(rows, steps, x, states, previous, np.zeros_like(stop), stop)
        return rows

    def _pieces(self, x, states, previous, windows, rows=None) -> Iterator[tuple[Steps, object, np.ndarray]]:
        """Some of the steps with their pre-activations, and the windows among them, until there were all windows."""
        batch, length, _ = states.shape
        row, first, last = windows
        if row.size == 0:
            return
        if rows is not None:
            yield Steps(0, 0, 0, length, batch * length), rows, np.arange(row.size)
            return
        stop = np.zeros(batch, np.int64)
        np.maximum.at(stop, row, last)
        begin, end = row * length + first, row * length + last
        order = np.argsort(begin, kind="stable")
        furthest = np.maximum.accumulate(end[order])
        at = 0
        while at < order.size:
            origin = int(begin[order[at]])
            to = max(at + 1, int(np.searchsorted(furthest, origin + self._most, "right")))
            steps = Steps(origin // length, origin % length, 0, length, int(furthest[to - 1]) - origin)
            yield steps, self._rows(steps, x, states, previous, stop), np.sort(order[at:to])
            at = to
