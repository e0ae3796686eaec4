"""The parameters of a gated cell on the device, in the layouts that kernels read, and the constants of its kernels."""

from __future__ import annotations

import functools

import numpy as np

from pitsolve.backends.cuda.launch import device
from pitsolve.backends.cuda.mapping import Mapping
from pitsolve.cells.base import GatedCell, Parameters


class Weights:
    """Flat arrays on the device, each uploaded when it is first asked for; ``host`` are the parameters as they came."""

    def __init__(self, cell: GatedCell, params: Parameters):
        self.cell, self.host = cell, params
        self.dtype = params["weight_hh"].dtype
        self.columns = cell.hidden_size // cell.heads
        self._resident: dict[Mapping, tuple] = {}
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

    def resident(self, mapping: Mapping) -> tuple:
        """W_ih^T, b_ih, W_hh and b_hh in the order in which the threads of ``mapping`` read them; zeros for idle threads."""
        if mapping not in self._resident:
            self._resident[mapping] = tuple(map(self.upload, self._arranged(mapping)))
        return self._resident[mapping]

    def _arranged(self, mapping: Mapping) -> tuple[np.ndarray, ...]:
        gates, n, slices = mapping.gates, mapping.units, mapping.slices
        lanes = mapping.group // slices
        input_weight = np.zeros((mapping.inputs, gates, lanes), self.dtype)
        input_weight[:, :, :n] = self.host["weight_ih"].T.reshape(mapping.inputs, gates, n)
        input_bias = np.zeros((gates, lanes), self.dtype)
        input_bias[:, :n] = self.host["bias_ih"].reshape(gates, n)
        summed = self.cell.SUMMED
        input_bias[:summed, :n] += self.host["bias_hh"].reshape(gates, n)[:summed]
        rows = np.zeros((gates, lanes, mapping.room), self.dtype)
        rows[:, :n, :mapping.columns] = self.host["weight_hh"].reshape(gates, n, mapping.columns)
        by_slice = rows.reshape(gates, lanes, mapping.vectors, slices, mapping.vector)
        hidden_bias = np.zeros((gates, lanes, slices), self.dtype)
        hidden_bias[:, :n, 0] = self.host["bias_hh"].reshape(gates, n)  # one slice starts the sum with it
        return input_weight, input_bias, by_slice.transpose(0, 2, 4, 1, 3), hidden_bias

    def upload(self, values: np.ndarray):
        """A flat copy on the device, of at least one number."""
        flat = np.ascontiguousarray(values, self.dtype).reshape(-1)
        return device().upload(flat if flat.size else np.zeros(1, self.dtype))
