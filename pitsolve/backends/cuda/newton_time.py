"""A Newton iteration in one pass for states of one number: the tiles of newton_tiles.py with 16-byte loads along time."""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4, store4
from pitsolve.backends.cuda.iterates import NEVER, largest, relative, write_record
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.look_back import publish_state, quotient, take_number, tile_state
from pitsolve.backends.cuda.newton_tiles import append, enters, gate_inputs, improve, linear_step, walk
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
GATES = constant("GATES")
DRIVERS = constant("DRIVERS")  # numbers a step that drive the gates: INPUTS, or GATES
BUNDLE = constant("BUNDLE")  # 4 x DRIVERS
DEPTH = constant("DEPTH")  # steps of a thread
STEPS = constant("STEPS")  # of a tile


@kernel
def iterate_time(values, input_weight, input_bias, own_weight, bias, ratio, keep, tolerance, zeros, states, entries, exits,
                 record, start, stop, words, ends, steps, rows):
    """One channel: a block is a tile of STEPS steps, a thread holds DEPTH of them in registers, read 16 bytes at a time.

    Strands begin where 16-byte loads can, whatever the length of the rows before: up to three steps before the first. Few
    numbers of x are multiplied here (``INPUTS``), which saves the memory of their products.
    """
    thread = cuda.threadIdx.x
    number = take_number(words)
    tile = quotient(number, rows)
    row = number - tile * rows
    origin = np.int64(row) * steps
    lead = np.int32(origin & 3)
    t = tile * STEPS + thread * DEPTH - lead
    at = origin + t
    low, high = start[row], stop[row]
    y = cuda.local.array(DEPTH, REAL)
    a = cuda.local.array(DEPTH, REAL)
    c = cuda.local.array(DEPTH, REAL)
    e = cuda.local.array(1, REAL)
    own = cuda.local.array(GATES, REAL)
    base = cuda.local.array(GATES, REAL)
    bundle = cuda.local.array(BUNDLE, REAL)
    p = cuda.local.array(GATES, REAL)
    h = REAL(0)
    if thread == 0:
        h = entries[tile * rows + row]
    elif t > 0 and t <= steps:
        h = states[at - 1]
    for r in range(0, DEPTH, 4):
        if t + r >= 0 and t + r + 4 <= steps:
            y[r], y[r + 1], y[r + 2], y[r + 3] = load4(states, at + r)
        else:
            for q in range(r, r + 4):
                y[q] = 0.0
                if t + q >= 0 and t + q < steps:
                    y[q] = states[at + q]
    for k in range(GATES):
        own[k], base[k] = own_weight[k], bias[k]
    opens = entries[tile * rows + row]
    defects, changes, first_bad = REAL(0), REAL(0), NEVER
    for r in range(0, DEPTH, 4):
        if low <= t + r and t + r + 4 <= high:
            for q in range(DRIVERS):
                (bundle[4 * q], bundle[4 * q + 1], bundle[4 * q + 2],
                 bundle[4 * q + 3]) = load4(values, (at + r) * DRIVERS + 4 * q)
        else:
            for q in range(4):
                if low <= t + r + q and t + r + q < high:
                    for k in range(DRIVERS):
                        bundle[q * DRIVERS + k] = values[(at + r + q) * DRIVERS + k]
        for q in range(4):
            factor, defect = REAL(1), REAL(0)
            if t + r + q == 0:
                h = opens  # the first tile begins before the sequence
            if low <= t + r + q and t + r + q < high:
                gate_inputs(bundle, q * DRIVERS, 1, input_weight, input_bias, p)
                factor, defect = linear_step(p, own, base, 0, h, y[r + q], ratio, keep)
                size = relative(defect, y[r + q])
                defects = largest(defects, size)
                if not size <= tolerance:
                    first_bad = min(first_bad, t + r + q)
            append(a, c, r + q, factor, defect)
            h = y[r + q]
    spoilt = enters(words, ends, tile, row, rows, zeros, row, 1, a, c, e)
    if spoilt:
        if thread == 0:
            begin = max(t, 0)
            end, last, changes = walk(
                values, origin + begin, 0, 1, input_weight, input_bias, own, base, ratio, keep, states, opens,
                tile_state(words, ends, tile, row, rows, zeros, row, 0), begin, low, min(t + STEPS, high))
            exits[(tile + 1) * rows + row] = last
            if spoilt == 2:
                publish_state(words, ends + tile * rows + row, end)
    else:
        changes = improve(y, a, c, e, t, low, high)
        for r in range(0, DEPTH, 4):
            if low <= t + r and t + r + 4 <= high:
                store4(states, at + r, y[r], y[r + 1], y[r + 2], y[r + 3])
            else:
                for q in range(r, r + 4):
                    if low <= t + q and t + q < high:
                        states[at + q] = y[q]
        if thread == cuda.blockDim.x - 1:
            exits[(tile + 1) * rows + row] = y[DEPTH - 1]
    write_record(record, row, rows, defects, changes, first_bad)
