"""Elementwise kernels on states: residual norms, Newton updates with repair of NaN and infinity."""

import math

from numba import prange

from pitsolve.compile import inline, kernel

CHUNK = 256  # time steps of one parallel task; fixed, so that no result depends on the number of threads
LIMIT = 1e8  # bound on repaired iterates, as in the authors' code of DEER


@kernel(parallel=True)
def measure(defect, states, tolerance, norms, firsts, begin, start, stop):
    """Per task, the largest |defect| / max(1, |h|) and the first step where it exceeds the tolerance (or ``stop``).

    A value that is not finite counts as infinity.
    """
    chunks = norms.shape[1]
    for task in prange(norms.shape[0] * chunks):
        measure_chunk(defect, states, tolerance, norms, firsts, begin, start, stop, task // chunks, task % chunks)


@kernel
def measure_chunk(defect, states, tolerance, norms, firsts, begin, start, stop, b, chunk):
    length, n = defect.shape[1:]
    largest = 0.0
    first_bad = stop[b]
    for t in range(max(begin + chunk * CHUNK, start[b]), min(begin + min(length, (chunk + 1) * CHUNK), stop[b])):
        size = relative_size(defect[b, t - begin], states[b, t])
        if not size <= tolerance and first_bad == stop[b]:
            first_bad = t
        largest = max(largest, size)
    norms[b, chunk] = largest
    firsts[b, chunk] = first_bad


@inline
def relative_size(change, state):
    """max_i |change_i| / max(1, |state_i|), infinity if anything is not finite."""
    largest = 0.0
    finite = True
    for i in range(change.size):
        size = abs(change[i]) / max(1.0, abs(state[i]))
        finite = finite and math.isfinite(size) and math.isfinite(state[i])
        largest = max(largest, size)
    return largest if finite else math.inf


@kernel(parallel=True)
def update(states, change, norms, begin, start, stop):
    """h += change; NaN becomes 0 and everything is clipped to +-1e8. ``norms`` receives the size of the step per task."""
    chunks = norms.shape[1]
    for task in prange(norms.shape[0] * chunks):
        update_chunk(states, change, norms, begin, start, stop, task // chunks, task % chunks)


@kernel
def update_chunk(states, change, norms, begin, start, stop, b, chunk):
    length, n = change.shape[1:]
    largest = 0.0
    for t in range(max(begin + chunk * CHUNK, start[b]), min(begin + min(length, (chunk + 1) * CHUNK), stop[b])):
        for i in range(n):
            old = states[b, t, i]
            new = old + change[b, t - begin, i]
            if math.isnan(new):
                new = 0.0
            new = min(max(new, -LIMIT), LIMIT)
            states[b, t, i] = new
            largest = max(largest, abs(new - old) / max(1.0, abs(new)))
    norms[b, chunk] = largest
