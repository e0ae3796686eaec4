"""Binding a cell to its parameters: the object whose methods are the verbs of the CPU backend."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu.gated_model import GatedModel
from pitsolve.backends.cpu.general_model import GeneralModel
from pitsolve.cells.base import Cell, GatedCell, Parameters


def bind(cell: Cell, params: Parameters, dtype: np.dtype) -> GatedModel | GeneralModel:
    """The verbs of ``cell`` with the given parameters."""
    if isinstance(cell, GatedCell):
        return GatedModel(cell, params)
    return GeneralModel(cell, params, dtype)


def fused_newton(model, order: int, damping: float, x, h0, states, stop, max_memory) -> None:
    """None: here an iteration goes through memory slab by slab, as the caches want it.

    A backend that has linearisation, scan and update in one kernel returns an object with ``sweep(tol, start)``, one iteration
    of Newton's method from step start[b] on, which returns residual norms and first steps beyond ``tol`` of the iterate before
    it (like :func:`measure`) and the sizes of the update (like :func:`update`), and with ``finish()``, after which ``states``
    holds the newest iterate. Its scratch memory stays in ``max_memory`` bytes.
    """
    return None
