"""The second pass of a Newton iteration over chunks of time: from the correction before every chunk to the new states.

The mapping of threads is that of newton_chunks.py. No Jacobian is formed: with W_k e beside W_k h, the products with the same
weights in registers, J_t e is the sum of du_k (W_k e) over the gates.
"""

import math

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.iterates import NEVER, largest, relative, repaired, write_record
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.newton_chunks import add_product, load_row, load_step, position, slope
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
DIAGONAL = constant("DIAGONAL")
GATES = constant("GATES")
PARTS = constant("PARTS")
HEADS = constant("HEADS")
N = constant("N")  # units of a head
PADDED = constant("PADDED")  # N rounded up to 16-byte loads
WEIGHTS = constant("WEIGHTS")  # GATES x PADDED
PLACES = constant("PLACES")  # of a warp in shared memory: chunks, and one for lanes that are left over
PLACE_APPLY = constant("PLACE_APPLY")
SHARED_APPLY = constant("SHARED_APPLY")
STEPS = constant("STEPS")  # of a chunk
gates = constant("gates")


@kernel
def apply_chunks(drive, weight, bias, own_weight, ratio, keep, tolerance, states, entries, carry, ends, record, start, stop,
                 chunks, steps, begin, end, batch):
    """The corrections of every chunk from the correction before it, added to the states.

    ``carry`` is the correction before the slab, in the order of ``ends``. ``record`` receives the largest defect and change,
    relative to the states, and the first defect beyond the tolerance.
    """
    shared = cuda.shared.array(SHARED_APPLY, REAL, 16)
    row = cuda.local.array(WEIGHTS, REAL)
    own = cuda.local.array(GATES, REAL)
    base = cuda.local.array(GATES, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)
    by_e = cuda.local.array(GATES, REAL)
    next_p = cuda.local.array(GATES, REAL)
    y = cuda.local.array(PARTS, REAL)
    next_y = cuda.local.array(PARTS, REAL)
    h = cuda.local.array(PARTS, REAL)
    e = cuda.local.array(PARTS, REAL)
    new_e = cuda.local.array(PARTS, REAL)
    _, chunk, b, head, opens, first, last, i = position(start, stop, chunks, begin, end)
    unit = head * N + i
    load_row(weight, row, head, i)
    for k in range(GATES):
        base[k] = bias[k * (HEADS * N) + unit]
        next_p[k] = 0.0
        if DIAGONAL:
            own[k] = own_weight[k * (HEADS * N) + unit]
    drive_at = (np.int64(b) * (end - begin) + first - begin) * (GATES * HEADS * N) + unit
    states_at = (np.int64(b) * steps + first) * (PARTS * HEADS * N) + unit
    for a in range(PARTS):
        e[a] = 0.0
        h[a] = 0.0
        y[a] = 0.0
        next_y[a] = 0.0
        if first < last:
            if first == opens:
                h[a] = entries[(chunk * PARTS + a) * N + i]
            else:
                h[a] = states[states_at + (a - PARTS) * (HEADS * N)]
            if opens > begin:
                e[a] = ends[((chunk - HEADS) * PARTS + a) * N + i]
            else:
                e[a] = carry[((b * HEADS + head) * PARTS + a) * N + i]
            if not math.isfinite(e[a]):  # a product of Jacobians overflowed: begin anew, as at the first step
                e[a] = 0.0
    defects, changes, first_bad = REAL(0), REAL(0), NEVER
    vector = ((cuda.threadIdx.x >> 5) * PLACES + (cuda.threadIdx.x & 31) // N) * PLACE_APPLY
    if first < last:
        load_step(drive, drive_at, states, states_at, next_p, next_y)
    for s in range(STEPS if cuda.syncthreads_or(np.int32(first < last)) else 0):
        live = first + s < last
        for k in range(GATES):
            p[k] = next_p[k]
            u[k] = base[k]
            by_e[k] = 0.0
        for a in range(PARTS):
            y[a] = next_y[a]
        drive_at += GATES * HEADS * N
        states_at += PARTS * HEADS * N
        if first + s + 1 < last:
            load_step(drive, drive_at, states, states_at, next_p, next_y)
        here = vector + (s & 1) * (2 * PADDED)  # in two places in turn, so that one barrier a step is enough
        shared[here + i] = h[0]
        shared[here + PADDED + i] = e[0]
        cuda.syncwarp()
        for j in range(0, PADDED, 4):
            values = load4(shared, here + j)
            for k in range(GATES):
                u[k] = add_product(row, k, values, j, u[k])
            if not DIAGONAL:
                values = load4(shared, here + PADDED + j)
                for k in range(GATES):
                    by_e[k] = add_product(row, k, values, j, by_e[k])
        new, _, by_u, by_s = gates(p, u, h, ratio)
        for a in range(PARTS):
            if DIAGONAL:
                change = slope(own, by_u, by_s, a) * e[a]
            else:
                change = by_s[a * PARTS] * e[0]
                for other in range(1, PARTS):
                    change += by_s[a * PARTS + other] * e[other]
                for k in range(GATES):
                    change += by_u[a * GATES + k] * by_e[k]
            new_e[a] = new[a] - y[a] + keep * change
        if live:
            for a in range(PARTS):
                size = relative(new[a] - y[a], y[a])
                defects = largest(defects, size)
                if not size <= tolerance:
                    first_bad = min(first_bad, first + s)
                e[a] = new_e[a]
                h[a] = y[a]
                state = repaired(y[a] + e[a])
                states[states_at + (a - PARTS) * (HEADS * N)] = state
                changes = largest(changes, relative(e[a], state))
    write_record(record, b, batch, defects, changes, first_bad)
