"""Scratch memory on the device."""

from __future__ import annotations

import math
import weakref

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


_of_devices: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def of_device(dtype: np.dtype) -> Workspace:
    """What verbs that belong to no model use: the same memory in every call on a device and stream, in whose order they run."""
    dtype = np.dtype(dtype)
    return _of_devices.setdefault(device(), {}).setdefault(dtype, Workspace(dtype))
