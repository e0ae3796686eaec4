"""The parameters of a gated cell on the device, in the layouts that kernels read, and the constants of its kernels."""

from __future__ import annotations

import functools

import numpy as np

from pitsolve.backends.cuda.launch import device
from pitsolve.cells.base import GatedCell, Parameters


class Weights:
    """Flat arrays on the device, each uploaded when it is first asked for; ``host`` are the parameters as they came."""

    def __init__(self, cell: GatedCell, params: Parameters):
        self.cell, self.host = cell, params
        self.dtype = params["weight_hh"].dtype
        self.columns = cell.hidden_size // cell.heads
        self.constants = {"GATES": cell.GATES, "PARTS": cell.PARTS, "SUMMED": cell.SUMMED,
                          "gates": cell.gates if cell.ratio == 1 else cell.coarse_gates}

    @functools.cached_property
    def input(self):
        """W_ih (GATES, n, m)."""
        return self.upload(self.host["weight_ih"])

    @functools.cached_property
    def input_transposed(self):
        """W_ih^T (m, GATES, n)."""
        return self.upload(self.host["weight_ih"].T)

    @functools.cached_property
    def hidden(self):
        """W_hh (GATES, n, columns): the columns of the unit's own head."""
        return self.upload(self.host["weight_hh"])

    @functools.cached_property
    def hidden_transposed(self):
        """W_hh with columns slowest: (columns, GATES, n)."""
        return self.upload(self.host["weight_hh"].T)

    @functools.cached_property
    def input_bias(self):
        """b_ih (GATES, n)."""
        return self.upload(self.host["bias_ih"])

    @functools.cached_property
    def hidden_bias(self):
        """b_hh (GATES, n)."""
        return self.upload(self.host["bias_hh"])

    def upload(self, values: np.ndarray):
        """A flat copy on the device, of at least one number."""
        flat = np.ascontiguousarray(values, self.dtype).reshape(-1)
        return device().upload(flat if flat.size else np.zeros(1, self.dtype))
