"""Forward kernels of gated cells over windows of time: one window a lane, so that all windows advance in lockstep.

A matrix-vector product of one window is bound by the latency of the recurrence; over the lanes it is a matrix-matrix
product, bound by throughput. A task holds ``LANES * VECTORS`` windows in a ring of slots, one slot a step. The rows of a
slot, each a number for every window, are

    1, h (units), x (m), 1, then c (units) and so on for further parts, then the source g of every part, then one unused,

so that one tile multiplies [bias_hh, W_hh, W_ih, bias_ih] by consecutive rows. A step reads slot j and writes the new state
into slot j + 1; after a block of steps, whole squares of states leave for memory and of inputs come in.
"""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.lanes import gather, mismatch, scatter
from pitsolve.backends.cpu.products import tile
from pitsolve.backends.cpu.simd import load, store
from pitsolve.backends.cpu.tuples import add, highest
from pitsolve.compile import constant, inline, kernel

GATES = constant("GATES")
PARTS = constant("PARTS")
SUMMED = constant("SUMMED")  # of the first gates only p + u is needed: one product in place of two
LANES = constant("LANES")
VECTORS = constant("VECTORS")
ROWS = constant("ROWS")  # units of one tile
gates = constant("gates")

X, STATES, ROW, COUNT, HERE = range(5)  # rows of the index arrays: offsets of lanes, then numbers available
START, INPUT, ADDED, OUT = 0, 1, 2, 3  # rows of the table of places in the ring


@kernel(parallel=True)
def sweep(x, states, starts, sourced, source, weight, ratio, row, first, last, block, places, index, rings, sums, tolerance,
          ends, steps, differences):
    """h_t = f(h_{t-1}, x_t) + g_t through every window, from its row of ``starts``; the last state goes to ``ends`` only.

    g is ``source`` (B, T, S) if ``sourced``, else zero. With a ``tolerance`` of zero or more, a task stops before the first
    block whose states all agree with the stored ones within it. ``steps`` receives how far each task went, ``differences`` the
    largest difference in the block that agreed, or zero.
    """
    for number in prange(rings.shape[0]):
        sweep_task(x, states, starts, sourced, source, weight, ratio, row, first, last, block, places, index, rings, sums,
                   tolerance, ends, steps, differences, np.int64(number))


@kernel
def sweep_task(x, states, starts, sourced, source, weight, ratio, row, first, last, block, places, indices, rings, all_sums,
               tolerance, ends, steps, differences, task):
    index, ring, sums = indices[task], rings[task], all_sums[task]
    size = states.shape[2]
    m = x.shape[2]
    units = weight.shape[0] * ROWS
    slot = slot_size(units, m)
    longest = prepare_lanes(states, m, row, first, last, index, task)
    prepare_ring(ring, min(block, longest) + 1, (block + 1) * slot, slot, units, m, size // PARTS)
    prepare_sums(sums)
    limit_ending(index, 0, size, True)
    move_in(starts, index[ROW], 0, index[HERE], ring, places[START], size, 0)
    finish(index, 0, size, ends, ring, places[START], 0)
    t = 0
    merged = False
    while t < longest and not merged:
        now = min(block, longest - t)
        limit(index, m, t + now, 0)
        move_in(x, index[X], t * m, index[HERE], ring, places[INPUT], now * m, 0)
        if sourced:
            limit(index, size, t + now, 0)
            move_in(source, index[STATES], t * size, index[HERE], ring, places[ADDED], now * size, 0)
        for j in range(now):
            advance(weight, ratio, sourced, ring, block, j * slot, slot, units, m, size // PARTS, sums)
        if tolerance >= 0.0:
            limit(index, size, t + now, 0)
            difference = largest_mismatch(states, index[STATES], t * size, index[HERE], ring, places[OUT], now * size)
            merged = difference <= tolerance
            differences[task] = difference if merged else 0.0
        if not merged:
            for j in range(1, now + 1):
                finish(index, t + j, size, ends, ring, places[START], j * slot)
            limit(index, size, t + now, 1)
            move_out(states, index[STATES], t * size, index[HERE], ring, places[OUT], now * size, 0)
            carry_over(ring, now * slot, units, m)
        t += now
    steps[task] = t


@inline
def slot_size(units, m):
    return (2 + PARTS * (2 * units + m + 1)) * LANES * VECTORS


@kernel
def prepare_lanes(states, m, row, first, last, index, task):
    """Offsets and sizes of the rows of every lane, -1 for a lane without a window. Returns the longest window."""
    _, length, size = states.shape
    longest = 0
    for lane in range(LANES * VECTORS):
        w = task * LANES * VECTORS + lane
        index[X, lane] = 0
        index[STATES, lane] = 0
        index[ROW, lane] = w * size
        index[COUNT, lane] = -1
        if w < row.size:
            at = row[w] * length + first[w]
            index[X, lane] = at * m
            index[STATES, lane] = at * size
            index[COUNT, lane] = last[w] - first[w]
            longest = max(longest, last[w] - first[w])
    return longest


@kernel
def prepare_ring(ring, slots, zero, slot, units, m, n):
    """Ones that multiply the biases, zeros in the rows that pad the states and in the row that starts every product."""
    width = LANES * VECTORS
    ring[zero:zero + width] = 0.0
    for j in range(slots):
        at = j * slot
        ring[at:at + width] = 1.0
        ring[at + (units + 1 + m) * width:at + (units + 2 + m) * width] = 1.0
        for part in range(PARTS):
            pad = at + (1 + part * (units + m + 1)) * width
            ring[pad + n * width:pad + units * width] = 0.0


@inline
def prepare_sums(sums):
    """Where p + u is enough, it stands in place of p, and u stays zero."""
    for i in range(sums.size):
        sums[i] = 0.0


@kernel
def limit(index, factor, end, spared):
    """Numbers available before step ``end`` of every window, ``factor`` a step, without the last ``spared`` steps."""
    for lane in range(LANES * VECTORS):
        index[HERE, lane] = min(index[COUNT, lane] - spared, end) * factor


@kernel
def limit_ending(index, t, size, everyone):
    """The whole row for windows that end after step t (or for all windows), nothing for the others; whether there are any."""
    found = False
    for lane in range(LANES * VECTORS):
        ending = index[COUNT, lane] == t or (everyone and index[COUNT, lane] >= 0)
        index[HERE, lane] = size if ending else 0
        found = found or ending
    return found


@inline
def finish(index, t, size, ends, ring, places, shift):
    """The states of windows that end after step t go to ``ends``."""
    if limit_ending(index, t, size, False):
        move_out(ends, index[ROW], 0, index[HERE], ring, places, size, shift)


@kernel
def move_in(array, offsets, begin, available, ring, places, count, shift):
    """``count`` numbers of every window, from number ``begin`` on, into their places of the ring."""
    for lane in range(0, LANES * VECTORS, LANES):
        for e in range(0, count, LANES):
            gather(array, offsets, lane, begin + e, available, lane, ring, places, e, shift + lane, LANES)


@kernel
def move_out(array, offsets, begin, available, ring, places, count, shift):
    """The inverse of :func:`move_in`."""
    for lane in range(0, LANES * VECTORS, LANES):
        for e in range(0, count, LANES):
            scatter(array, offsets, lane, begin + e, available, lane, ring, places, e, shift + lane, LANES)


@kernel
def largest_mismatch(array, offsets, begin, available, ring, places, count):
    """The largest relative difference between what :func:`move_out` would write and what is there."""
    largest = load(ring, 0, 0, 0, 1, LANES)
    for lane in range(0, LANES * VECTORS, LANES):
        for e in range(0, count, LANES):
            largest = mismatch(array, offsets, lane, begin + e, available, lane, ring, places, e, lane, largest)
    return highest(largest)


@inline
def carry_over(ring, shift, units, m):
    """The last state of a block becomes the first one of the next."""
    width = LANES * VECTORS
    for part in range(PARTS):
        at = (1 + part * (units + m + 1)) * width
        for i in range(at, at + units * width, LANES):
            store(ring, i, 0, LANES, load(ring, shift + i, 0, LANES, 1, LANES))


@inline
def products(weight, q, ring, at, zero, units, m, sums):
    """p and u of one block of units: where only the sum counts, one product over the state and the inputs."""
    width = LANES * VECTORS
    length = units + m + 2
    hidden = units + 1
    for k in range(GATES):
        a = (q * GATES + k) * length * ROWS
        if k < SUMMED:
            tile(weight, a, 1, ROWS, ring, at, length, ring, zero, 0, sums, k * ROWS * width, width, ROWS, VECTORS, 1, LANES)
        else:
            tile(weight, a, 1, ROWS, ring, at, hidden, ring, zero, 0, sums, (GATES + k) * ROWS * width, width,
                 ROWS, VECTORS, 1, LANES)
            tile(weight, a + hidden * ROWS, 1, ROWS, ring, at + hidden * width, m + 1, ring, zero, 0, sums, k * ROWS * width,
                 width, ROWS, VECTORS, 1, LANES)


@kernel
def advance(weight, ratio, sourced, ring, block, at, slot, units, m, n, sums):
    """One step of all windows of a task, from slot to slot."""
    width = LANES * VECTORS
    part = (units + m + 1) * width
    zero = (block + 1) * slot
    for q in range(weight.shape[0]):
        products(weight, q, ring, at, zero, units, m, sums)
        for r in range(min(ROWS, n - q * ROWS)):
            i = q * ROWS + r
            for v in range(0, width, LANES):
                here = at + (1 + i) * width + v
                p = load(sums, r * width + v, ROWS * width, LANES, GATES, LANES)
                u = load(sums, (GATES * ROWS + r) * width + v, ROWS * width, LANES, GATES, LANES)
                s = load(ring, here, part, LANES, PARTS, LANES)
                new = gates(p, u, s, ratio)[0]
                if sourced:
                    new = add(new, load(ring, at + (1 + i) * width + PARTS * part + v, units * width, LANES, PARTS, LANES))
                store(ring, here + slot, part, LANES, new)

