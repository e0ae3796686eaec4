"""Block LDL^T factors of the windows of a block-tridiagonal matrix, and the sweeps that solve with them.

Window i is one task: the steps [first_i, last_i), whose factors, copies and scratch lie one after the other in flat arrays from
``offset_i`` on. With M its matrix, S_t = M_tt - B_t M_{t-1,t} and B_t = M_{t,t-1} S_{t-1}^-1,

    forward   u_t = r_t - B_t u_{t-1},          backward   x_t = S_t^-1 u_t - B_{t+1}^T x_{t+1}.

Inverses are kept in place of triangular factors: then only one product with a matrix waits for the step before, and
S_t^-1 u_t does not. A task reads of other windows nothing but the messages in its two inboxes.
"""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.small_matrices import (
    add_matrix,
    add_times,
    add_transposed_times,
    copy_matrix,
    copy_vector,
    invert,
    largest,
    product,
    set_zero,
    size_of,
    smallest_pivot,
    subtract_matrix,
    trace,
)
from pitsolve.compile import inline, kernel

CHUNK = 256  # steps of one task that knows no windows; fixed, so that no result depends on the number of threads


@kernel(parallel=True)
def factor(diagonal, off_diagonal, first, last, offset, overlap, mu, from_left, from_right, gains, inverses, scratch, failed):
    """S_t^-1 and B_t of M = N_ii + mu P_i + the transmissions at both ends; the first step that has no S_t^-1, or -1."""
    for number in prange(first.size):
        i = np.int64(number)
        failed[i] = factor_window(diagonal, off_diagonal, first[i], last[i], offset[i], overlap if i > 0 else 0,
                                  overlap if i < first.size - 1 else 0, mu[i], from_left[i], from_right[i], gains, inverses,
                                  scratch[i])


@kernel
def factor_window(diagonal, off_diagonal, first, last, offset, shared_left, shared_right, mu, from_left, from_right, gains,
                  inverses, scratch):
    n = size_of(diagonal)
    for t in range(first, last):
        at = offset + t - first
        inverse = inverses[at]
        copy_matrix(inverse, diagonal[t])
        if t < first + shared_left or t >= last - shared_right:
            for j in range(n):
                inverse[j, j] += mu
        if t == first:
            add_matrix(inverse, from_left)
        else:
            product(gains[at], off_diagonal[t - 1], inverses[at - 1], True)
            product(scratch, gains[at], off_diagonal[t - 1], False)
            subtract_matrix(inverse, scratch)
        if t == last - 1:
            add_matrix(inverse, from_right)
        if not invert(inverse, smallest_pivot(diagonal[t])):
            return t
    return -1


@kernel(parallel=True)
def solve(chosen, off_diagonal, diagonal, rhs, first, last, offset, overlap, mu, split, gains, inverses,
          from_left, from_right, scratch, copies, change, length):
    """The local problems of the chosen windows, from their inboxes; the squared norms of what changed and of the copies."""
    n = size_of(rhs)
    for number in prange(chosen.size):
        i = chosen[np.int64(number)]
        begin, end = offset[i], offset[i] + last[i] - first[i]
        u = scratch[begin + i:end + i + 1]  # one row more than the window
        for t in range(first[i], last[i]):
            for j in range(n):
                u[t - first[i], j] = rhs[t, j]
        add_messages(off_diagonal, diagonal, first[i], last[i], overlap if i > 0 else 0,
                     overlap if i < first.size - 1 else 0, mu[i], split, from_left[i], from_right[i], u)
        change[i], length[i] = substitute(gains[begin:end], inverses[begin:end], u, copies[begin:end])


@kernel
def add_messages(off_diagonal, diagonal, first, last, shared_left, shared_right, mu, split, from_left, from_right, u):
    """Add to the right side what the neighbours sent: a vector for each end and their values on the overlaps."""
    for j in range(size_of(u)):
        u[0, j] += from_left[0, j]
        u[last - first - 1, j] += from_right[0, j]
    if mu > 0.0 or split:
        for k in range(shared_left):
            add_overlap(off_diagonal, diagonal, first, last, first + k, mu, split, from_left[1 + k], u)
        for k in range(shared_right):
            add_overlap(off_diagonal, diagonal, first, last, last - shared_right + k, mu, split, from_right[1 + k], u)


@kernel
def add_overlap(off_diagonal, diagonal, first, last, t, mu, split, value, u):
    """mu x_j of one step of the overlap; in the split formulation also minus its column of N."""
    n = size_of(diagonal)
    at = t - first
    for j in range(n):
        u[at, j] += mu * value[j]
    if split:
        add_times(u[at], -1.0, diagonal[t], value)
        if t > first:
            add_times(u[at - 1], -1.0, off_diagonal[t - 1], value)
        if t < last - 1:
            add_transposed_times(u[at + 1], -1.0, off_diagonal[t], value)


@kernel(reassociate=True)
def substitute(gains, inverses, u, x):
    """Forward and backward substitution; x is replaced, the squared norms of its change and of itself are returned."""
    n = size_of(x)
    steps = x.shape[0]
    for t in range(1, steps):
        add_times(u[t], -1.0, gains[t], u[t - 1])
    new = u[steps]
    change = length = 0.0
    for t in range(steps - 1, -1, -1):
        set_zero(new)
        add_times(new, 1.0, inverses[t], u[t])
        if t < steps - 1:
            add_transposed_times(new, -1.0, gains[t + 1], x[t + 1])
        for i in range(n):
            change += (new[i] - x[t, i]) ** 2
            length += new[i] ** 2
            x[t, i] = new[i]
    return change, length


@kernel(parallel=True)
def correct(chosen, off_diagonal, diagonal, first, last, offset, overlap, mu, split, gains, inverses, from_left, from_right,
            scratch, copies, change, length):
    """The same for inboxes that changed by so much: only the steps that a change at the ends reaches are visited.

    ``length`` is updated. Corrections below rounding of the window's root mean square are dropped.
    """
    for number in prange(chosen.size):
        i = chosen[np.int64(number)]
        begin, steps = offset[i], last[i] - first[i]
        u = scratch[begin + i:begin + i + steps + 1]
        reach = min(steps, overlap + 1) if mu[i] > 0.0 or split else 1  # rows that messages touch at each end
        for t in range(reach):
            set_zero(u[t])
            set_zero(u[steps - 1 - t])
        add_messages(off_diagonal, diagonal, first[i], last[i], overlap if i > 0 else 0,
                     overlap if i < first.size - 1 else 0, mu[i], split, from_left[i], from_right[i], u)
        smallest = np.finfo(copies.dtype).eps / 16 * np.sqrt(length[i] / steps)
        change[i], growth = substitute_ends(gains[begin:begin + steps], inverses[begin:begin + steps], u,
                                            copies[begin:begin + steps], reach, smallest)
        length[i] += growth


@kernel(reassociate=True)
def substitute_ends(gains, inverses, u, x, reach, smallest):
    """Forward and backward substitution for a right side that is zero but for ``reach`` rows at each end; x is corrected."""
    n = size_of(x)
    steps = x.shape[0]
    tail = steps - reach
    head = 0  # rows of u before it are what came from the left; S^-1 u is what they mean for x
    while head < steps and (head < reach or head >= tail or largest(u[head - 1]) * trace(inverses[head - 1]) > smallest):
        if reach <= head < tail:
            set_zero(u[head])
        if head > 0:
            add_times(u[head], -1.0, gains[head], u[head - 1])
        head += 1
    for t in range(max(head, tail + 1), steps):
        add_times(u[t], -1.0, gains[t], u[t - 1])
    new = u[steps]
    change = growth = 0.0
    t = steps - 1
    follow = False  # whether the step after t was corrected
    while t >= 0:
        set_zero(new)
        if t < head or t >= tail:
            add_times(new, 1.0, inverses[t], u[t])
        if follow:
            add_transposed_times(new, -1.0, gains[t + 1], u[t + 1])
        for i in range(n):
            change += new[i] ** 2
            growth += (x[t, i] + new[i]) ** 2 - x[t, i] ** 2
            x[t, i] += new[i]
            u[t, i] = new[i]
        follow = t < head or t >= tail or largest(new) > smallest
        t = t - 1 if follow else min(t, head) - 1
    return change, growth


@kernel(parallel=True)
def post(chosen, off_diagonal, first, last, offset, overlap, values, for_left, for_right, copies, to_left, to_right):
    """The messages of the chosen windows: for each side what the first row there lacks, then the values on the overlap.

    ``for_left[i]`` and ``for_right[i]`` are the transmission matrices of the neighbours' ends.
    """
    for number in prange(chosen.size):
        i = chosen[np.int64(number)]
        x = copies[offset[i]:offset[i] + last[i] - first[i]]
        if i > 0:  # the neighbour's last step is ``overlap - 1`` here
            message(off_diagonal[first[i] + overlap - 1], False, x, overlap, overlap - 1, overlap, for_left[i], to_left[i, 0])
            for k in range(overlap if values else 0):
                copy_vector(to_left[i, 1 + k], x[k])
        if i < first.size - 1:
            begin = x.shape[0] - overlap  # where the neighbour begins
            message(off_diagonal[last[i] - overlap - 1], True, x, begin - 1, begin, overlap, for_right[i], to_right[i, 0])
            for k in range(overlap if values else 0):
                copy_vector(to_right[i, 1 + k], x[begin + k])


@inline
def message(coupling, transposed, x, beyond, end, overlap, transmission, out):
    """D x_end - N x_beyond for the row at the neighbour's end; without an overlap there is no x_end here, and D is zero."""
    set_zero(out)
    if transposed:
        add_transposed_times(out, -1.0, coupling, x[beyond])
    else:
        add_times(out, -1.0, coupling, x[beyond])
    if overlap > 0:
        add_times(out, 1.0, transmission, x[end])


@kernel(parallel=True)
def transmit(diagonal, off_diagonal, first, last, overlap, from_left, from_right, to_left, to_right, scratch, failed):
    """One sweep of Schur complements: each window eliminates what its neighbour does not hold, and sends what is left.

    The matrix for the neighbour's end is -N S^-1 N^T with S the last pivot of the elimination; it begins with the matrix
    that came from the other side.
    """
    for number in prange(first.size):
        i = np.int64(number)
        failed[i] = -1
        if i > 0:
            failed[i] = eliminate(diagonal, off_diagonal, last[i] - 1, first[i] + overlap - 1, -1, from_right[i], to_left[i],
                                  scratch[i, 0], scratch[i, 1])
        if i < first.size - 1 and failed[i] < 0:
            failed[i] = eliminate(diagonal, off_diagonal, first[i], last[i] - overlap, 1, from_left[i], to_right[i],
                                  scratch[i, 0], scratch[i, 1])


@kernel
def eliminate(diagonal, off_diagonal, begin, end, step, incoming, out, pivot, gain):
    """The steps from ``begin`` up to ``end``, which remains, in the direction of ``step``."""
    copy_matrix(out, incoming)
    for t in range(begin, end, step):
        copy_matrix(pivot, diagonal[t])
        add_matrix(pivot, out)
        if not invert(pivot, smallest_pivot(diagonal[t])):
            return t
        complement(out, off_diagonal[t - 1] if step < 0 else off_diagonal[t], step < 0, pivot, gain)
    return -1


@inline
def complement(out, coupling, backward, inverse, gain):
    """out <- -N S^-1 N^T for the step before (N = N_{t-1,t}), or -N^T S^-1 N for the step after (N = N_{t,t+1})."""
    n = size_of(coupling)
    product(gain, coupling, inverse, not backward)
    for i in range(n):
        for j in range(n):
            out[i, j] = 0.0
        for k in range(n):
            factor = gain[i, k]
            for j in range(n):
                out[i, j] -= factor * (coupling[j, k] if backward else coupling[k, j])


@kernel(parallel=True)
def residual(diagonal, off_diagonal, rhs, g, out):
    """f - N g, in chunks of time."""
    steps = g.shape[0]
    n = size_of(g)
    for number in prange((steps + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        for t in range(chunk * CHUNK, min(steps, (chunk + 1) * CHUNK)):
            for j in range(n):
                out[t, j] = rhs[t, j]
            add_times(out[t], -1.0, diagonal[t], g[t])
            if t < steps - 1:
                add_times(out[t], -1.0, off_diagonal[t], g[t + 1])
            if t > 0:
                add_transposed_times(out[t], -1.0, off_diagonal[t - 1], g[t - 1])
