"""A gated cell bound to its parameters on the device: holds the weights and the scratch memory, and calls the kernels."""

from __future__ import annotations

import functools

import numpy as np

from pitsolve.backends.cuda import arrays, gated, gated_linearise
from pitsolve.backends.cuda.gated_adjoint import GatedAdjoint
from pitsolve.backends.cuda.gated_weights import Weights
from pitsolve.backends.cuda.gated_windows import GatedWindows
from pitsolve.backends.cuda.launch import blocks_for, device, specialise
from pitsolve.backends.cuda.workspace import Workspace
from pitsolve.cells.base import GatedCell, Parameters

_THREADS = 256  # of a tile of input products
_MOST_ROWS = 65535  # of a grid in its last dimension


class GatedModel:
    """The verbs of a gated cell. Slabs are half-open ranges [begin, end) of time; ``previous`` is the state before."""

    VALUE, DIAGONAL, BLOCKS = gated.VALUE, gated.DIAGONAL, gated.BLOCKS

    def __init__(self, cell: GatedCell, params: Parameters):
        self.cell, self.weights = cell, Weights(cell, params)
        self.dtype = self.weights.dtype
        self.work = Workspace(self.dtype)

    @functools.cached_property
    def _adjoint(self) -> GatedAdjoint:
        return GatedAdjoint(self.cell, self.weights, self.work)

    @functools.cached_property
    def windows(self) -> GatedWindows:
        """The verbs on windows of time."""
        return GatedWindows(self.cell, self.weights)

    def step_bytes(self, order: int) -> int:
        """Scratch memory of one time step of one sequence, in bytes."""
        heads, m = self.cell.blocks
        jacobian = {self.VALUE: 0, self.DIAGONAL: self.cell.state_size, self.BLOCKS: heads * m * m}[order]
        drive = self.cell.GATES * self.cell.hidden_size
        return (jacobian + drive + 2 * self.cell.state_size) * self.dtype.itemsize

    def carry(self, state):
        """A copy of a state (B, S), which :meth:`propagate` carries along."""
        return arrays.copy(state)

    def state(self, carry):
        """The inverse of :meth:`carry`."""
        return carry

    def project(self, x, begin, end, start, stop):
        """W_ih x_t + b_ih (B, L, GATES n) for the steps of a slab, unspecified outside [start, stop)."""
        batch, length, width = x.shape[0], end - begin, self.cell.GATES * self.cell.hidden_size
        drive = self.work.take("drive", batch, length, width)
        sizes = gated.tile(self.cell.input_size, width, _THREADS)
        grid = blocks_for(length, sizes["STEPS"]), blocks_for(width, sizes["COLUMNS"]), min(batch, _MOST_ROWS)
        inputs = x if x.size else drive
        resident = 8 // self.dtype.itemsize  # blocks of a multiprocessor: more of them would spill
        specialise(gated.project, self.dtype, (_THREADS, resident), **sizes)(
            grid, _THREADS, inputs.reshape(-1), self.weights.input_transposed, self.weights.input_bias, drive.reshape(-1),
            x.shape[1], begin, length, batch, device().indices(start), device().indices(stop))
        return drive

    def propagate(self, x, carry, states, begin, end, start, stop, source=None) -> None:
        """h_t = f(h_{t-1}, x_t) + g_t into ``states`` for begin <= t < end, one after the other; ``source`` is g or None."""
        rows = np.arange(x.shape[0])
        first = np.maximum(start, begin)
        last = np.maximum(np.minimum(stop, end), first)
        if (first < last).any():
            self.windows.advance(x, states, carry, rows, first, last, source, carry, whole=True)

    def linearise(self, order, x, states, previous, begin, end, start, stop) -> tuple:
        """f(h_{t-1}, x_t) - h_t (B, L, S) and its Jacobian: none, diagonal (B, L, S) or blocks (B, L, k, m, m)."""
        return gated_linearise.linearise(self, order, x, states, previous, begin, end, start, stop)

    def totals(self, dx) -> dict:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        return self._adjoint.totals(dx)

    def partials(self, x, states, previous, begin, end, start, stop) -> tuple:
        """What the derivatives of every gate at every t of the slab are evaluated from."""
        return self._adjoint.partials(x, states, previous, begin, end, start, stop)

    def backward(self, partials, dstates, carry, adjoint, begin, start, stop) -> None:
        """lambda_t = dL/dh_t + J_{t+1}^T lambda_{t+1} into ``adjoint``, one step after the other."""
        self._adjoint.backward(partials, dstates, carry, adjoint, begin, start, stop)

    def accumulate(self, totals, partials, x, states, previous, adjoint, begin, start, stop) -> None:
        """Add the parameter gradients of one slab to ``totals`` and write its dL/dx."""
        self._adjoint.accumulate(totals, partials, x, states, previous, adjoint, begin, start, stop)

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all slabs."""
        return self._adjoint.finish(totals)
