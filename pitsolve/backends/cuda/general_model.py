"""A general cell bound to its parameters: the same verbs as a gated one, around scalar functions."""

from __future__ import annotations

import math
import weakref
from functools import cached_property

import numpy as np

from pitsolve.backends.cpu import complexmath  # noqa: F401  (extends math to complex numbers, on the card too)
from pitsolve.backends.cuda import arrays, general, general_derivatives
from pitsolve.backends.cuda.general_windows import GeneralWindows
from pitsolve.backends.cuda.launch import blocks_for, device, specialise
from pitsolve.backends.cuda.workspace import Workspace
from pitsolve.cells.base import GeneralCell, Parameters
from pitsolve.cells.parameters import Fields, packing

# Threads of a block: where a thread is a sequence or a window there are few, which shall spread over the card.
_ALONE, _THREADS = 32, 128
_KEPT = 32  # parameters that a thread holds itself
_ROWS = 65535  # blocks along y
_PARTS = 8192  # partial sums of a parameter gradient that is stated, fewer if they would take more than this many numbers:
_NUMBERS = 1 << 23
_BLOCKS = 1024  # of complex steps through the parameters; each has a copy of these


class GeneralModel:
    """The verbs of a general cell. Slabs are half-open ranges [begin, end) of time; ``previous`` is the state before."""

    VALUE, DIAGONAL, BLOCKS = general.VALUE, general.DIAGONAL, general.BLOCKS

    def __init__(self, cell: GeneralCell, params: Parameters, dtype: np.dtype):
        self.cell = cell
        self.dtype = np.dtype(dtype)
        self.work = Workspace(self.dtype)
        self._complex_work = Workspace(np.complex128)
        flat = [params[name].ravel() for name in cell.shapes] + [np.array([number], self.dtype) for _, number in cell.constants]
        theta = np.concatenate(flat) if flat else np.zeros(0, self.dtype)
        self._size = theta.size
        padded = np.resize(theta, max(1, theta.size))
        self._theta, self._complex_theta = device().upload(padded), device().upload(padded.astype(np.complex128))

    def _kernel(self, function, dtype=None, derivative=None, **constants):
        """The kernel for this cell. The literals of its functions are narrowed unless they must compute in float64."""
        cell = self.cell
        dtype = np.float64 if cell.precise else dtype or self.dtype
        return specialise(function, dtype, bundle=packing(_fields(cell))[0], step=cell.step, GIVEN=derivative is not None,
                          derivative=derivative or cell.step, STATE=cell.state_size, INPUT=cell.input_size,
                          KEPT=self._size if self._size <= _KEPT else 0, **constants)

    @cached_property
    def windows(self) -> GeneralWindows:
        """The verbs that work on many windows of time at once."""
        model = weakref.proxy(self)  # a cycle would keep the arrays on the card until Python looks for cycles
        return GeneralWindows(model, lambda function, **constants: model._kernel(function, **constants), self._theta)

    def step_bytes(self, order: int) -> int:
        """Scratch memory of one time step of one sequence, in bytes."""
        n = self.cell.state_size
        return (2 * n + {self.VALUE: 0, self.DIAGONAL: n, self.BLOCKS: n * n}[order]) * self.dtype.itemsize

    def carry(self, state):
        """A state (B, n) as :meth:`propagate` carries it along."""
        return arrays.copy(state)

    def propagate(self, x, carry, states, begin, end, start, stop, source=None) -> None:
        """h_t = f(h_{t-1}, x_t) + g_t into ``states`` for begin <= t < end, one after the other; ``source`` is g or None."""
        added = states if source is None else source
        first, last = np.maximum(start, begin), np.minimum(stop, end)
        self._kernel(general.sweep, SOURCE=source is not None, LAST=True)(
            blocks_for(start.size, _ALONE), _ALONE, self._theta, x, added, carry, states, carry,
            *map(device().indices, (np.arange(start.size), first, last)))

    def linearise(self, order, x, states, previous, begin, end, start, stop):
        """f(h_{t-1}, x_t) - h_t (B, L, n) and its Jacobian: none, diagonal (B, L, n) or block (B, L, 1, n, n)."""
        batch, length, n = x.shape[0], end - begin, self.cell.state_size
        shape = {self.VALUE: (batch, 0, n), self.DIAGONAL: (batch, length, n), self.BLOCKS: (batch, length, 1, n, n)}[order]
        jacobian = self.work.take(f"jacobian{order}", *shape)
        defect = self.work.take("defect", batch, length, n)
        derivative = {self.VALUE: None, self.DIAGONAL: self.cell.diagonal, self.BLOCKS: self.cell.jacobian}[order]
        bounds = begin, device().indices(start), device().indices(stop)
        grid = blocks_for(length, _THREADS), min(batch, _ROWS)
        # Where nothing is stated, `linearise` does not touch the Jacobian, and its rank must not compile another kernel.
        untouched = defect if derivative is None else jacobian
        self._kernel(general.linearise, derivative=derivative, ORDER=self.VALUE if derivative is None else order)(
            grid, _THREADS, self._theta, x, states, previous, defect, untouched, *bounds)
        if derivative is None and order != self.VALUE:
            grid = blocks_for(length * n, _THREADS), min(batch, _ROWS)
            self._kernel(general_derivatives.differentiate, np.float64, ORDER=order)(
                grid, _THREADS, self._complex_theta, x, states, previous, jacobian, *bounds)
        return defect, jacobian

    def totals(self, dx) -> dict:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        if self.cell.pullback is None:
            parts = self._grid[0]
        else:
            parts = min(_PARTS, max(_THREADS, _NUMBERS // max(1, self._size)))
        return {"x": dx, "theta": arrays.zeros((self._size, parts), np.float64)}

    @property
    def _grid(self) -> tuple[int, int]:
        """Blocks for groups of steps and for parameters, of complex steps through the parameters."""
        blocks = min(_BLOCKS, max(32, _NUMBERS // max(1, self._size)))
        rows = max(1, min(self._size, blocks // 8))
        return blocks // rows, rows

    def partials(self, x, states, previous, begin, end, start, stop) -> None:
        """Nothing: :meth:`accumulate` evaluates what it needs."""

    def accumulate(self, totals, partials, x, states, previous, adjoint, begin, start, stop) -> None:
        """Add the parameter gradients of one slab to ``totals`` and write its dL/dx."""
        bounds = begin, device().indices(start), device().indices(stop)
        batch, length = adjoint.shape[:2]
        theta, dx, pullback = totals["theta"], totals["x"], self.cell.pullback
        if not batch * length:
            return
        if pullback is not None:
            self._kernel(general_derivatives.accumulate, derivative=pullback)(
                blocks_for(theta.shape[1], _THREADS), _THREADS, self._theta, x, states, previous, adjoint, theta, dx, *bounds)
            return
        if self._size:
            copies = self._complex_work.take("copies", math.prod(self._grid), self._size)
            self._kernel(general_derivatives.pull_parameters, np.float64, THREADS=_THREADS)(
                self._grid, _THREADS, self._complex_theta, copies, x, states, previous, adjoint, theta, *bounds)
        if self.cell.input_size:
            grid = blocks_for(length * self.cell.input_size, _THREADS), min(batch, _ROWS)
            self._kernel(general_derivatives.pull_inputs, np.float64)(
                grid, _THREADS, self._complex_theta, x, states, previous, adjoint, dx, *bounds)

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all slabs."""
        flat, gradients, offset = arrays.empty((self._size,), self.dtype), {}, 0
        specialise(general_derivatives.total, self.dtype, THREADS=_THREADS)(self._size, _THREADS, totals["theta"], flat)
        for name, shape in self.cell.shapes.items():
            size = math.prod(shape)
            gradients[name] = flat[offset:offset + size].reshape(shape)
            offset += size
        return gradients


def _fields(cell: GeneralCell) -> Fields:
    """Name and shape of everything in ``p``: the parameters, then the constants."""
    return (*cell.shapes.items(), *((name, (1,)) for name, _ in cell.constants))
