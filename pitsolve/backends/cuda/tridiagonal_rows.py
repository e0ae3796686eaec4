"""What all steps of all windows of a block-tridiagonal matrix do at once: right sides, messages, merging, residuals.

A thread has one number of a vector at a time, whatever n is. In kernels on windows, the x direction of the grid counts windows
and the y direction shares the numbers of one.
"""

import numpy as np

from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, inline, kernel

SIZE = constant("SIZE")
SQUARE = constant("SQUARE")
WHOLE = constant("WHOLE")  # whether right sides are wanted at all steps, or at the ends for messages alone
VALUES = constant("VALUES")  # whether messages hold the values on the overlap
SPLIT = constant("SPLIT")  # whether copies on an overlap add up


@inline
def step_of(entry):
    """The step of a number of a vector over time."""
    return np.int32(np.uint32(entry) // np.uint32(SIZE))


@inline
def first_entry():
    return cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x


@inline
def stride():
    return cuda.gridDim.y * cuda.blockDim.x


@inline
def row_times(matrices, base, i, vector, at):
    """Row i of a matrix times a vector."""
    total = 0.0
    for j in range(SIZE):
        total += matrices[base + i * SIZE + j] * vector[at + j]
    return total


@inline
def column_times(matrices, base, i, vector, at):
    """Column i of a matrix times a vector."""
    total = 0.0
    for j in range(SIZE):
        total += matrices[base + j * SIZE + i] * vector[at + j]
    return total


@kernel
def smallest_pivots(diagonal, steps, epsilon, floors):
    """What rounding leaves of a pivot that is zero, at each step. A thread has a step."""
    for t in range(cuda.grid(1), steps, cuda.gridsize(1)):
        at = np.int64(t) * SQUARE
        largest = diagonal[at]
        for j in range(1, SIZE):
            largest = max(largest, diagonal[at + j * SIZE + j])
        floors[t] = largest * epsilon


@inline
def news(t, steps, overlap, left, right, base):
    """Where the neighbours' value at step t of a window lies in their messages: (from the left, from the right), or -1."""
    from_left = base + (1 + t) * SIZE if 0 <= t < left else -1
    from_right = base + (1 + t - steps + overlap) * SIZE if steps - right <= t < steps else -1
    return from_left, from_right


@kernel
def right_sides(chosen, diagonal, off_diagonal, rhs, first, offset, windows, reach, messages, overlap, mu,
                from_left, from_right, u):
    """The right side of each chosen window: that of the problem, and what the neighbours sent.

    That is a vector for each end and their values on the overlaps, as mu x_j and, in the split formulation, minus their column
    of N. Without ``WHOLE`` it is the messages alone, within ``reach`` rows of each end.
    """
    place = cuda.blockIdx.x
    window = chosen[place]
    begin = offset[window]
    steps = offset[window + 1] - begin
    near = steps if WHOLE else min(steps, reach[place])
    count = steps if WHOLE else min(steps, 2 * near)
    left = overlap if VALUES and window > 0 else 0
    right = overlap if VALUES and window < windows - 1 else 0
    base = window * messages * SIZE
    for entry in range(first_entry(), count * SIZE, stride()):
        row = step_of(entry)
        i = entry - row * SIZE
        t = row if row < near else steps - count + row
        at = np.int64(first[window] + t)
        value = rhs[at * SIZE + i] if WHOLE else 0.0
        if t == 0:
            value += from_left[base + i]
        if t == steps - 1:
            value += from_right[base + i]
        if VALUES:
            for side in range(3):  # values at t - 1, t and t + 1
                places = news(t + side - 1, steps, overlap, left, right, base)
                if places[0] >= 0:
                    value += arrived(diagonal, off_diagonal, at, side, i, from_left, places[0], mu[window])
                if places[1] >= 0:
                    value += arrived(diagonal, off_diagonal, at, side, i, from_right, places[1], mu[window])
        u[np.int64(begin + t) * SIZE + i] = value


@inline
def arrived(diagonal, off_diagonal, at, side, i, values, place, mu):
    """What a neighbour's value at step at - 1 + side adds to row i of step ``at``."""
    value = 0.0
    if side == 1:
        value = mu * values[place + i]
    if SPLIT:
        if side == 0:
            value -= column_times(off_diagonal, (at - 1) * SQUARE, i, values, place)
        elif side == 1:
            value -= row_times(diagonal, at * SQUARE, i, values, place)
        else:
            value -= row_times(off_diagonal, at * SQUARE, i, values, place)
    return value


@kernel
def post(chosen, number, off_diagonal, first, offset, windows, overlap, messages, for_left, for_right, copies, out):
    """The messages of the chosen windows, to the left and then to the right: what the row there lacks, values on the overlap.

    The first is D x_end - N x_beyond for the row at the neighbour's end, D the matrix that it has there.
    """
    place = cuda.blockIdx.x
    window = chosen[place]
    begin = offset[window]
    steps = offset[window + 1] - begin
    for entry in range(first_entry(), 2 * messages * SIZE, stride()):
        row = step_of(entry)
        i = entry - row * SIZE
        leftward = row < messages
        k = row if leftward else row - messages
        value = 0.0
        if window > 0 if leftward else window < windows - 1:
            if k > 0:
                t = k - 1 if leftward else steps - overlap + k - 1
                value = copies[np.int64(begin + t) * SIZE + i]
            elif leftward:  # the neighbour's last step is ``overlap - 1`` here
                block = np.int64(first[window] + overlap - 1) * SQUARE
                value = -row_times(off_diagonal, block, i, copies, np.int64(begin + overlap) * SIZE)
                if overlap > 0:
                    value += row_times(for_left, np.int64(window) * SQUARE, i, copies, np.int64(begin + overlap - 1) * SIZE)
            else:
                end = steps - overlap  # where the neighbour begins
                block = np.int64(first[window] + end - 1) * SQUARE
                value = -column_times(off_diagonal, block, i, copies, np.int64(begin + end - 1) * SIZE)
                if overlap > 0:
                    value += row_times(for_right, np.int64(window) * SQUARE, i, copies, np.int64(begin + end) * SIZE)
        out[((0 if leftward else number) + place) * messages * SIZE + k * SIZE + i] = value


@kernel
def residual(diagonal, off_diagonal, rhs, g, steps, out):
    """f - N g."""
    for entry in range(cuda.grid(1), steps * SIZE, cuda.gridsize(1)):
        t = step_of(entry)
        i = entry - t * SIZE
        at = np.int64(t)
        value = rhs[entry] - row_times(diagonal, at * SQUARE, i, g, at * SIZE)
        if t < steps - 1:
            value -= row_times(off_diagonal, at * SQUARE, i, g, (at + 1) * SIZE)
        if t > 0:
            value -= column_times(off_diagonal, (at - 1) * SQUARE, i, g, (at - 1) * SIZE)
        out[entry] = value


@kernel
def begin(g, first, offset, windows, overlap, copies):
    """Copies of a guess; halves on the overlaps where copies add up."""
    window = cuda.blockIdx.x
    start = offset[window]
    steps = offset[window + 1] - start
    for entry in range(first_entry(), steps * SIZE, stride()):
        t = step_of(entry)
        value = g[np.int64(first[window]) * SIZE + entry]
        if SPLIT and ((window > 0 and t < overlap) or (window < windows - 1 and t >= steps - overlap)):
            value *= 0.5
        copies[np.int64(start) * SIZE + entry] = value


@kernel
def merge(copies, first, offset, windows, overlap, g):
    """One solution of all copies: each window writes what the one before it does not hold; the mean on overlaps, or the sum."""
    window = cuda.blockIdx.x
    start = offset[window]
    steps = offset[window + 1] - start
    skip = overlap if window > 0 else 0
    for entry in range(first_entry(), (steps - skip) * SIZE, stride()):
        at = entry + skip * SIZE
        beyond = at - (steps - overlap) * SIZE  # in the next window
        value = copies[np.int64(start) * SIZE + at]
        if window < windows - 1 and beyond >= 0:
            value += copies[np.int64(offset[window + 1]) * SIZE + beyond]
            if not SPLIT:
                value *= 0.5
        g[np.int64(first[window]) * SIZE + at] = value


@kernel
def mismatch(copies, offset, interfaces, overlap, out):
    """The squared 2-norm of what the two copies of each overlap differ by. A thread has an overlap."""
    for window in range(cuda.grid(1), interfaces, cuda.gridsize(1)):
        end = np.int64(offset[window + 1]) * SIZE
        total = 0.0
        for j in range(overlap * SIZE):
            difference = copies[end + j] - copies[end - overlap * SIZE + j]
            total += difference * difference
        out[window] = total
