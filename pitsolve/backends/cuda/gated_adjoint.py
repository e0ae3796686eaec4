"""The backward verbs of a gated cell on the device, slab by slab; kernels in preactivations.py, back_substitution.py and
parameter_gradients.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from pitsolve.backends.cuda import back_substitution, parameter_gradients, preactivations, streamed_substitution
from pitsolve.backends.cuda.back_substitution import CARRY, CHANGE, LAMBDA
from pitsolve.backends.cuda.gated_weights import Weights
from pitsolve.backends.cuda.launch import blocks_for, device, specialise
from pitsolve.backends.cuda.tiles import back_tile, outer_tile, product_tile, streamed_tile
from pitsolve.backends.cuda.workspace import Workspace
from pitsolve.cells.base import GatedCell, Parameters

_THREADS = 256
_STREAMED_THREADS = 512
_BLOCKS = 528  # blocks at once that fill a large card; a constant, so that no sum depends on the card
_LONGEST_SPAN = 4096  # steps whose sum a block takes in the working precision


@dataclass(frozen=True)
class Steps:
    """``count`` steps of a batch, from step ``origin`` of row ``row_origin`` on, and so on through the rows.

    A row has ``length`` steps, from time ``begin`` on.
    """

    row_origin: int
    origin: int
    begin: int
    length: int
    count: int

    @property
    def place(self) -> tuple[int, int, int, int]:
        return self.row_origin, self.origin, self.begin, self.length


class GatedAdjoint:
    """What :class:`GatedModel` and :class:`GatedWindows` share backward."""

    def __init__(self, cell: GatedCell, weights: Weights, work: Workspace):
        self.cell, self.weights, self.work = cell, weights, work
        self.dtype = weights.dtype
        self.rows_of_unit = 2 * cell.GATES - cell.SUMMED
        self._constants = {**weights.constants, "ROWS": self.rows_of_unit}

    @functools.cached_property
    def _outer(self):
        return outer_tile(self.cell, self.dtype, _THREADS)

    @functools.cached_property
    def _back(self):
        return back_tile(self.cell, self.dtype)

    @functools.cached_property
    def _back_weights(self):
        """W_hh^T in the order in which threads of the backward kernel hold it."""
        return self.weights.upload(self._back.pack(self.weights.host["weight_hh"]))

    def totals(self, dx) -> dict:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        return {"x": dx, "sums": device().upload(np.zeros(len(self._outer.jobs) * self._outer.numbers))}

    def slab(self, batch: int, begin: int, end: int) -> Steps:
        """All steps of a slab."""
        return Steps(0, 0, begin, end - begin, batch * (end - begin))

    def preactivate(self, rows, steps: Steps, x, states, previous, start, stop) -> None:
        """The pre-activations of every step."""
        n, m = self.cell.hidden_size, self.cell.input_size
        columns = n // self.cell.heads
        tile = product_tile(self.dtype, n, max(columns, m), self.cell.GATES, 1, _THREADS)
        weights = self.weights
        x = x if x.size else states
        bounds = tile["THREADS"], 8 // self.dtype.itemsize
        kernel = specialise(preactivations.preactivate, self.dtype, bounds, **self._constants, **tile,
                            SUMS=tile["STEPS"] * self.rows_of_unit, COLUMNS=columns)
        kernel((blocks_for(steps.count, tile["TILE"]), blocks_for(n, tile["UNITS"])), tile["THREADS"],
               x.reshape(-1), states.reshape(-1), previous.reshape(-1), weights.input_transposed, weights.hidden_transposed,
               weights.input_bias, weights.hidden_bias, *steps.place, steps.count, states.shape[1], n, m,
               device().indices(start), device().indices(stop), rows)

    def pull(self, rows, steps: Steps, states, previous, before, after, windows, number, starts, out, ends, keep: int,
             tol: float | None = None) -> None:
        """Backward through windows (row, first, last), from the rows ``number`` of ``starts`` to those of ``ends``."""
        cell = self.cell
        sources = (before is not None) + (after is not None)
        constants = {**self._constants, "KEEP": keep, "BEFORE": before is not None, "AFTER": after is not None,
                     "INCOMING": self.rows_of_unit + (1 + sources) * cell.PARTS}
        row, first, last = (device().indices(values) for values in windows)
        given = (rows, states.reshape(-1), previous.reshape(-1))
        arguments = (float(cell.ratio), *((states if source is None else source).reshape(-1) for source in (before, after)),
                     *steps.place, states.shape[1], row, first, last, device().indices(number), row.size, starts.reshape(-1),
                     out.reshape(-1), ends.reshape(-1))
        tile = self._back or streamed_tile(cell, _STREAMED_THREADS)
        blocks = min(blocks_for(row.size, tile.seats), 4 * _BLOCKS)
        if self._back:
            stopping = tol is not None
            specialise(back_substitution.pull, self.dtype, tile.bounds, **constants, **tile.constants, STOPPING=stopping)(
                blocks, tile.threads, *given, self._back_weights, *arguments, float(tol or 0.0))
        else:
            slopes = self.work.take("slopes", blocks * tile.seats * cell.GATES * cell.hidden_size)
            specialise(streamed_substitution.pull, self.dtype, tile.bounds, **constants, **tile.constants)(
                blocks, tile.threads, *given, self.weights.hidden, *arguments, slopes)

    def add(self, totals, rows, steps: Steps, x, states, previous, adjoint, start, stop) -> None:
        """Add the parameter gradients of all steps to ``totals`` and write their dL/dx."""
        cell, tile = self.cell, self._outer
        n, m = cell.hidden_size, cell.input_size
        start, stop = device().indices(start), device().indices(stop)
        jobs = len(tile.jobs)
        span = min(_LONGEST_SPAN, max(2 * tile.steps, -(-steps.count * jobs // _BLOCKS)))
        span = -(-span // tile.steps) * tile.steps
        blocks = blocks_for(steps.count, span)
        parts = self.work.take("parts", blocks * jobs * tile.numbers)
        x = x if x.size else states
        arrays = (states.reshape(-1), previous.reshape(-1), rows, adjoint.reshape(-1))
        specialise(parameter_gradients.outer, self.dtype, (tile.threads, 2), **self._constants, **tile.constants)(
            (blocks, jobs), tile.threads, x.reshape(-1), *arrays, float(cell.ratio), *steps.place, steps.count, states.shape[1],
            n, m, start, stop, device().indices(tile.jobs.ravel()), jobs, span, parts)
        numbers = jobs * tile.numbers
        specialise(parameter_gradients.add_up, self.dtype, THREADS=_THREADS)(
            blocks_for(numbers, 32) if blocks else 0, _THREADS, parts, totals["sums"], blocks, numbers)
        if m:
            tile = product_tile(self.dtype, m, n, 1, cell.GATES, _THREADS)
            bounds = tile["THREADS"], 512 // tile["THREADS"]
            specialise(parameter_gradients.pull_inputs, self.dtype, bounds, **self._constants, **tile)(
                (blocks_for(steps.count, tile["TILE"]), blocks_for(m, tile["UNITS"])), tile["THREADS"], *arrays,
                self.weights.input, float(cell.ratio), *steps.place, steps.count, states.shape[1], n, m, start, stop,
                totals["x"].reshape(-1))

    def partials(self, x, states, previous, begin, end, start, stop) -> tuple:
        """The pre-activations at every t of the slab, from which kernels evaluate the derivatives, and the states before."""
        steps = self.slab(x.shape[0], begin, end)
        rows = self.work.take("rows", steps.count * self.rows_of_unit * self.cell.hidden_size)
        self.preactivate(rows, steps, x, states, previous, start, stop)
        return rows, states, previous

    def backward(self, partials, dstates, carry, adjoint, begin, start, stop) -> None:
        """lambda_t = dL/dh_t + J_{t+1}^T lambda_{t+1} into ``adjoint``, one step after the other."""
        batch, length = adjoint.shape[:2]
        first = np.clip(start, begin, begin + length)
        last = np.clip(stop, first, begin + length)
        number = np.arange(batch)
        self.pull(partials[0], self.slab(batch, begin, begin + length), *partials[1:], dstates, None, (number, first, last),
                  number, carry, adjoint, carry, LAMBDA)

    def accumulate(self, totals, partials, x, states, previous, adjoint, begin, start, stop) -> None:
        """Add the parameter gradients of one slab to ``totals`` and write its dL/dx."""
        steps = self.slab(adjoint.shape[0], begin, begin + adjoint.shape[1])
        self.add(totals, partials[0], steps, x, states, previous, adjoint, start, stop)

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all slabs."""
        shapes = self.cell.shapes
        places = self._outer.places()
        place = np.concatenate([places[name].ravel() for name in shapes])
        flat = device().empty(place.shape, self.dtype)
        specialise(parameter_gradients.settle, self.dtype)(
            blocks_for(place.size, _THREADS), _THREADS, totals["sums"], device().indices(place), flat, place.size)
        gradients, at = {}, 0
        for name, shape in shapes.items():
            gradients[name] = flat[at:at + places[name].size].reshape(shape)
            at += places[name].size
        return gradients


__all__ = ["CARRY", "CHANGE", "LAMBDA", "GatedAdjoint", "Steps"]
