"""The adjoint recurrence of cells whose weights do not fit the registers of a block: they stream from memory every step."""

import numpy as np

from pitsolve.backends.cuda.back_substitution import (
    BEFORE,
    CARRY,
    CHANGE,
    COLUMNS,
    INCOMING,
    KEEP,
    LAMBDA,
    SEATS,
    SIZE,
    fetch,
    without_weights,
)
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.preactivations import GATES, PARTS, REAL, ROWS, THREADS, UNITS, gates, pulled, read_gates
from pitsolve.compile import constant, kernel

TEAMS = constant("TEAMS")  # THREADS / UNITS: threads that share the products of a unit
SHARES = constant("SHARES")  # SEATS THREADS


@kernel
def pull(rows, states, previous, weight, ratio, before, after, row_origin, origin, begin, length, steps, row, first, last,
         number, windows, starts, out, ends, slopes):
    """As :func:`pitsolve.backends.cuda.back_substitution.pull`, to the first step of every window however small c becomes.

    c is kept in ``ends``, v = du lambda in ``slopes``. A block takes SEATS windows at a time, so that a weight that has come
    from memory serves all of them. First a thread evaluates the gates of one unit and window. Then a thread is one of UNITS
    units and one of TEAMS; a warp reads weights of neighbouring units and multiplies them by the same numbers; the shares of
    the teams meet in shared memory, in order.
    """
    shares = cuda.shared.array(SHARES, REAL)
    incoming = cuda.local.array(INCOMING, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)
    s = cuda.local.array(PARTS, REAL)
    total = cuda.local.array(PARTS, REAL)
    sums = cuda.local.array(SEATS, REAL)
    thread = cuda.threadIdx.x
    lane, team = thread % UNITS, thread // UNITS
    board = np.int64(cuda.blockIdx.x) * (SEATS * GATES * SIZE)
    for group in range(cuda.blockIdx.x, (windows + SEATS - 1) // SEATS, cuda.gridDim.x):
        longest = 0
        for w in range(group * SEATS, min(group * SEATS + SEATS, windows)):
            longest = max(longest, last[w] - first[w])
            for e in range(thread, PARTS * SIZE, THREADS):
                ends[np.int64(number[w]) * (PARTS * SIZE) + e] = starts[np.int64(number[w]) * (PARTS * SIZE) + e]
        cuda.syncthreads()
        for step in range(longest):
            for e in range(thread, SEATS * SIZE, THREADS):
                seat, i = e // SIZE, e % SIZE
                w = min(group * SEATS + seat, windows - 1)
                t = last[w] - 1 - step
                here = group * SEATS + seat < windows and t >= first[w]
                if here:
                    fetch(rows, states, previous, before, after, row[w], t, i, row_origin, origin, begin, length, steps, here,
                          incoming)
                    read_gates(incoming, 0, 1, p, u)
                    at_ends = np.int64(number[w]) * (PARTS * SIZE) + i
                    at = (np.int64(row[w]) * length + t - begin) * (PARTS * SIZE) + i
                    for a in range(PARTS):
                        s[a] = incoming[ROWS + a]
                        total[a] = ends[at_ends + a * SIZE]
                        if BEFORE:
                            total[a] += incoming[ROWS + PARTS + a]
                        if KEEP == LAMBDA:
                            out[at + a * SIZE] = total[a]
                        if KEEP == CHANGE:
                            out[at + a * SIZE] += total[a]
                    _, _, du, ds = gates(p, u, s, ratio)
                    for a in range(PARTS):
                        ends[at_ends + a * SIZE] = without_weights(ds, total, incoming, a)
                    for k in range(GATES):
                        slopes[board + (seat * GATES + k) * SIZE + i] = pulled(du, total, k)
                else:
                    for k in range(GATES):
                        slopes[board + (seat * GATES + k) * SIZE + i] = 0.0
            cuda.syncthreads()
            for first_unit in range(0, SIZE, UNITS):
                i = first_unit + lane
                head = i // COLUMNS * COLUMNS
                for q in range(SEATS):
                    sums[q] = REAL(0)
                if i < SIZE:
                    for j in range(team, GATES * COLUMNS, TEAMS):
                        k = j // COLUMNS
                        at_unit = k * SIZE + head + j - k * COLUMNS
                        value = weight[at_unit * COLUMNS + i - head]
                        for q in range(SEATS):
                            sums[q] += value * slopes[board + q * (GATES * SIZE) + at_unit]
                for q in range(SEATS):
                    shares[(q * TEAMS + team) * UNITS + lane] = sums[q]
                cuda.syncthreads()
                for e in range(thread, SEATS * UNITS, THREADS):
                    seat, i = e // UNITS, first_unit + e % UNITS
                    w = min(group * SEATS + seat, windows - 1)
                    t = last[w] - 1 - step
                    if i < SIZE and group * SEATS + seat < windows and t >= first[w]:
                        at_ends = np.int64(number[w]) * (PARTS * SIZE) + i
                        share = shares[seat * TEAMS * UNITS + e % UNITS]
                        for q in range(1, TEAMS):
                            share += shares[(seat * TEAMS + q) * UNITS + e % UNITS]
                        ends[at_ends] += share
                        if KEEP == CARRY and t > first[w]:
                            at = (np.int64(row[w]) * length + t - begin) * (PARTS * SIZE) + i
                            for a in range(PARTS):
                                out[at + a * SIZE] = ends[at_ends + a * SIZE]
                cuda.syncthreads()
