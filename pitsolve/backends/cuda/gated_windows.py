"""The verbs of a gated cell on windows of time: which kernel and mapping; kernels in windows.py, streamed_windows.py."""

from __future__ import annotations

import functools

import numpy as np

from pitsolve.backends.cuda import streamed_windows, windows
from pitsolve.backends.cuda.gated_adjoint import GatedAdjoint
from pitsolve.backends.cuda.gated_weights import Weights
from pitsolve.backends.cuda.launch import blocks_for, device, specialise
from pitsolve.backends.cuda.mapping import mapping
from pitsolve.backends.cuda.windows_adjoint import WindowsAdjoint
from pitsolve.backends.cuda.workspace import Workspace
from pitsolve.cells.base import GatedCell, Parameters

_RESIDENT_THREADS = 1024  # of a multiprocessor that are worth a block of their own; the others take turns


class GatedWindows:
    """Windows are half-open ranges [first, last) of the steps of sequence ``row``."""

    def __init__(self, cell: GatedCell, weights: Weights):
        self.cell, self.weights = cell, weights
        self.dtype = weights.dtype
        self.work = Workspace(self.dtype)
        self._integer = np.int32 if self.dtype == np.float32 else np.int64  # the bits of a difference

    @functools.cached_property
    def _mapping(self):
        cell = self.cell
        return mapping(cell.hidden_size, self.weights.columns, cell.input_size, cell.GATES, self.dtype.itemsize)

    @functools.cached_property
    def _adjoint(self) -> WindowsAdjoint:
        return WindowsAdjoint(GatedAdjoint(self.cell, self.weights, self.work))

    @functools.cached_property
    def _none(self):
        """What stands for an array that a launch does not have."""
        return device().upload(np.zeros(1, self.dtype)), device().upload(np.zeros(1, self._integer))

    def advance(self, x, states, starts, row, first, last, source, ends, whole=False, tol=None):
        """The loop through all windows; with ``tol`` up to where they merge. Returns steps and differences if so."""
        count = row.size
        table = device().indices(np.concatenate([row, first, last]))
        none, integer = self._none
        steps = device().upload(np.zeros(count, np.int32)) if tol is not None else integer
        differences = device().upload(np.zeros(count, self._integer)) if tol is not None else integer
        x = x if x.size else none
        added = none if source is None else source
        constants = {**self.weights.constants, "WHOLE": whole, "SOURCE": source is not None, "MERGE": tol is not None,
                     "BITS": self._integer}
        arguments = (float(self.cell.ratio), *(array.reshape(-1) for array in (states, added, starts, ends)), table, count,
                     states.shape[1], 0.0 if tol is None else float(tol), steps, differences)
        if self._mapping is None:
            self._stream(x.reshape(-1), constants, arguments, count)
        else:
            chosen = self._mapping
            threads = chosen.threads
            blocks = min(blocks_for(count, chosen.windows),
                         device().multiprocessors * max(1, _RESIDENT_THREADS // threads))
            specialise(windows.advance, self.dtype, (threads, 1), **constants, **chosen.constants)(
                blocks, threads, x.reshape(-1), *self.weights.resident(chosen), *arguments)
        if tol is not None:
            values = device().download(differences).view(self.dtype).astype(np.float64)
            return device().download(steps).astype(np.int64), values
        return None

    def _stream(self, x, constants, arguments, count: int) -> None:
        layout = streamed_windows.layout(self.cell, self.weights.columns, self.dtype.itemsize,
                                         count > device().multiprocessors)
        threads, lanes = layout["THREADS"], layout["WINDOWS"]
        weights = self.weights
        specialise(streamed_windows.stream, self.dtype, (threads, 1), **constants, **layout)(
            blocks_for(count, lanes), threads, x, weights.input_transposed, weights.input_bias, weights.hidden_transposed,
            weights.hidden_bias, *arguments)

    def sweep(self, x, states, starts, row, first, last, source=None):
        """h_t = f(h_{t-1}, x_t) + g_t through every window, from its row of ``starts`` (W, S).

        States go to ``states`` (B, T, S), the last one of every window not there but to the result (W, S).
        """
        ends = device().empty(starts.shape, self.dtype)
        self.advance(x, states, starts, row, first, last, source, ends)
        return ends

    def merge(self, x, states, starts, row, first, last, tol, ends) -> tuple[np.ndarray, np.ndarray]:
        """The same again from other starts, over the states of before, until the new states agree with them within ``tol``.

        Agreement is of all units of a window in one step; the agreeing state is not written, so that the difference is the
        residual that remains. Windows that run to their end update ``ends``. Returns the steps done and the difference of
        every window.
        """
        return self.advance(x, states, starts, row, first, last, None, ends, tol=tol)

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
