"""The equation r(h) = 0 that every method solves: a cell bound to its parameters, inputs, initial state and lengths."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from pitsolve.cells.base import Parameters

SLAB_ALIGNMENT = 256  # slabs begin at multiples of every chunk size of the kernels


@dataclass(frozen=True)
class Problem:
    """h_t = f(h_{t-1}, x_t), 1 <= t <= stop[b], for every sequence b of a batch.

    Attributes
    ----------
    model : GatedModel or GeneralModel
        The cell bound to its parameters by the backend: the verbs.
    x : ndarray (B, T, m)
    h0 : ndarray (B, S)
    stop : int64 ndarray (B,)
        Length of each sequence.
    params : dict of ndarray
        Those of the cell, for its coarse forms.
    backend : module
        Where x and h0 are and where the verbs run. Methods reach into arrays by its verbs only.
    """

    model: object
    x: np.ndarray
    h0: np.ndarray
    stop: np.ndarray
    params: Parameters
    backend: ModuleType

    @property
    def steps(self) -> int:
        return self.x.shape[1]

    def slabs(self, step_bytes: int, max_memory: int) -> list[tuple[int, int]]:
        """[begin, end) ranges of time whose scratch memory, ``step_bytes`` a step and sequence, stays in ``max_memory``."""
        steps = max_memory // max(1, step_bytes * self.x.shape[0])
        length = max(SLAB_ALIGNMENT, steps // SLAB_ALIGNMENT * SLAB_ALIGNMENT)
        return [(begin, min(begin + length, self.steps)) for begin in range(0, self.steps, length)]

    def previous(self, states: np.ndarray, begin: int) -> np.ndarray:
        """The states before a slab, (B, S)."""
        return self.h0 if begin == 0 else self.backend.arrays.at_step(states, begin - 1)
