"""Elementwise work on states: residual norms, Newton updates with repair of NaN and infinity; the verbs are at the end."""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.simd import load, register_bytes, store
from pitsolve.backends.cpu.tuples import add, highest, larger, larger_ratio, repaired
from pitsolve.compile import constant, inline, kernel, specialise

LANES = constant("LANES")

CHUNK = 256  # time steps of one parallel task; fixed, so that no result depends on the number of threads
PART = 1 << 15  # numbers of one parallel task of `largest`
LIMIT = 100000000  # bound on repaired iterates, as in the authors' code of DEER


@inline
def largest_change(change, change_at, states, states_at, count):
    """max |change| / max(1, |state|) over ``count`` consecutive numbers; NaN if there is one."""
    largest = load(change, change_at, 0, 0, 1, LANES)
    for i in range(0, count, LANES):
        largest = larger_ratio(largest, load(change, change_at + i, 0, count - i, 1, LANES),
                               load(states, states_at + i, 0, count - i, 1, LANES))
    return highest(largest)


@kernel(parallel=True)
def largest(values, norms):
    """The largest |v| of each of ``norms.size`` equal parts; NaN if there is one."""
    for number in prange(norms.size):
        largest_part(values, norms, np.int64(number))


@kernel
def largest_part(values, norms, part):
    begin, end = part * values.size // norms.size, (part + 1) * values.size // norms.size
    most, rest = load(values, begin, 0, 0, 4, LANES), load(values, begin, 0, 0, 1, LANES)
    while begin + 4 * LANES <= end:  # four maxima that do not wait for each other
        most = larger(most, load(values, begin, LANES, LANES, 4, LANES))
        begin += 4 * LANES
    for i in range(begin, end, LANES):
        rest = larger(rest, load(values, i, 0, end - i, 1, LANES))
    sizes = highest(most), highest(rest)
    norms[part] = sizes[0] if not sizes[0] <= sizes[1] else sizes[1]


@kernel(parallel=True)
def measure_rows(defect, states, tolerance, norms, firsts, begin, start, stop):
    """Per task, the largest |defect| / max(1, |h|) and the first step where it exceeds the tolerance (or ``stop``).

    NaN stays NaN: it exceeds every tolerance.
    """
    chunks = norms.shape[1]
    for number in prange(norms.shape[0] * chunks):
        task = np.int64(number)
        measure_chunk(defect, states, tolerance, norms, firsts, begin, start, stop, task // chunks, task % chunks)


@kernel
def measure_chunk(defect, states, tolerance, norms, firsts, begin, start, stop, b, chunk):
    _, steps, n = states.shape
    length = defect.shape[1]
    first = max(begin + chunk * CHUNK, start[b])
    last = min(begin + min(length, (chunk + 1) * CHUNK), stop[b])
    row, states_row = b * length - begin, b * steps
    norms[b, chunk] = 0.0
    firsts[b, chunk] = stop[b]
    if first < last:
        size = largest_change(defect, (row + first) * n, states, (states_row + first) * n, (last - first) * n)
        norms[b, chunk] = size
        if not size <= tolerance:
            t = first
            while largest_change(defect, (row + t) * n, states, (states_row + t) * n, n) <= tolerance:
                t += 1
            firsts[b, chunk] = t


@kernel(parallel=True)
def update_rows(states, change, norms, begin, start, stop):
    """h += change; NaN becomes 0 and everything is clipped to +-1e8. ``norms`` receives the size of the step per task."""
    chunks = norms.shape[1]
    for number in prange(norms.shape[0] * chunks):
        task = np.int64(number)
        update_chunk(states, change, norms, begin, start, stop, task // chunks, task % chunks)


@kernel
def update_chunk(states, change, norms, begin, start, stop, b, chunk):
    _, steps, n = states.shape
    length = change.shape[1]
    first = max(begin + chunk * CHUNK, start[b])
    last = min(begin + min(length, (chunk + 1) * CHUNK), stop[b])
    change_at, states_at = (b * length + first - begin) * n, (b * steps + first) * n
    largest = load(change, 0, 0, 0, 1, LANES)
    for i in range(0, (last - first) * n, LANES):
        valid = (last - first) * n - i
        step = load(change, change_at + i, 0, valid, 1, LANES)
        new = repaired(add(load(states, states_at + i, 0, valid, 1, LANES), step), LIMIT)
        largest = larger_ratio(largest, step, new)
        store(states, states_at + i, 0, valid, new)
    norms[b, chunk] = highest(largest)


def _kernel(function, values):
    return specialise(function, LANES=register_bytes() // values.itemsize)


def _partial(batch: int, length: int, dtype: type) -> np.ndarray:
    """One number for each task of a slab."""
    return np.zeros((batch, max(1, -(-length // CHUNK))), dtype)


def magnitude(values: np.ndarray) -> float:
    """max |v| of a C-contiguous array; NaN if there is one, 0 if it is empty."""
    if values.size == 0:
        return 0.0
    norms = np.empty(max(1, values.size // PART))
    _kernel(largest, values)(values.reshape(-1), norms)
    return float(norms.max())


def is_finite(values: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity; False may be wrong where sums overflow."""
    if values.size >= PART and values.flags.c_contiguous:
        return bool(np.isfinite(magnitude(values)))  # on all threads
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()))  # a finite sum has finite terms


def measure(defect, states, tol, begin, start, stop) -> tuple[np.ndarray, np.ndarray]:
    """Per sequence, max |defect| / max(1, |h|) over the steps start <= t < stop of a slab, infinite where it is NaN.

    Also the first step at which it exceeds ``tol``; ``stop`` if there is none.
    """
    norms, firsts = (_partial(*defect.shape[:2], dtype) for dtype in (np.float64, np.int64))
    _kernel(measure_rows, states)(defect, states, tol, norms, firsts, begin, start, stop)
    norms = norms.max(axis=1)
    return np.where(np.isnan(norms), np.inf, norms), firsts.min(axis=1)


def update(states, change, begin, start, stop) -> np.ndarray:
    """h += change at the steps start <= t < stop of a slab, repaired: no NaN, bounded by 1e8.

    Returns max |change| / max(1, |h|) of every sequence, with the new h.
    """
    norms = _partial(*change.shape[:2], np.float64)
    _kernel(update_rows, states)(states, change, norms, begin, start, stop)
    return norms.max(axis=1)
