"""Scratch memory on the device."""

from __future__ import annotations

import math

import numpy as np

from pitsolve.backends.cuda.launch import device


class Workspace:
    """Named scratch arrays that grow when they must and are otherwise used again; their content is unspecified."""

    def __init__(self, dtype: np.dtype):
        self._dtype = np.dtype(dtype)
        self._arrays = {}

    def take(self, name: str, *shape: int):
        """A contiguous array of this shape, in the memory that this name had before if it is large enough."""
        size = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = device().empty((max(size, 1),), self._dtype)
        return array[:size].reshape(shape)
