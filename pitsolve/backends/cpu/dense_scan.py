"""The affine recurrence with large blocks: every row walked step by step, one small matrix-vector product a step.

Composing two blocks costs their size times the work of applying them, so on a few cores chunks of time would lose.
"""

import numba

from pitsolve.backends.cpu.maps import load_states, store_states
from pitsolve.backends.cpu.matvec import times
from pitsolve.compile import constant, inline, kernel

REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size of a diagonal block
LANES = constant("LANES")
WHOLE = constant("WHOLE")  # LANES, as the count of valid numbers in a whole vector


@inline
def _step(A, b, at, source, source_at, out, heads):
    """One step of large blocks: out[at:] = A[at * BLOCK:] source[source_at:] + b[at:]; out may be b, but not source."""
    for h in range(heads):
        here, there = at + h * BLOCK, source_at + h * BLOCK
        for i in range(0, BLOCK, LANES):
            valid = WHOLE if BLOCK % LANES == 0 else BLOCK - i
            offset = load_states(b, here + i, valid, 1, 1, LANES, LANES)[0]
            total = times(A, here * BLOCK, i, source, there, BLOCK, LANES, TRANSPOSE)[0]
            store_states(out, here + i, valid, (total + offset,), 1)


@kernel
def _steps(A, b, source, source_at, out, row, start, stop, heads):
    width = heads * BLOCK
    if start < stop:
        t = row + (stop - 1 if REVERSE else start)
        _step(A, b, t * width, source, source_at, out, heads)
    for step in range(1, stop - start):
        t = row + (stop - 1 - step if REVERSE else start + step)
        _step(A, b, t * width, out, (t + 1 if REVERSE else t - 1) * width, out, heads)


@kernel(parallel=True)
def walk_rows(A, b, y0, out, start, stop, steps, heads):
    if start.size == 1:  # nothing to share: spare a single row the start of the threads
        _steps(A, b, y0, 0, out, 0, start[0], stop[0], heads)
        return
    for r in numba.prange(start.size):
        _steps(A, b, y0, r * heads * BLOCK, out, r * steps, start[r], stop[r], heads)
