"""Scratch memory of a solve: named arrays that grow when needed and are reused by every iteration and slab."""

from __future__ import annotations

import math

import numpy as np


class Workspace:
    """Hands out C-contiguous arrays of one dtype by name; the contents are unspecified."""

    def __init__(self, dtype: np.dtype):
        self._dtype = dtype
        self._arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The array ``name`` in the given shape; what it held before is lost."""
        size = math.prod(shape)
        if name not in self._arrays or self._arrays[name].size < size:
            self._arrays[name] = np.zeros(size, self._dtype)
        return self._arrays[name][:size].reshape(shape)
