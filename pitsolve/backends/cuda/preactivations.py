"""Affine pre-activations of all gates at many steps at once, and what kernels do with them.

A unit has ``ROWS`` = 2 GATES - SUMMED of them a step: p + u of the first ``SUMMED`` gates, u of the others, p of the others.
They stand in memory as (step, row, unit). Kernels that need derivatives evaluate the gates again from these numbers.

Steps are counted through all rows of a batch: step number q is time ``begin + q % length`` of row ``q // length``.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
GATES = constant("GATES")
PARTS = constant("PARTS")
SUMMED = constant("SUMMED")
ROWS = constant("ROWS")
gates = constant("gates")
COLUMNS = constant("COLUMNS")  # units of a head
THREADS = constant("THREADS")
UNITS = constant("UNITS")  # units of a tile
STEPS = constant("STEPS")  # steps of a thread
GROUPS = constant("GROUPS")  # THREADS / UNITS: threads that share a unit
TILE = constant("TILE")  # STEPS GROUPS: steps of a tile
DEPTH = constant("DEPTH")  # columns of the weights in shared memory at a time, a multiple of four
PITCH = constant("PITCH")  # numbers from one step to the next in shared memory: four more, for the banks
SUMS = constant("SUMS")  # STEPS ROWS
HELD = constant("HELD")  # 4 GATES
VALUES = constant("VALUES")  # TILE PITCH
WEIGHTS = constant("WEIGHTS")  # DEPTH GATES UNITS


@inline
def locate(row, time, first, last, row_origin, begin, length, start, stop):
    """Row and time of the steps of a tile, each by one thread; the time is -1 where there is nothing to do."""
    q = first + cuda.threadIdx.x
    for s in range(cuda.threadIdx.x, TILE, cuda.blockDim.x):
        row[s], time[s] = 0, -1
        if q < last:
            b = row_origin + np.int32(np.uint32(q) // np.uint32(length))
            t = begin + np.int32(np.uint32(q) % np.uint32(length))
            if start[b] <= t < stop[b]:
                row[s], time[s] = b, t
        q += cuda.blockDim.x


@inline
def state_before(states, previous, b, t, begin, steps, size, i):
    """h_{t-1}[i]; ``previous`` holds the state before the slab."""
    if t == begin:
        return previous[np.int64(b) * size + i]
    return states[(np.int64(b) * steps + t - 1) * size + i]


@inline
def read_gates(rows, at, n, p, u):
    """p and u of one unit at one step; of the first gates only the sum matters."""
    for k in range(GATES):
        u[k] = rows[at + k * n]
        p[k] = 0.0
        if k >= SUMMED:
            p[k] = rows[at + (k + GATES - SUMMED) * n]


@inline
def pulled(derivatives, total, k):
    """du_k lambda: what number k of the gates gets of the adjoint ``total`` of its unit."""
    value = REAL(0)
    for a in range(PARTS):
        value += derivatives[a * GATES + k] * total[a]
    return value


@inline
def multiply(weights, values, unit, group, columns, skipped, held, total):
    """total[step, row] += values[step, k] weights[k, gate, unit] for so many columns k, or zeros behind them."""
    for k in range(0, min(DEPTH, columns), 4):
        for e in range(4 * GATES):
            held[e] = weights[(k * GATES + e) * UNITS + unit]
        for q in range(STEPS):
            v = load4(values, (q * GROUPS + group) * PITCH + k)
            for g in range(GATES):
                r = g if g < SUMMED else g + skipped
                total[q * ROWS + r] += held[g] * v[0]
                total[q * ROWS + r] += held[GATES + g] * v[1]
                total[q * ROWS + r] += held[2 * GATES + g] * v[2]
                total[q * ROWS + r] += held[3 * GATES + g] * v[3]


@kernel
def preactivate(x, states, previous, by_input, by_state, input_bias, hidden_bias, row_origin, origin, begin, length, count,
                steps, n, m, start, stop, out):
    """out[q] = W [h_{t-1}, x_t] + b for ``count`` steps from step ``origin`` on.

    A matrix product over time. A block has a tile of TILE steps and UNITS units; a thread one unit and STEPS steps, whose ROWS
    sums each are in registers. DEPTH columns of the weights and of the values are in shared memory at a time: a warp reads
    the weights of neighbouring units, and values four at a time, the same ones for all units. A unit multiplies the states of
    its own head only; a tile walks the columns of all its heads, with zeros for the weights between.
    """
    weights = cuda.shared.array(WEIGHTS, REAL, 16)
    values = cuda.shared.array(VALUES, REAL, 16)
    row = cuda.shared.array(TILE, np.int32)
    time = cuda.shared.array(TILE, np.int32)
    total = cuda.local.array(SUMS, REAL)
    held = cuda.local.array(HELD, REAL)
    thread = cuda.threadIdx.x
    unit, group = thread % UNITS, thread // UNITS
    first_unit = cuda.blockIdx.y * UNITS
    first_step = cuda.blockIdx.x * TILE
    size = PARTS * n
    locate(row, time, origin + first_step, origin + count, row_origin, begin, length, start, stop)
    i = min(first_unit + unit, n - 1)
    for g in range(GATES):
        bias = hidden_bias[g * n + i]
        own = input_bias[g * n + i]
        for q in range(STEPS):
            if g < SUMMED:
                total[q * ROWS + g] = bias + own
            else:
                total[q * ROWS + g] = bias
                total[q * ROWS + g + GATES - SUMMED] = own
    last = ((min(first_unit + UNITS, n) - 1) // COLUMNS + 1) * COLUMNS
    for first in range(first_unit // COLUMNS * COLUMNS, last, DEPTH):
        cuda.syncthreads()
        for e in range(thread, WEIGHTS, THREADS):
            j = first_unit + e % UNITS
            g, k = e // UNITS % GATES, e // UNITS // GATES
            column = first + k - j // COLUMNS * COLUMNS
            weights[e] = by_state[(column * GATES + g) * n + j] if j < n and 0 <= column < COLUMNS else REAL(0)
        for e in range(thread, TILE * DEPTH, THREADS):
            s, k = e // DEPTH, first + e % DEPTH
            value = REAL(0)
            if k < n and time[s] >= 0:
                value = state_before(states, previous, row[s], time[s], begin, steps, size, k)
            values[s * PITCH + e % DEPTH] = value
        cuda.syncthreads()
        multiply(weights, values, unit, group, last - first, 0, held, total)
    for first in range(0, m, DEPTH):
        cuda.syncthreads()
        for e in range(thread, WEIGHTS, THREADS):
            j = first_unit + e % UNITS
            g, k = e // UNITS % GATES, first + e // UNITS // GATES
            weights[e] = by_input[(k * GATES + g) * n + j] if j < n and k < m else REAL(0)
        for e in range(thread, TILE * DEPTH, THREADS):
            s, k = e // DEPTH, first + e % DEPTH
            value = REAL(0)
            if k < m and time[s] >= 0:
                value = x[(np.int64(row[s]) * steps + time[s]) * m + k]
            values[s * PITCH + e % DEPTH] = value
        cuda.syncthreads()
        multiply(weights, values, unit, group, m - first, GATES - SUMMED, held, total)
    if first_unit + unit < n:
        for q in range(STEPS):
            s = first_step + q * GROUPS + group
            if s < count:
                for r in range(ROWS):
                    out[(np.int64(s) * ROWS + r) * n + i] = total[q * ROWS + r]
