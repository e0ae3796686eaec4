"""Kernels of the scan with diagonal matrices: 12 bytes of traffic a step and channel, each number read once.

Positions count steps in the order of the recurrence: from the last step back in REVERSE. Steps outside [start, stop) are the
identity and are not touched.
"""

import math

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4, store4
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.look_back import publish_state, quotient, strand_states, take_number, tile_state
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
REVERSE = constant("REVERSE")
CHANNELS = constant("CHANNELS")  # of a tile
PER_THREAD = constant("PER_THREAD")  # channels of a thread: 4, which are one load, or 1
ACROSS = constant("ACROSS")  # threads side by side: CHANNELS / PER_THREAD
DEPTH = constant("DEPTH")  # steps of a thread
HELD = constant("HELD")  # numbers of A, and of b, in a thread
STEPS = constant("STEPS")  # of a tile


@inline
def _walk(A, b, out, at, stride, t, count, low, high, state):
    """``count`` steps of one channel from time t on, one after the other; the state after them."""
    for _ in range(count):
        if low <= t < high:
            state = A[at] * state + b[at]
            out[at] = state
        at += stride
        t += -1 if REVERSE else 1
    return state


@inline
def _scan_strand(a, c, map_A, map_c):
    """Compose each step of a strand with those before it, in place; the last is the map of the strand."""
    for r in range(1, DEPTH):
        for q in range(PER_THREAD):
            here, before = r * PER_THREAD + q, (r - 1) * PER_THREAD + q
            c[here] += a[here] * c[before]
            a[here] *= a[before]
    for q in range(PER_THREAD):
        map_A[q], map_c[q] = a[HELD - PER_THREAD + q], c[HELD - PER_THREAD + q]


@inline
def _finite_to(a, c, state):
    """Whether the strand leads from a finite state to a finite one; where its last step is finite, all are."""
    good = True
    for q in range(PER_THREAD):
        end = a[HELD - PER_THREAD + q] * state[q] + c[HELD - PER_THREAD + q]
        if math.isfinite(state[q]) and not math.isfinite(end):
            good = False
    return good


@kernel
def scan_channels(A, b, y0, out, start, stop, words, ends, steps, n, rows):
    """A block is a tile of CHANNELS channels; a thread holds DEPTH steps of PER_THREAD neighbouring channels in registers.

    All loads of a thread are issued before the first product, 16 bytes each where PER_THREAD is 4; ACROSS threads side by side
    read one line. A row is CHANNELS channels of one sequence.
    """
    thread = cuda.threadIdx.x
    number = take_number(words)
    tile = quotient(number, rows)
    row = number - tile * rows
    parts = quotient(n + CHANNELS - 1, CHANNELS)
    batch = quotient(row, parts)
    first = (row - batch * parts) * CHANNELS
    column = first + (thread & (ACROSS - 1)) * PER_THREAD
    position = tile * STEPS + thread // ACROSS * DEPTH
    t = steps - 1 - position if REVERSE else position
    stride = -n if REVERSE else n
    at = (np.int64(batch) * steps + t) * n + column
    low, high = start[batch], stop[batch]
    inside = column < n
    a = cuda.local.array(HELD, REAL)
    c = cuda.local.array(HELD, REAL)
    for r in range(DEPTH):
        now = t - r if REVERSE else t + r
        if inside and low <= now < high:
            if PER_THREAD == 4:
                a[4 * r], a[4 * r + 1], a[4 * r + 2], a[4 * r + 3] = load4(A, at + r * stride)
                c[4 * r], c[4 * r + 1], c[4 * r + 2], c[4 * r + 3] = load4(b, at + r * stride)
            else:
                a[r], c[r] = A[at + r * stride], b[at + r * stride]
        else:
            for q in range(PER_THREAD):
                a[r * PER_THREAD + q], c[r * PER_THREAD + q] = 1.0, 0.0
    map_A = cuda.local.array(PER_THREAD, REAL)
    map_c = cuda.local.array(PER_THREAD, REAL)
    state = cuda.local.array(PER_THREAD, REAL)
    _scan_strand(a, c, map_A, map_c)
    spoilt = strand_states(words, ends, tile, row, rows, y0, batch * n + first, n - first, map_A, map_c, state)
    if spoilt:
        if thread < CHANNELS and first + thread < n:
            position = tile * STEPS
            t = steps - 1 - position if REVERSE else position
            at = (np.int64(batch) * steps + t) * n + first + thread
            end = _walk(A, b, out, at, stride, t, STEPS, low, high,
                        tile_state(words, ends, tile, row, rows, y0, batch * n + first, thread))
            if spoilt == 2:
                publish_state(words, ends + (tile * rows + row) * CHANNELS + thread, end)
    elif not inside:
        pass
    elif _finite_to(a, c, state):
        for r in range(DEPTH):
            now = t - r if REVERSE else t + r
            if low <= now < high:
                if PER_THREAD == 4:
                    k = 4 * r
                    store4(out, at + r * stride, a[k] * state[0] + c[k], a[k + 1] * state[1] + c[k + 1],
                           a[k + 2] * state[2] + c[k + 2], a[k + 3] * state[3] + c[k + 3])
                else:
                    out[at + r * stride] = a[r] * state[0] + c[r]
    else:
        for q in range(PER_THREAD):
            _walk(A, b, out, at + q, stride, t, DEPTH, low, high, state[q])


@kernel
def scan_time(A, b, y0, out, start, stop, words, ends, steps, rows):
    """One channel: a block is a tile of STEPS steps, a thread holds DEPTH of them in registers, read 16 bytes at a time.

    Strands begin where 16-byte loads can, whatever the length of the rows before: up to three steps before the first.
    """
    thread = cuda.threadIdx.x
    number = take_number(words)
    tile = quotient(number, rows)
    row = number - tile * rows
    origin = np.int64(row) * steps
    lead = np.int32(origin & 3)
    strand = (tile * STEPS) + thread * DEPTH
    if REVERSE:
        strand = (quotient(steps + 3 + STEPS - 1, STEPS) * STEPS) - DEPTH - strand
    t = strand - lead
    at = origin + t
    low, high = start[row], stop[row]
    a = cuda.local.array(HELD, REAL)
    c = cuda.local.array(HELD, REAL)
    for r in range(0, DEPTH, 4):
        if low <= t + r and t + r + 4 <= high:
            x0, x1, x2, x3 = load4(A, at + r)
            z0, z1, z2, z3 = load4(b, at + r)
            k = DEPTH - 1 - r if REVERSE else r
            step = -1 if REVERSE else 1
            a[k], a[k + step], a[k + 2 * step], a[k + 3 * step] = x0, x1, x2, x3
            c[k], c[k + step], c[k + 2 * step], c[k + 3 * step] = z0, z1, z2, z3
        else:
            for q in range(r, r + 4):
                k = DEPTH - 1 - q if REVERSE else q
                a[k], c[k] = 1.0, 0.0
                if low <= t + q < high:
                    a[k], c[k] = A[at + q], b[at + q]
    map_A = cuda.local.array(1, REAL)
    map_c = cuda.local.array(1, REAL)
    state = cuda.local.array(1, REAL)
    _scan_strand(a, c, map_A, map_c)
    spoilt = strand_states(words, ends, tile, row, rows, y0, row, 1, map_A, map_c, state)
    last = DEPTH - 1 if REVERSE else 0  # of the strand in memory, the first in the recurrence
    stride = -1 if REVERSE else 1
    if spoilt:
        if thread == 0:
            end = _walk(A, b, out, at + last, stride, t + last, STEPS, low, high,
                        tile_state(words, ends, tile, row, rows, y0, row, 0))
            if spoilt == 2:
                publish_state(words, ends + tile * rows + row, end)
    elif _finite_to(a, c, state):
        for r in range(0, DEPTH, 4):
            k = DEPTH - 1 - r if REVERSE else r
            step = -1 if REVERSE else 1
            if low <= t + r and t + r + 4 <= high:
                store4(out, at + r, a[k] * state[0] + c[k], a[k + step] * state[0] + c[k + step],
                       a[k + 2 * step] * state[0] + c[k + 2 * step], a[k + 3 * step] * state[0] + c[k + 3 * step])
            else:
                for q in range(r, r + 4):
                    k = DEPTH - 1 - q if REVERSE else q
                    if low <= t + q < high:
                        out[at + q] = a[k] * state[0] + c[k]
    else:
        _walk(A, b, out, at + last, stride, t + last, DEPTH, low, high, state[0])


@kernel
def walk_channels(A, b, y0, out, start, stop, steps, n, threads):
    """A thread owns PER_THREAD neighbouring channels of a sequence and walks it with DEPTH steps of loads in flight."""
    number = cuda.grid(1)
    if number < threads:
        parts = quotient(n, PER_THREAD)
        batch = quotient(number, parts)
        column = (number - batch * parts) * PER_THREAD
        low, high = start[batch], stop[batch]
        stride = -n if REVERSE else n
        at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * n + column
        a = cuda.local.array(HELD, REAL)
        c = cuda.local.array(HELD, REAL)
        y = cuda.local.array(PER_THREAD, REAL)
        for q in range(PER_THREAD):
            y[q] = y0[batch * n + column + q]
        count = max(high - low, 0)
        for _ in range(count // DEPTH):
            for r in range(DEPTH):
                if PER_THREAD == 4:
                    a[4 * r], a[4 * r + 1], a[4 * r + 2], a[4 * r + 3] = load4(A, at + r * stride)
                    c[4 * r], c[4 * r + 1], c[4 * r + 2], c[4 * r + 3] = load4(b, at + r * stride)
                else:
                    a[r], c[r] = A[at + r * stride], b[at + r * stride]
            for r in range(DEPTH):
                for q in range(PER_THREAD):
                    y[q] = a[r * PER_THREAD + q] * y[q] + c[r * PER_THREAD + q]
                if PER_THREAD == 4:
                    store4(out, at + r * stride, y[0], y[1], y[2], y[3])
                else:
                    out[at + r * stride] = y[0]
            at += DEPTH * stride
        for _ in range(count % DEPTH):
            for q in range(PER_THREAD):
                y[q] = A[at + q] * y[q] + b[at + q]
                out[at + q] = y[q]
            at += stride
