"""A Newton iteration in two passes over chunks of time: the first, and what it shares with the second, newton_apply.py.

With J_t = df/dh (h_{t-1}, x_t) and the defect d_t = f(h_{t-1}, x_t) - h_t the corrections are e_t = J_t e_{t-1} + d_t.
:func:`reduce_chunks` finds the affine map of every chunk, a scan over chunks the correction before each, and `apply_chunks`
walks the chunks from there and updates the states in place. Jacobians live for one step in shared memory, or nowhere.

Both have the same mapping. A chunk is ``N`` lanes of a warp, lane i being unit i of one head in all its parts; a warp holds
``PER_WARP`` chunks, and neighbouring chunks are neighbouring heads, then neighbours in time. A lane keeps its row of each
recurrent matrix in registers for the whole chunk. States and corrections go around through shared memory, 16 bytes a load, with
no barrier but that of a warp; what the next step needs from global memory is asked for one step ahead.

The map of a chunk is held by columns: lane i has columns i of every part in registers and multiplies them with J_t, whose rows
the lanes have just made. If only the diagonals of J_t count (``DIAGONAL``), maps are numbers and stay in their lane.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4, store4
from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
DIAGONAL = constant("DIAGONAL")
GATES = constant("GATES")
PARTS = constant("PARTS")
HEADS = constant("HEADS")
N = constant("N")  # units of a head
SIZE = constant("SIZE")  # PARTS x N, the state of a head
PADDED = constant("PADDED")  # N rounded up to 16-byte loads
WEIGHTS = constant("WEIGHTS")  # GATES x PADDED
COLUMNS = constant("COLUMNS")  # PARTS x SIZE, or PARTS
PER_WARP = constant("PER_WARP")  # chunks of a warp
PLACES = constant("PLACES")  # of a warp in shared memory: chunks, and one for lanes that are left over
PITCH = constant("PITCH")  # from one row of the Jacobian to the next in shared memory, without bank conflicts
PLACE = constant("PLACE")  # numbers of one place in shared memory
SHARED = constant("SHARED")
STEPS = constant("STEPS")  # of a chunk
gates = constant("gates")


@inline
def position(start, stop, chunks, begin, end):
    """(whether a thread has a chunk, chunk, sequence, head, where the chunk opens, its first step, last step + 1, unit).

    Chunks are those of the slab [begin, end).
    """
    lane = np.int32(cuda.threadIdx.x & 31)
    sub = lane // N
    chunk = (np.int32(cuda.grid(1)) >> 5) * PER_WARP + sub
    present = sub < PER_WARP and chunk < chunks
    chunk = min(chunk, chunks - 1)
    per_sequence = (end - begin + STEPS - 1) // STEPS
    whole = np.int32(np.uint32(chunk) // np.uint32(HEADS))
    b = np.int32(np.uint32(whole) // np.uint32(per_sequence))
    opens = begin + (whole - b * per_sequence) * STEPS
    first = max(opens, start[b])
    last = min(min(opens + STEPS, end), stop[b])
    return present, chunk, b, chunk - whole * HEADS, opens, first, last if present else first, lane - sub * N


@inline
def load_row(weight, row, head, i):
    """Row i of each recurrent matrix of a head."""
    for k in range(GATES):
        at = (k * HEADS + head) * N + i
        for j in range(0, PADDED, 4):
            if N % 4 == 0:
                w = load4(weight, at * N + j)
                for v in range(4):
                    row[k * PADDED + j + v] = w[v]
            else:
                for v in range(4):
                    row[k * PADDED + j + v] = weight[at * N + j + v] if j + v < N else REAL(0)


@inline
def load_step(drive, drive_at, states, states_at, p, y):
    """The inputs of the gates and the state of one unit at one step."""
    for k in range(GATES):
        p[k] = drive[drive_at + k * (HEADS * N)]
    for a in range(PARTS):
        y[a] = states[states_at + a * (HEADS * N)]


@inline
def add_product(row, k, values, j, total):
    """total + sum_v W_k[i, j + v] values[v] over the columns that there are."""
    for v in range(4):
        if j + v < N:
            total += row[k * PADDED + j + v] * values[v]
    return total


@inline
def slope(own, by_u, by_s, a):
    """Derivative of part ``a`` of unit i by itself; ``own`` are W_k[i, i]."""
    total = by_s[a * PARTS + a]
    if a == 0:
        for k in range(GATES):
            total += by_u[k] * own[k]
    return total


@kernel
def reduce_chunks(drive, weight, bias, own_weight, ratio, keep, previous, states, entries, products, ends, start, stop, chunks,
                  steps, begin, end):
    """The affine map of every chunk: ``products`` (its matrix), ``ends`` (what it makes of a correction of zero).

    ``keep`` multiplies the Jacobians, ``previous`` is the state before the slab. ``entries`` receives the states before the
    chunks: `apply_chunks` overwrites them while other blocks still need them.
    """
    shared = cuda.shared.array(SHARED, REAL, 16)
    row = cuda.local.array(WEIGHTS, REAL)
    own = cuda.local.array(GATES, REAL)
    base = cuda.local.array(GATES, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)
    next_p = cuda.local.array(GATES, REAL)
    y = cuda.local.array(PARTS, REAL)
    next_y = cuda.local.array(PARTS, REAL)
    h = cuda.local.array(PARTS, REAL)
    c = cuda.local.array(PARTS, REAL)
    new_c = cuda.local.array(PARTS, REAL)
    columns = cuda.local.array(COLUMNS, REAL)
    new_columns = cuda.local.array(COLUMNS, REAL)
    present, chunk, b, head, opens, first, last, i = position(start, stop, chunks, begin, end)
    unit = head * N + i
    load_row(weight, row, head, i)
    for k in range(GATES):
        base[k] = bias[k * (HEADS * N) + unit]
        if DIAGONAL:
            own[k] = own_weight[k * (HEADS * N) + unit]
    drive_at = (np.int64(b) * (end - begin) + first - begin) * (GATES * HEADS * N) + unit
    states_at = (np.int64(b) * steps + first) * (PARTS * HEADS * N) + unit
    for a in range(PARTS):
        c[a] = 0.0
        h[a] = 0.0
        y[a] = 0.0
        next_y[a] = 0.0
        if first < last:
            h[a] = (previous[(b * PARTS + a) * (HEADS * N) + unit] if first == begin
                    else states[states_at + (a - PARTS) * (HEADS * N)])
            if first == opens:
                entries[(chunk * PARTS + a) * N + i] = h[a]
    for k in range(GATES):
        next_p[k] = 0.0
    for q in range(COLUMNS):
        columns[q] = (1.0 if q // SIZE * N + i == q % SIZE else 0.0) if not DIAGONAL else 1.0
    place = ((cuda.threadIdx.x >> 5) * PLACES + (cuda.threadIdx.x & 31) // N) * PLACE
    vector = place + SIZE * PITCH  # h and c, after the rows of J
    couple = vector + 2 * PADDED  # how the parts depend on the parts after the first
    if first < last:
        load_step(drive, drive_at, states, states_at, next_p, next_y)
    for s in range(STEPS if cuda.syncthreads_or(np.int32(first < last)) else 0):
        live = first + s < last
        for k in range(GATES):
            p[k] = next_p[k]
            u[k] = base[k]
        for a in range(PARTS):
            y[a] = next_y[a]
        drive_at += GATES * HEADS * N
        states_at += PARTS * HEADS * N
        if first + s + 1 < last:
            load_step(drive, drive_at, states, states_at, next_p, next_y)
        shared[vector + i] = h[0]
        shared[vector + PADDED + i] = c[0]
        cuda.syncwarp()
        for j in range(0, PADDED, 4):
            values = load4(shared, vector + j)
            for k in range(GATES):
                u[k] = add_product(row, k, values, j, u[k])
        new, _, by_u, by_s = gates(p, u, h, ratio)
        if DIAGONAL:
            for a in range(PARTS):
                factor = keep * slope(own, by_u, by_s, a)
                new_c[a] = new[a] - y[a] + factor * c[a]
                new_columns[a] = factor * columns[a]
        else:
            for a in range(PARTS):
                new_c[a] = new[a] - y[a]
                write_row(shared, place, vector, couple, row, by_u, by_s, keep, c, new_c, a, i)
            cuda.syncwarp()
            multiply(shared, place, couple, columns, new_columns)
        if live:
            for a in range(PARTS):
                c[a] = new_c[a]
                h[a] = y[a]
            for q in range(COLUMNS):
                columns[q] = new_columns[q]
        if DIAGONAL:
            cuda.syncwarp()  # before h and c are overwritten
    if present:
        out = np.int64(chunk) * SIZE
        for a in range(PARTS):
            ends[out + a * N + i] = c[a]
            if DIAGONAL:
                products[out + a * N + i] = columns[a]
            else:
                for r in range(SIZE):
                    products[(out + r) * SIZE + a * N + i] = columns[a * SIZE + r]


@inline
def write_row(shared, place, vector, couple, row, by_u, by_s, keep, c, new_c, a, i):
    """Row i of part ``a`` of the Jacobian into shared memory, and its product with c into new_c[a]."""
    for j in range(0, PADDED, 4):
        values = load4(shared, vector + PADDED + j)
        element = cuda.local.array(4, REAL)
        for v in range(4):
            element[v] = 0.0
            if j + v < N:
                if j + v == i:
                    element[v] = by_s[a * PARTS]
                for k in range(GATES):
                    element[v] += by_u[a * GATES + k] * row[k * PADDED + j + v]
                element[v] *= keep
                new_c[a] += element[v] * values[v]
        store4(shared, place + (a * N + i) * PITCH + j, element[0], element[1], element[2], element[3])
    for other in range(1, PARTS):
        factor = keep * by_s[a * PARTS + other]
        shared[couple + ((other - 1) * PARTS + a) * N + i] = factor
        new_c[a] += factor * c[other]


@inline
def multiply(shared, place, couple, columns, new_columns):
    """The columns of this lane times the Jacobian in shared memory."""
    for r in range(SIZE):
        for q in range(PARTS):
            new_columns[q * SIZE + r] = 0.0
        for j in range(0, PADDED, 4):
            values = load4(shared, place + r * PITCH + j)
            for v in range(4):
                if j + v < N:
                    for q in range(PARTS):
                        new_columns[q * SIZE + r] += values[v] * columns[q * SIZE + j + v]
        for other in range(1, PARTS):
            factor = shared[couple + (other - 1) * SIZE + r]
            for q in range(PARTS):
                new_columns[q * SIZE + r] += factor * columns[q * SIZE + other * N + r % N]
