"""A Newton iteration in one pass over memory, for units that see only themselves: one unit, or heads of one unit.

The tiles are those of the diagonal scan: a thread holds a strand of ``DEPTH`` steps in registers. It reads the states and what
drives the gates, evaluates f and its derivative in place of loading a matrix, composes the corrections of its strand, gets the
correction before it from look_back.py and writes the new states where the old ones were. The state before a tile is the last of
another tile, which may be done already: tiles pass on their last states through ``entries`` and ``exits``, which change their
roles with every iteration.
"""

import math

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4, store4
from pitsolve.backends.cuda.iterates import NEVER, largest, relative, repaired, write_record
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.look_back import publish_state, quotient, strand_states, take_number, tile_state
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
GATES = constant("GATES")
INPUTS = constant("INPUTS")  # numbers of x that the time kernel multiplies itself; 0 if their products are in memory
DRIVERS = constant("DRIVERS")  # numbers a step that drive the gates: INPUTS, or GATES
CHANNELS = constant("CHANNELS")  # of a tile
PER_THREAD = constant("PER_THREAD")  # channels of a thread: 4, which are one load, or 1
ACROSS = constant("ACROSS")  # threads side by side: CHANNELS / PER_THREAD
OWN = constant("OWN")  # GATES x PER_THREAD
DEPTH = constant("DEPTH")  # steps of a thread
HELD = constant("HELD")  # DEPTH x PER_THREAD
STEPS = constant("STEPS")  # of a tile
gates = constant("gates")


@kernel
def enter(h0, states, entries, steps, n, rows, tiles):
    """The states before all tiles, for the first iteration; a thread copies one."""
    number = cuda.grid(1)
    if number < tiles * rows * CHANNELS:
        place = quotient(number, CHANNELS)
        tile = quotient(place, rows)
        row = place - tile * rows
        parts = quotient(n + CHANNELS - 1, CHANNELS)
        b = quotient(row, parts)
        column = (row - b * parts) * CHANNELS + number - place * CHANNELS
        before = first_step(tile, b, steps, n) - 1
        if column < n and before < steps:
            entries[number] = h0[b * n + column] if before < 0 else states[(np.int64(b) * steps + before) * n + column]


@inline
def first_step(tile, b, steps, n):
    """The first step of a tile. One channel: strands begin where 16-byte loads can, up to three steps before the sequence."""
    lead = np.int32((np.int64(b) * steps) & 3) if n == 1 else 0
    return max(tile * STEPS - lead, 0)


@inline
def gate_inputs(values, at, stride, input_weight, input_bias, p):
    """What enters the gates of one step: products with x that are in memory, or those of the few numbers of x."""
    for k in range(GATES):
        if INPUTS:
            p[k] = input_bias[k]
            for m in range(INPUTS):
                p[k] += input_weight[k * INPUTS + m] * values[at + m]
        else:
            p[k] = values[at + k * stride]


@inline
def linear_step(p, own, base, q, h, y, ratio, keep):
    """(J, d): derivative, times ``keep``, and defect of one unit at one step."""
    u = cuda.local.array(GATES, REAL)
    s = cuda.local.array(1, REAL)
    s[0] = h
    for k in range(GATES):
        u[k] = base[k * PER_THREAD + q] + own[k * PER_THREAD + q] * h
    new, _, by_u, by_s = gates(p, u, s, ratio)
    slope = by_s[0]
    for k in range(GATES):
        slope += by_u[k] * own[k * PER_THREAD + q]
    return keep * slope, new[0] - y


@inline
def append(a, c, at, factor, defect):
    """Compose one more step with those of the strand before it."""
    if at >= PER_THREAD:
        a[at], c[at] = factor * a[at - PER_THREAD], factor * c[at - PER_THREAD] + defect
    else:
        a[at], c[at] = factor, defect


@inline
def enters(words, ends, tile, row, rows, zeros, corner, valid, a, c, e):
    """The correction before this strand in ``e``; not 0 if the tile has to be walked, as `strand_states` has it."""
    map_a = cuda.local.array(PER_THREAD, REAL)
    map_c = cuda.local.array(PER_THREAD, REAL)
    for q in range(PER_THREAD):
        map_a[q], map_c[q] = a[HELD - PER_THREAD + q], c[HELD - PER_THREAD + q]
    spoilt = strand_states(words, ends, tile, row, rows, zeros, corner, valid, map_a, map_c, e)
    overflown = False
    for q in range(PER_THREAD):
        end = a[HELD - PER_THREAD + q] * e[q] + c[HELD - PER_THREAD + q]
        if math.isfinite(e[q]) and not math.isfinite(end):
            overflown = True
    return max(spoilt, np.int32(cuda.syncthreads_or(np.int32(overflown)) != 0))


@inline
def improve(y, a, c, e, t, low, high):
    """The new states of a strand in place of the old ones; the largest change."""
    largest_change = REAL(0)
    for r in range(DEPTH):
        if low <= t + r and t + r < high:
            for q in range(PER_THREAD):
                change = a[r * PER_THREAD + q] * e[q] + c[r * PER_THREAD + q]
                y[r * PER_THREAD + q] = repaired(y[r * PER_THREAD + q] + change)
                largest_change = largest(largest_change, relative(change, y[r * PER_THREAD + q]))
    return largest_change


@inline
def walk(values, at, column, stride, input_weight, input_bias, own, base, ratio, keep, states, h, e, t, low, high):
    """The steps [t, high) of one channel one after the other, from the state and the correction before them.

    ``at`` is the place of step t in the states. Returns the correction and the state after the last step, the largest change.
    """
    p = cuda.local.array(GATES, REAL)
    largest_change, last = REAL(0), h
    while t < high:
        old = states[at]
        last = old
        if low <= t:
            gate_inputs(values, (at - column) * DRIVERS + column, stride, input_weight, input_bias, p)
            factor, defect = linear_step(p, own, base, 0, h, old, ratio, keep)
            e = factor * e + defect
            last = repaired(old + e)
            states[at] = last
            largest_change = largest(largest_change, relative(e, last))
        h = old
        at += stride
        t += 1
    return e, last, largest_change


@inline
def load_channels(array, at, out, place):
    """PER_THREAD neighbours."""
    if PER_THREAD == 4:
        out[place], out[place + 1], out[place + 2], out[place + 3] = load4(array, at)
    else:
        out[place] = array[at]


@kernel
def iterate_channels(drive, own_weight, bias, ratio, keep, tolerance, zeros, states, entries, exits, record, start, stop, words,
                     ends, steps, n, rows, batch):
    """A block is a tile of CHANNELS channels; a thread holds DEPTH steps of PER_THREAD neighbouring channels.

    ACROSS threads side by side read one line, 16 bytes each where PER_THREAD is 4.
    """
    thread = cuda.threadIdx.x
    number = take_number(words)
    tile = quotient(number, rows)
    row = number - tile * rows
    parts = quotient(n + CHANNELS - 1, CHANNELS)
    b = quotient(row, parts)
    corner = (row - b * parts) * CHANNELS
    aside = (thread & (ACROSS - 1)) * PER_THREAD
    column = corner + aside
    inside = column < n
    t = tile * STEPS + thread // ACROSS * DEPTH
    at = (np.int64(b) * steps + t) * n + column
    low, high = start[b], stop[b]
    y = cuda.local.array(HELD, REAL)
    a = cuda.local.array(HELD, REAL)
    c = cuda.local.array(HELD, REAL)
    e = cuda.local.array(PER_THREAD, REAL)
    h = cuda.local.array(PER_THREAD, REAL)
    own = cuda.local.array(OWN, REAL)
    base = cuda.local.array(OWN, REAL)
    given = cuda.local.array(OWN, REAL)
    p = cuda.local.array(GATES, REAL)
    place = (tile * rows + row) * CHANNELS
    for q in range(PER_THREAD):
        h[q] = 0.0
    if inside and t < steps:
        if thread < ACROSS:
            load_channels(entries, place + aside, h, 0)
        else:
            load_channels(states, at - n, h, 0)
    for r in range(DEPTH):
        for q in range(PER_THREAD):
            y[r * PER_THREAD + q] = 0.0
        if inside and t + r < steps:
            load_channels(states, at + r * n, y, r * PER_THREAD)
    for k in range(GATES):
        if inside:
            load_channels(own_weight, k * n + column, own, k * PER_THREAD)
            load_channels(bias, k * n + column, base, k * PER_THREAD)
    defects, changes, first_bad = REAL(0), REAL(0), NEVER
    for r in range(DEPTH):
        live = inside and low <= t + r and t + r < high
        if live:
            for k in range(GATES):
                load_channels(drive, (at + r * n - column) * GATES + k * n + column, given, k * PER_THREAD)
        for q in range(PER_THREAD):
            factor, defect = REAL(1), REAL(0)
            if live:
                for k in range(GATES):
                    p[k] = given[k * PER_THREAD + q]
                factor, defect = linear_step(p, own, base, q, h[q], y[r * PER_THREAD + q], ratio, keep)
                size = relative(defect, y[r * PER_THREAD + q])
                defects = largest(defects, size)
                if not size <= tolerance:
                    first_bad = min(first_bad, t + r)
            append(a, c, r * PER_THREAD + q, factor, defect)
            h[q] = y[r * PER_THREAD + q]
    spoilt = enters(words, ends, tile, row, rows, zeros, b * n + corner, n - corner, a, c, e)
    following = place + rows * CHANNELS
    if spoilt:
        if thread < CHANNELS and corner + thread < n:
            for k in range(GATES):
                own[k * PER_THREAD] = own_weight[k * n + corner + thread]
                base[k * PER_THREAD] = bias[k * n + corner + thread]
            begin = tile * STEPS
            end, last, changes = walk(
                drive, (np.int64(b) * steps + begin) * n + corner + thread, corner + thread, n, own_weight, bias, own, base,
                ratio, keep, states, entries[place + thread],
                tile_state(words, ends, tile, row, rows, zeros, b * n + corner, thread), begin, low, min(begin + STEPS, high))
            exits[following + thread] = last
            if spoilt == 2:
                publish_state(words, ends + place + thread, end)
    elif inside:
        changes = improve(y, a, c, e, t, low, high)
        for r in range(DEPTH):
            if low <= t + r and t + r < high:
                if PER_THREAD == 4:
                    store4(states, at + r * n, y[4 * r], y[4 * r + 1], y[4 * r + 2], y[4 * r + 3])
                else:
                    states[at + r * n] = y[r]
        if thread >= cuda.blockDim.x - ACROSS:
            for q in range(PER_THREAD):
                exits[following + aside + q] = y[HELD - PER_THREAD + q]
    write_record(record, b, batch, defects, changes, first_bad)
