"""Backward kernels of gated cells over windows of time, one window a lane: c_{t-1} = J_t^T lambda_t, lambda_t = c_t + g_t.

The ring of slots is that of the forward kernels. Gates and their derivatives are evaluated again from the stored states, which
costs less than to keep them. A second ring holds c: the step of slot j reads c from place j + 1 and writes it to place j.
"""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.products import tile
from pitsolve.backends.cpu.simd import load, store
from pitsolve.backends.cpu.tuples import add, contract, highest, larger_ratio
from pitsolve.backends.cpu.windows import (
    ADDED,
    COUNT,
    GATES,
    HERE,
    INPUT,
    LANES,
    PARTS,
    ROW,
    ROWS,
    STATES,
    VECTORS,
    X,
    gates,
    limit,
    move_in,
    move_out,
    prepare_lanes,
    prepare_ring,
    products,
    slot_size,
)
from pitsolve.backends.cpu.windows_gradient import add_up, multiply_batch, pack_rows, pull_inputs
from pitsolve.compile import constant, inline, kernel

ACCUMULATE = constant("ACCUMULATE")  # sum the parameter gradients and write dL/dx, in place of writing c

NONE, BEFORE, AFTER = 0, 1, 2  # the mode of g: no g, g added to c before the pull, or after it
CARRY, STATE, INPUT_GRADIENT, CARRIES = 0, 3, 4, 5  # rows of the table of places, besides INPUT and ADDED
PREVIOUS = 5  # row of the index arrays: offset of the state before the window
PIECE = 128  # steps summed in the working precision before they are added to a float64 total


@kernel(parallel=True)
def pull(x, states, previous, carries, starts, mode, source, weight, to_hidden, to_input, ratio, row, first, last, block,
         places, index, rings, sums, rings_c, gate, dx, pulled, batch, packed, partial, totals, biases, tolerance, ends):
    """From ``starts``, c at the end of every window, to ``ends``, c before its first step.

    Without ``ACCUMULATE``, c of every step but the first one is written to ``carries``. With it, the parameter gradients are
    added to ``totals`` and ``biases`` of the task, and dL/dx is written. Without g as well, it is added to what is there, and a
    task stops where c has fallen below ``tolerance``.
    """
    for number in prange(rings.shape[0]):
        pull_task(x, states, previous, carries, starts, mode, source, weight, to_hidden, to_input, ratio, row, first, last,
                  block, places, index, rings, sums, rings_c, gate, dx, pulled, batch, packed, partial, totals, biases,
                  tolerance, ends, np.int64(number))


@kernel
def pull_task(x, states, previous, carries, starts, mode, source, weight, to_hidden, to_input, ratio, row, first, last, block,
              places, indices, rings, all_sums, rings_c, gates_c, dx, all_pulled, batches, all_packed, partials, all_totals,
              all_biases, tolerance, ends, task):
    index, ring, sums, ring_c, gate = indices[task], rings[task], all_sums[task], rings_c[task], gates_c[task]
    pulled, batch, packed, partial = all_pulled[task], batches[task], all_packed[task], partials[task]
    totals, biases = all_totals[task], all_biases[task]
    size = states.shape[2]
    m = x.shape[2]
    units = weight.shape[0] * ROWS
    slot = slot_size(units, m)
    slot_c = (PARTS * units + 1) * LANES * VECTORS
    most = batch.shape[1] // (LANES * VECTORS)  # steps of one batch of outer products
    longest = prepare_lanes(states, m, row, first, last, index, task)
    shortest = longest
    for lane in range(LANES * VECTORS):
        index[PREVIOUS, lane] = index[STATES, lane] - size
        if index[COUNT, lane] >= 0:
            shortest = min(shortest, index[COUNT, lane])
        index[HERE, lane] = size if index[COUNT, lane] == longest else 0
    prepare_ring(ring, min(block, longest) + 1, (block + 1) * slot, slot, units, m, size // PARTS)
    clear(sums)
    clear(ring_c)
    clear(gate)
    clear(batch)
    clear(partial)
    t = (max(longest, 1) - 1) // block * block
    move_in(starts, index[ROW], 0, index[HERE], ring_c, places[CARRY], size, (longest - t) * slot_c)
    waiting = np.int64(0)  # a literal would compile what receives it once more
    summed = 0
    done = False
    while longest > 0 and t >= 0 and not done:
        now = min(block, longest - t)
        load_block(x, states, previous, mode, source, row, first, task, t, now, block, places, index, ring, slot, units)
        if ACCUMULATE:
            load_input_gradient(dx, mode, t, now, m, places, index, pulled)
        for j in range(now - 1, -1, -1):
            begin_windows(index, t + j + 1, longest, starts, size, units, ring_c, (j + 1) * slot_c, task)
            pull_step(weight, to_hidden, ratio, mode, ring, block, j * slot, slot, units, m, size // PARTS, sums, ring_c,
                      j * slot_c, slot_c, gate, batch, waiting)
            if ACCUMULATE:
                pull_inputs(to_input, gate, units, pulled, j)
                pack_rows(x, states, previous, row, first, task, index, t + j, size // PARTS, packed, most, waiting)
                waiting += 1
                if waiting == most:
                    multiply_batch(batch, packed, waiting, units, m, size // PARTS, partial, biases)
                    waiting = 0
                summed += 1
                if summed == PIECE:
                    multiply_batch(batch, packed, waiting, units, m, size // PARTS, partial, biases)
                    waiting = 0
                    add_up(partial, totals)
                    summed = 0
        if ACCUMULATE:
            limit(index, m, t + now, 0)
            move_out(dx, index[X], t * m, index[HERE], pulled, places[INPUT_GRADIENT], now * m, 0)
        else:
            limit(index, size, t + now, 0)
            leave_out = size if t == 0 else 0  # c of the first step goes to ``ends`` only
            move_out(carries, index[STATES], t * size + leave_out, index[HERE], ring_c, places[CARRIES, leave_out:],
                     now * size - leave_out, 0)
        if ACCUMULATE and mode == NONE:
            done = t < shortest and largest(ring_c, slot_c) <= tolerance
        for i in range(0, slot_c, LANES):
            store(ring_c, block * slot_c + i, 0, LANES, load(ring_c, i, 0, LANES, 1, LANES))
        t -= block
    if ACCUMULATE:
        multiply_batch(batch, packed, waiting, units, m, size // PARTS, partial, biases)
        add_up(partial, totals)
    if longest == 0:
        for i in range(0, slot_c, LANES):
            store(ring_c, block * slot_c + i, 0, LANES, load(ring_c, i, 0, LANES, 1, LANES))
    for lane in range(LANES * VECTORS):
        index[HERE, lane] = size if index[COUNT, lane] >= 0 else 0
    if done:
        clear(ring_c)
    move_out(ends, index[ROW], 0, index[HERE], ring_c, places[CARRY], size, block * slot_c)


@inline
def clear(array):
    array[...] = 0.0


@kernel
def largest(ring_c, count):
    """max |c| over the first place of the ring."""
    zero = load(ring_c, 0, 0, 0, 1, LANES)
    total = zero
    for i in range(0, count, LANES):
        total = larger_ratio(total, load(ring_c, i, 0, LANES, 1, LANES), zero)
    return highest(total)


@kernel
def load_block(x, states, previous, mode, source, row, first, task, t, now, block, places, index, ring, slot, units):
    """Inputs, the states before every step, and g."""
    m = x.shape[2]
    size = states.shape[2]
    width = LANES * VECTORS
    limit(index, m, t + now, 0)
    move_in(x, index[X], t * m, index[HERE], ring, places[INPUT], now * m, 0)
    limit(index, size, t + now, 0)
    if mode != NONE:
        move_in(source, index[STATES], t * size, index[HERE], ring, places[ADDED], now * size, 0)
    for lane in range(width):
        if t == 0 and task * width + lane < row.size and first[task * width + lane] == 0:
            index[HERE, lane] = 0  # the state before the first step is not in memory before the others
    move_in(states, index[PREVIOUS], t * size, index[HERE], ring, places[STATE], now * size, 0)
    for lane in range(width):
        w = task * width + lane
        if t == 0 and w < row.size and first[w] == 0:
            for e in range(min(now, index[COUNT, lane]) * size):
                j, i = e // size, e % size
                ring[places[STATE, e] + lane] = previous[row[w], i] if j == 0 else states[row[w], j - 1, i]


@kernel
def load_input_gradient(dx, mode, t, now, m, places, index, pulled):
    """dL/dx of the block so far: what an earlier sweep found, or zero."""
    clear(pulled)
    if mode == NONE:
        limit(index, m, t + now, 0)
        move_in(dx, index[X], t * m, index[HERE], pulled, places[INPUT_GRADIENT], now * m, 0)


@kernel
def begin_windows(index, end, longest, starts, size, units, ring_c, at, task):
    """c of the windows that end at step ``end``; the longest ones have theirs."""
    width = LANES * VECTORS
    if end < longest:
        for lane in range(width):
            if index[COUNT, lane] == end:
                for e in range(size):
                    n = size // PARTS
                    ring_c[at + (e // n * units + e % n) * width + lane] = starts[task * width + lane, e]


@kernel
def pull_step(weight, to_hidden, ratio, mode, ring, block, at, slot, units, m, n, sums, ring_c, to, slot_c, gate, batch,
              waiting):
    """One step back of all windows of a task. ``gate`` receives dL/du and dL/dp of every gate, ``batch`` a copy."""
    width = LANES * VECTORS
    part = (units + m + 1) * width
    zero = (block + 1) * slot
    row = batch.shape[1]
    for q in range(weight.shape[0]):
        products(weight, q, ring, at, zero, units, m, sums)
        for r in range(min(ROWS, n - q * ROWS)):
            i = q * ROWS + r
            for v in range(0, width, LANES):
                here = i * width + v
                p = load(sums, r * width + v, ROWS * width, LANES, GATES, LANES)
                u = load(sums, (GATES * ROWS + r) * width + v, ROWS * width, LANES, GATES, LANES)
                s = load(ring, at + width + here, part, LANES, PARTS, LANES)
                _, dp, du, ds = gates(p, u, s, ratio)
                c = load(ring_c, to + slot_c + here, units * width, LANES, PARTS, LANES)
                g = at + width + PARTS * part + here
                if mode == BEFORE:
                    c = add(c, load(ring, g, units * width, LANES, PARTS, LANES))
                own = contract(ds, c)
                if mode == AFTER:
                    own = add(own, load(ring, g, units * width, LANES, PARTS, LANES))
                store(ring_c, to + here, units * width, LANES, own)
                by_u = contract(du, c)
                store(gate, here, units * width, LANES, by_u)
                if ACCUMULATE:
                    by_p = contract(dp, c)
                    store(gate, GATES * units * width + here, units * width, LANES, by_p)
                    copy = i * row + waiting * width + v
                    store(batch, copy, units * row, LANES, by_u)
                    store(batch, GATES * units * row + copy, units * row, LANES, by_p)
    for q in range(to_hidden.shape[0]):
        out = to + q * ROWS * width
        tile(to_hidden, q * GATES * units * ROWS, 1, ROWS, gate, 0, GATES * units, ring_c, out, width, ring_c, out, width,
             ROWS, VECTORS, 1, LANES)
