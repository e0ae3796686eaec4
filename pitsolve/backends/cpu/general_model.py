"""A general cell bound to its parameters: the same verbs as a gated one, around scalar functions."""

from __future__ import annotations

import math
import weakref
from functools import cached_property

import numpy as np

from pitsolve.backends.cpu import complexmath, general  # noqa: F401  (complexmath extends math to complex numbers)
from pitsolve.backends.cpu.general_windows import GeneralWindows
from pitsolve.backends.cpu.workspace import Workspace
from pitsolve.cells.base import GeneralCell, Parameters
from pitsolve.cells.parameters import Fields, packing
from pitsolve.compile import specialise

_TASKS = 8  # partial sums of the parameter gradients; fixed, so that they do not depend on the number of threads


class GeneralModel:
    """The verbs of a general cell. Slabs are half-open ranges [begin, end) of time; ``previous`` is the state before."""

    VALUE, DIAGONAL, BLOCKS = general.VALUE, general.DIAGONAL, general.BLOCKS

    def __init__(self, cell: GeneralCell, params: Parameters, dtype: np.dtype):
        self.cell = cell
        self.dtype = np.dtype(dtype)
        self.work = Workspace(self.dtype)
        flat = [params[name].ravel() for name in cell.shapes] + [np.array([number], self.dtype) for _, number in cell.constants]
        self._theta = np.concatenate(flat) if flat else np.zeros(0, self.dtype)
        self._complex_theta = self._theta.astype(np.complex128)
        self._row = cell.input_size + 2 * cell.state_size

    def _kernel(self, function, derivative=None, **constants):
        cell = self.cell
        return specialise(function, bundle=packing(_fields(cell))[0], step=cell.step, GIVEN=derivative is not None,
                          derivative=derivative or cell.step, PARAMETERS=_fields(cell), **constants)

    @cached_property
    def windows(self) -> GeneralWindows:
        """The verbs that work on many windows of time at once."""
        model = weakref.proxy(self)  # a cycle would keep the Jacobians of all steps until Python looks for cycles
        return GeneralWindows(model, lambda *function, **constants: model._kernel(*function, **constants), self._theta)

    def step_bytes(self, order: int) -> int:
        """Scratch memory of one time step of one sequence, in bytes."""
        n = self.cell.state_size
        return (2 * n + {self.VALUE: 0, self.DIAGONAL: n, self.BLOCKS: n * n}[order]) * self.dtype.itemsize

    def carry(self, state: np.ndarray) -> np.ndarray:
        """A state (B, n) as :meth:`propagate` carries it along."""
        return state.copy()

    def propagate(self, x, carry, states, begin, end, start, stop, source=None) -> None:
        """h_t = f(h_{t-1}, x_t) + g_t into ``states`` for begin <= t < end, one after the other; ``source`` is g or None."""
        added = states if source is None else source
        self._kernel(general.propagate, SOURCE=source is not None)(
            self._theta, x, added, carry, states, begin, end, start, stop)

    def linearise(self, order, x, states, previous, begin, end, start, stop) -> tuple[np.ndarray, np.ndarray]:
        """f(h_{t-1}, x_t) - h_t (B, L, n) and its Jacobian: none, diagonal (B, L, n) or block (B, L, 1, n, n)."""
        batch, length, n = x.shape[0], end - begin, self.cell.state_size
        shape = {self.VALUE: (batch, 0, n), self.DIAGONAL: (batch, length, n), self.BLOCKS: (batch, length, 1, n, n)}[order]
        jacobian = self.work.take(f"jacobian{order}", *shape)
        defect = self.work.take("defect", batch, length, n)
        defect[...] = 0.0
        derivative = {self.VALUE: None, self.DIAGONAL: self.cell.diagonal, self.BLOCKS: self.cell.jacobian}[order]
        rows = np.empty((batch * -(-length // general.CHUNK), self._row), np.complex128)
        self._kernel(general.linearise, derivative, ORDER=order)(
            self._theta, self._complex_theta, x, states, previous, rows, defect, jacobian, begin, start, stop)
        return defect, jacobian

    def totals(self, dx: np.ndarray) -> dict[str, np.ndarray]:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        return {"x": dx, "theta": np.zeros((_TASKS, self._theta.size))}

    def partials(self, x, states, previous, begin, end, start, stop) -> None:
        """Nothing: :meth:`accumulate` evaluates what it needs."""

    def accumulate(self, totals, partials, x, states, previous, adjoint, begin, start, stop) -> None:
        """Add the parameter gradients of one slab to ``totals`` and write its dL/dx."""
        derivative = self.cell.pullback
        thetas = np.tile(self._complex_theta, (_TASKS, 1)) if derivative is None else np.zeros((_TASKS, 0), np.complex128)
        self._kernel(general.accumulate, derivative)(
            self._theta, thetas, x, states, previous, adjoint, np.empty((_TASKS, self._row), np.complex128),
            self.work.take("pulled", _TASKS, self.cell.state_size), totals["theta"], totals["x"], begin, start, stop)

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all slabs."""
        flat, gradients, offset = totals["theta"].sum(axis=0), {}, 0
        for name, shape in self.cell.shapes.items():
            size = math.prod(shape)
            gradients[name] = flat[offset:offset + size].reshape(shape).astype(self.dtype)
            offset += size
        return gradients


def _fields(cell: GeneralCell) -> Fields:
    """Name and shape of everything in ``p``: the parameters, then the constants."""
    return (*cell.shapes.items(), *((name, (1,)) for name, _ in cell.constants))
