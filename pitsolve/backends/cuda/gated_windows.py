"""The verbs of a gated cell on windows of time; kernels in windows.py."""

from __future__ import annotations

import functools

import numpy as np

from pitsolve.backends.cuda.gated_adjoint import GatedAdjoint
from pitsolve.backends.cuda.gated_weights import Weights
from pitsolve.backends.cuda.windows_adjoint import WindowsAdjoint
from pitsolve.backends.cuda.workspace import Workspace
from pitsolve.cells.base import GatedCell, Parameters


class GatedWindows:
    """Windows are half-open ranges [first, last) of the steps of sequence ``row``."""

    def __init__(self, cell: GatedCell, weights: Weights):
        self.cell, self.weights = cell, weights
        self.dtype = weights.dtype
        self.work = Workspace(self.dtype)

    @functools.cached_property
    def _adjoint(self) -> WindowsAdjoint:
        return WindowsAdjoint(GatedAdjoint(self.cell, self.weights, self.work))

    def sweep(self, x, states, starts, row, first, last, source=None):
        """h_t = f(h_{t-1}, x_t) + g_t through every window, from its row of ``starts`` (W, S).

        States go to ``states`` (B, T, S), the last one of every window not there but to the result (W, S).
        """
        raise NotImplementedError

    def merge(self, x, states, starts, row, first, last, tol, ends) -> tuple[np.ndarray, np.ndarray]:
        """The same again from other starts, over the states of before, until the new states agree with them within ``tol``.

        Agreement is of all units of a window in one step; the agreeing state is not written, so that the difference is the
        residual that remains. Windows that run to their end update ``ends``. Returns the steps done and the difference of
        every window.
        """
        raise NotImplementedError

    def pull(self, x, states, previous, carries, starts, row, first, last, before=None, after=None):
        """c <- J_t^T (c + before_t) + after_t back through every window, from its row of ``starts`` (W, S).

        c of every step goes to ``carries`` (B, T, S), that of the first step of every window not there but to the result.
        J_t is the Jacobian at (h_{t-1}, x_t), h from ``states`` and, before the first step, from ``previous`` (B, S).
        """
        return self._adjoint.pull(x, states, previous, carries, starts, row, first, last, before, after)

    def totals(self, windows: int, dx) -> dict:
        """Empty sums for the parameter gradients of so many windows, and the array that receives dL/dx."""
        return self._adjoint.totals(windows, dx)

    def accumulate(self, totals, x, states, previous, starts, row, first, last, before=None, tol=0.0):
        """Like :func:`pull`, adding to the parameter gradients and to dL/dx in place of keeping c.

        Without ``before`` it adds what a change of ``starts`` does, until c falls below ``tol``.
        """
        return self._adjoint.accumulate(totals, x, states, previous, starts, row, first, last, before, tol)

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all tasks."""
        return self._adjoint.finish(totals)
