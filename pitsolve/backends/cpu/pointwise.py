"""Elementwise kernels on states: residual norms, Newton updates with repair of NaN and infinity."""

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


def magnitude(values: np.ndarray) -> float:
    """max |v| of a C-contiguous array; NaN if there is one, 0 if it is empty."""
    if values.size == 0:
        return 0.0
    norms = np.empty(max(1, values.size // PART))
    specialise(largest, LANES=register_bytes() // values.itemsize)(values.reshape(-1), norms)
    return float(norms.max())


@kernel(parallel=True)
def measure(defect, states, tolerance, norms, firsts, begin, start, stop):
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
def update(states, change, norms, begin, start, stop):
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
