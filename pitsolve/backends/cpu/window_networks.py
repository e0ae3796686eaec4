"""A cell with a readout on windows of time, each window with its own start and parameters: the verbs of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pitsolve.backends.cpu import arrow, complexmath, sensitivities  # noqa: F401  (complexmath extends math to complex numbers)
from pitsolve.backends.cpu.workspace import Workspace, aligned_zeros
from pitsolve.cells.base import Cell, GatedCell, Parameters
from pitsolve.cells.parameters import packing
from pitsolve.compile import specialise

_GROUPS = 8  # partial sums of the normal matrix over sequences; fixed, so that no result depends on the number of threads


@dataclass(frozen=True, eq=False)
class Sizes:
    """Where the parameters stand in the flat vector theta: the cell's, weight_hy (outputs, read), bias_hy (outputs,)."""

    cell: Cell
    read: int
    outputs: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every entry of the parameters."""
        return {**self.cell.shapes, "weight_hy": (self.outputs, self.read), "bias_hy": (self.outputs,)}

    @property
    def cells(self) -> int:
        """Parameters of the cell."""
        return sum(math.prod(shape) for shape in self.cell.shapes.values())

    @property
    def total(self) -> int:
        """All parameters."""
        return self.cells + self.outputs * (self.read + 1)

    def flat(self, params: Parameters) -> np.ndarray:
        """theta (q,) in float64."""
        return np.concatenate([np.asarray(params[name], np.float64).ravel() for name in self.shapes])

    def named(self, theta: np.ndarray, dtype: np.dtype) -> Parameters:
        """The inverse of :meth:`flat`."""
        params, offset = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            params[name] = theta[offset:offset + size].reshape(shape).astype(dtype)
            offset += size
        return params


@dataclass(frozen=True, eq=False)
class Normal:
    """Gauss-Newton matrices and gradients of all windows; see :mod:`pitsolve.backends.cpu.sensitivities`."""

    border: np.ndarray
    start_gradient: np.ndarray
    gram: np.ndarray
    gradient: np.ndarray


class WindowNetworks:
    """p windows [first, last) of B sequences; ``weight`` (T,) are the weights of the steps in the loss."""

    def __init__(self, sizes: Sizes, x: np.ndarray, y: np.ndarray, first: np.ndarray, last: np.ndarray, overlap: int,
                 weight: np.ndarray):
        self.sizes, self.x, self.y = sizes, x, y
        self.first, self.last, self.overlap, self.weight = first, last, overlap, weight
        self.count, self.batch, self.n = first.size, x.shape[0], sizes.cell.state_size
        self._work = Workspace(np.float64)
        self._complex_work = Workspace(np.complex128)
        cell = sizes.cell
        self._gated = isinstance(cell, GatedCell)
        if self._gated:
            self._numbers, self._ratio = np.zeros(0), cell.ratio
            self._row = (cell.hidden_size, 2 * cell.GATES + cell.PARTS)
            self._constants = {"GATED": True, "GATES": cell.GATES, "PARTS": cell.PARTS,
                               "gates": cell.gates if cell.ratio == 1 else cell.coarse_gates}
        else:
            self._numbers, self._ratio, self._row = np.array([number for _, number in cell.constants]), 1, (0, 0)
            fields = (*cell.shapes.items(), *((name, (1,)) for name, _ in cell.constants))
            self._constants = {"GATED": False, "bundle": packing(fields)[0], "step": cell.step, "PARAMETERS": fields}
        self._own = sizes.cells + self._numbers.size + 2 * self.n

    def rollout(self, theta: np.ndarray, starts: np.ndarray, chosen: np.ndarray, penalty: np.ndarray, anchors: np.ndarray,
                keep: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses (p, B, 2), states on the overlaps (p, B, 2, s, n) and on the first ``keep`` steps (p, B, keep, n)."""
        tasks = self.count * chosen.size
        states = np.empty((self.count, chosen.size, keep, self.n))
        edges = np.zeros((self.count, chosen.size, 2, self.overlap, self.n))
        loss = np.empty((self.count, chosen.size, 2))
        specialise(sensitivities.rollout, **self._constants)(
            theta, self._numbers, starts, chosen, self.x, self.y, self.weight, self.first, self.last, penalty, anchors,
            self._ratio, self._work.take("own", tasks, self._own), self._work.take("gates", tasks, *self._row), states, edges,
            loss)
        return loss, edges, states

    def normal_equations(self, theta: np.ndarray, starts: np.ndarray, free: np.ndarray, chosen: np.ndarray,
                         penalty: np.ndarray, anchors: np.ndarray) -> Normal:
        """J^T J and J^T r of the residuals of all windows at the given starts and parameters."""
        p, n, q, batch, take = self.count, self.n, self.sizes.total, chosen.size, self._work.take
        groups = min(_GROUPS, batch)
        tasks, columns = p * groups, n + self.sizes.cells
        normal = Normal(take("border", p, batch, n, n + q), take("start_gradient", p, batch, n),
                        take("gram", p, groups, q, n + q), take("gradient", p, groups, q))
        moved = 0 if self._gated else self._own + self.x.shape[2]
        specialise(sensitivities.normal_equations, **self._constants)(
            theta, self._numbers, starts, free, chosen, self.x, self.y, self.weight, self.first, self.last, penalty, anchors,
            self._ratio, take("own", tasks, self._own), self._complex_work.take("moved", tasks, moved),
            take("gates", tasks, *self._row), take("jacobian", tasks, n, n), take("slopes", tasks, 2, n, columns),
            take("rows", tasks, sensitivities.ROWS, n + q), take("residuals", tasks, sensitivities.ROWS), normal.border,
            normal.start_gradient, normal.gram, normal.gradient)
        return normal

    def diagonal(self, normal: Normal) -> np.ndarray:
        """Diagonal (p, q) of the parameters' part of J^T J."""
        return np.einsum("igkk->ik", normal.gram[:, :, :, self.n:])

    def step(self, normal: Normal, ridge: np.ndarray, pull: np.ndarray, damping: np.ndarray, wanted: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Damped Gauss-Newton steps of the parameters (p, q) and starts (p, B, n), and the predicted decrease (p,)."""
        p, batch, n, q = self.count, normal.border.shape[1], self.n, self.sizes.total
        theta_step, start_step, decrease = aligned_zeros((p, q), np.float64), np.zeros((p, batch, n)), np.full(p, np.nan)
        specialise(arrow.solve)(
            normal.border, normal.start_gradient, normal.gram, normal.gradient, ridge, pull, damping, wanted,
            self._work.take("eliminated", p, batch, n, n + q + 1), self._work.take("schur", p, q, q),
            self._work.take("kept", p, 2, q), theta_step, start_step, decrease)
        return theta_step, start_step, decrease
