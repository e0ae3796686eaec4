"""Binding a cell to its parameters: the object whose methods are the verbs of the CUDA backend."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.general_model import GeneralModel
from pitsolve.cells.base import Cell, GatedCell, Parameters


def bind(cell: Cell, params: Parameters, dtype: np.dtype) -> GatedModel | GeneralModel:
    """The verbs of ``cell`` with the given parameters."""
    if isinstance(cell, GatedCell):
        return GatedModel(cell, params)
    return GeneralModel(cell, params, dtype)
