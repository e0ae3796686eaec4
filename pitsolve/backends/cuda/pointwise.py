"""Elementwise work on states: residual norms, Newton updates with repair of NaN and infinity; the verbs are at the end."""

from __future__ import annotations

import numpy as np
from numba import int64

from pitsolve.backends.cuda.iterates import NEVER, relative, repaired
from pitsolve.backends.cuda.launch import blocks_for, cuda, device, specialise
from pitsolve.backends.cuda.workspace import of_device
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
BITS = constant("BITS")  # the integer of as many bits: numbers that are not negative have the order of their bit patterns
UPDATE = constant("UPDATE")  # whether to add the change to the states

_THREADS = 256
_PARTS = 1 << 14  # numbers of a sequence for each block


@kernel
def largest(values, count, result):
    """A thread strides through the array; the integer maximum of the bit patterns is the same in any order."""
    best = BITS(0)
    for at in range(cuda.grid(1), count, cuda.gridsize(1)):
        best = max(best, abs(values[at]).view(BITS))
    cuda.atomic.max(result, 0, best)


@kernel
def compare_rows(change, states, tolerance, largest, earliest, begin, start, stop, length, steps, n):
    """Blocks of one x index share a sequence; a thread strides through the steps start <= t < stop of a slab.

    ``largest`` gets the bits of the largest |change| / max(1, |h|), ``earliest`` the largest ``NEVER`` - t of the steps t at
    which that exceeds the tolerance; both are below zero where there is nothing. Integer maxima are the same in any order. With
    UPDATE the change is added to h first.
    """
    found = cuda.shared.array(2, int64)
    if cuda.threadIdx.x < 2:
        found[cuda.threadIdx.x] = -1
    cuda.syncthreads()
    batch = cuda.blockIdx.x
    low, high = max(begin, start[batch]), min(begin + length, stop[batch])
    row = (np.int64(batch) * length - begin) * n
    states_row = np.int64(batch) * steps * n
    best, first = int64(-1), int64(-1)
    for at in range(low * n + cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, high * n, cuda.gridDim.y * cuda.blockDim.x):
        step, state = change[row + at], states[states_row + at]
        if UPDATE:
            state = repaired(state + step)
            states[states_row + at] = state
        size = relative(step, state)
        best = max(best, int64(size.view(BITS)))
        if first < 0 and not size <= tolerance:
            first = at
    if best >= 0:
        cuda.atomic.max(found, 0, best)
    if first >= 0:
        cuda.atomic.max(found, 1, NEVER - first // n)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and found[0] >= 0:
        cuda.atomic.max(largest, batch, found[0])
        cuda.atomic.max(earliest, batch, found[1])


def _compare(change, states, tolerance, begin, start, stop, update):
    """Per sequence the largest ratio, 0 if there is none, and the first step beyond the tolerance or ``stop``."""
    batch, length, n = change.shape
    if batch * length * n == 0:
        return np.zeros(batch), stop.copy()
    integer = np.int32 if states.dtype == np.float32 else np.int64
    found = of_device(np.int64).take("found", 2 * batch)
    device().preset(found)
    parts = min(blocks_for(length * n, _PARTS), 1024)
    specialise(compare_rows, states.dtype, BITS=integer, UPDATE=update)(
        (batch, parts), _THREADS, change.reshape(-1), states.reshape(-1), tolerance, found[:batch], found[batch:], begin,
        device().indices(start), device().indices(stop), length, states.shape[1], n)
    largest, earliest = device().download(found).reshape(2, batch)
    norms = np.maximum(largest, 0).astype(integer).view(states.dtype).astype(np.float64)
    return norms, np.where(earliest < 0, stop, NEVER - earliest)


def measure(defect, states, tol, begin, start, stop) -> tuple[np.ndarray, np.ndarray]:
    """Per sequence, max |defect| / max(1, |h|) over the steps start <= t < stop of a slab, infinite where it is NaN.

    Also the first step at which it exceeds ``tol``; ``stop`` if there is none.
    """
    tolerance = states.dtype.type(tol)
    if tolerance > tol:  # a number of the kernel is at most tol exactly where it is at most this
        tolerance = np.nextafter(tolerance, states.dtype.type(0))
    norms, firsts = _compare(defect, states, float(tolerance), begin, start, stop, False)
    return np.where(np.isnan(norms), np.inf, norms), firsts


def update(states, change, begin, start, stop) -> np.ndarray:
    """h += change at the steps start <= t < stop of a slab, repaired: no NaN, bounded by 1e8.

    Returns max |change| / max(1, |h|) of every sequence, with the new h.
    """
    return _compare(change, states, 0.0, begin, start, stop, True)[0]


def magnitude(values) -> float:
    """The largest absolute value; NaN if there is one."""
    integer = np.int32 if values.dtype == np.float32 else np.int64
    result = device().upload(np.zeros(1, integer))
    specialise(largest, values.dtype, BITS=integer)(
        min(blocks_for(values.size, _THREADS), 8 * device().multiprocessors), _THREADS, values.reshape(-1), values.size, result)
    return float(device().download(result).view(values.dtype)[0])
