"""Memory: arrays that begin on a cache line, and scratch that a solve reuses."""

from __future__ import annotations

import math

import numpy as np

_LINE = 64  # bytes of a cache line, and of the widest vector: a vector that crosses two lines costs two loads


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of unspecified contents that begins on a cache line."""
    size, itemsize = math.prod(shape), np.dtype(dtype).itemsize
    memory = np.empty(size + _LINE // itemsize, dtype)
    first = -memory.ctypes.data % _LINE // itemsize
    return memory[first:first + size].reshape(shape)


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The same, filled with zeros."""
    array = aligned(shape, dtype)
    array.fill(0)
    return array


class Workspace:
    """Hands out C-contiguous arrays of one dtype by name; the contents are unspecified."""

    def __init__(self, dtype: np.dtype):
        self._dtype = dtype
        self._arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The array ``name`` in the given shape; what it held before is lost."""
        size = math.prod(shape)
        if name not in self._arrays or self._arrays[name].size < size:
            self._arrays[name] = aligned((size,), self._dtype)
        return self._arrays[name][:size].reshape(shape)
