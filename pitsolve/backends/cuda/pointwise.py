"""The largest absolute value of an array."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cuda.launch import blocks_for, cuda, device, specialise
from pitsolve.compile import constant, kernel

BITS = constant("BITS")  # the integer of as many bits: numbers that are not negative have the order of their bit patterns
_THREADS = 256


@kernel
def largest(values, count, result):
    """A thread strides through the array; the integer maximum of the bit patterns is the same in any order."""
    best = BITS(0)
    for at in range(cuda.grid(1), count, cuda.gridsize(1)):
        best = max(best, abs(values[at]).view(BITS))
    cuda.atomic.max(result, 0, best)


def magnitude(values) -> float:
    """The largest absolute value; NaN if there is one."""
    integer = np.int32 if values.dtype == np.float32 else np.int64
    result = device().upload(np.zeros(1, integer))
    specialise(largest, values.dtype, BITS=integer)(
        min(blocks_for(values.size, _THREADS), 8 * device().multiprocessors), _THREADS, values.reshape(-1), values.size, result)
    return float(device().download(result).view(values.dtype)[0])
