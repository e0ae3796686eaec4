"""Views and scratch memory for scalar functions. On a CUDA device, where there is no heap, each has a twin of its own."""

import numpy as np
from numba.extending import register_jitable


@register_jitable
def part(theta, begin, shape):
    """The numbers of a flat array from ``begin`` on, as an array of the given shape."""
    size = 1
    for width in shape:
        size *= width
    return theta[begin:begin + size].reshape(shape)


@register_jitable
def flat(array):
    """All numbers of what :func:`part` returned."""
    return array.reshape(array.size)


@register_jitable
def scratch(rows, columns, like):
    """Scratch memory (rows, columns) of numbers of the type of ``like``; both sizes must be compile-time constants."""
    return np.full((rows, columns), like)
