"""Gradients of the parameters and of the inputs of gated cells, from the adjoint states: products over time.

With d_t = dL/d(pre-activations of step t), ``ROWS`` numbers a unit that are evaluated again where they are needed,

    dL/dW = sum_t d_t [h_{t-1}, x_t]^T,    dL/db = sum_t d_t,    dL/dx_t = W_ih^T d_t.

No array has T times as many numbers as there are parameters: every block sums over a span of time, and the sums of all
blocks are added in their order, in float64.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.preactivations import (
    DEPTH,
    GATES,
    GROUPS,
    PARTS,
    PITCH,
    REAL,
    ROWS,
    STEPS,
    SUMMED,
    THREADS,
    TILE,
    UNITS,
    VALUES,
    WEIGHTS,
    gates,
    locate,
    pulled,
    read_gates,
    state_before,
)
from pitsolve.compile import constant, inline, kernel

LANES = constant("LANES")  # units that threads evaluate side by side: a power of two, at most UNITS
WIDE = constant("WIDE")  # columns of a thread, and of a tile
COLUMNS_OF_TILE = constant("COLUMNS_OF_TILE")
TEAM = constant("TEAM")  # threads that together hold a tile, 4 units and WIDE columns each
SLICES = constant("SLICES")  # THREADS / TEAM: teams, which share the steps of a tile
SUMS = constant("SUMS")  # 4 GATES WIDE: sums of a thread
LISTED = constant("LISTED")  # ROWS UNITS: numbers of a step
LISTENERS = constant("LISTENERS")  # THREADS / LISTED: threads that share a bias
SLOPES = constant("SLOPES")  # TILE LISTED
STAGED = constant("STAGED")  # TILE COLUMNS_OF_TILE
ROUND = constant("ROUND")  # sums of a thread that fit in the memory of SLOPES at a time: a divisor of SUMS
BUNDLE = constant("BUNDLE")  # units whose derivatives `pull_inputs` multiplies at a time: DEPTH = GATES BUNDLE


@inline
def evaluate(rows, states, previous, adjoint, q, b, t, begin, steps, length, n, i, ratio, p, u, s, total):
    """Gates of one unit at one step, from its pre-activations; ``total`` receives lambda."""
    at = np.int64(q) * (ROWS * n) + i
    read_gates(rows, at, n, p, u)
    flat = (np.int64(b) * length + t - begin) * (PARTS * n) + i
    for a in range(PARTS):
        s[a] = state_before(states, previous, b, t, begin, steps, PARTS * n, a * n + i)
        total[a] = adjoint[flat + a * n]
    return gates(p, u, s, ratio)


@kernel
def outer(x, states, previous, rows, adjoint, ratio, row_origin, origin, begin, length, count, steps, n, m, start, stop, tiles,
          number, span, out):
    """Sums of d_t [h_{t-1}, x_t]^T and of d_t over the steps of a span, for a tile of units and columns.

    The columns are those of h, then those of x, each rounded up to whole threads. A block has one tile of UNITS units, all
    their gates and COLUMNS_OF_TILE columns, and walks its span TILE steps at a time: all threads evaluate derivatives into
    shared memory and copy [h_{t-1}, x_t] there; then each of SLICES teams takes every SLICES-th step and adds outer products
    of 4 units x GATES x WIDE columns a thread, in registers. In the end the teams are added through shared memory.
    """
    slopes = cuda.shared.array(SLOPES, REAL, 16)
    values = cuda.shared.array(STAGED, REAL, 16)
    row = cuda.shared.array(TILE, np.int32)
    time = cuda.shared.array(TILE, np.int32)
    sums = cuda.local.array(SUMS, REAL)
    v = cuda.local.array(WIDE, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)
    s = cuda.local.array(PARTS, REAL)
    total = cuda.local.array(PARTS, REAL)
    thread = cuda.threadIdx.x
    team, member = thread // TEAM, thread % TEAM
    of_units, of_columns = member % (UNITS // 4), member // (UNITS // 4)
    first_unit, first_column = tiles[2 * cuda.blockIdx.y] * UNITS, tiles[2 * cuda.blockIdx.y + 1] * COLUMNS_OF_TILE
    by_state = (n + WIDE - 1) // WIDE * WIDE  # columns of h
    skipped = 0 if first_column + of_columns * WIDE < by_state else GATES - SUMMED
    for k in range(SUMS):
        sums[k] = REAL(0)
    bias = REAL(0)
    for e in range(thread, SLOPES, THREADS):
        slopes[e] = REAL(0)
    begin_span = cuda.blockIdx.x * span
    end_span = min(begin_span + span, count)
    for first in range(begin_span, end_span, TILE):
        cuda.syncthreads()
        locate(row, time, origin + first, origin + end_span, row_origin, begin, length, start, stop)
        cuda.syncthreads()
        for e in range(thread, TILE * LANES, THREADS):
            unit, step = e % LANES, e // LANES
            i, t = first_unit + unit, time[step]
            at = step * LISTED + unit
            if i < n and t >= 0:
                _, dp, du, _ = evaluate(rows, states, previous, adjoint, first + step, row[step], t, begin, steps, length,
                                        n, i, ratio, p, u, s, total)
                for k in range(GATES):
                    slopes[at + k * UNITS] = pulled(du, total, k)
                    if k >= SUMMED:
                        slopes[at + (k + GATES - SUMMED) * UNITS] = pulled(dp, total, k)
            else:
                for r in range(ROWS):
                    slopes[at + r * UNITS] = REAL(0)
        for e in range(thread, STAGED, THREADS):
            step, column = e // COLUMNS_OF_TILE, first_column + e % COLUMNS_OF_TILE
            b, t = row[step], time[step]
            value = REAL(0)
            if t >= 0:
                if column < n:
                    value = state_before(states, previous, b, t, begin, steps, PARTS * n, column)
                elif by_state <= column < by_state + m:
                    value = x[(np.int64(b) * steps + t) * m + column - by_state]
            values[e] = value
        cuda.syncthreads()
        if team < SLICES:
            for step in range(team, TILE, SLICES):
                if WIDE == 4:
                    v4 = load4(values, step * COLUMNS_OF_TILE + 4 * of_columns)
                    v[0], v[1], v[2], v[3] = v4[0], v4[1], v4[2], v4[3]
                else:
                    for c in range(WIDE):
                        v[c] = values[step * COLUMNS_OF_TILE + of_columns * WIDE + c]
                for k in range(GATES):
                    d = load4(slopes, step * LISTED + (k if k < SUMMED else k + skipped) * UNITS + 4 * of_units)
                    for c in range(WIDE):
                        sums[(4 * k) * WIDE + c] += d[0] * v[c]
                        sums[(4 * k + 1) * WIDE + c] += d[1] * v[c]
                        sums[(4 * k + 2) * WIDE + c] += d[2] * v[c]
                        sums[(4 * k + 3) * WIDE + c] += d[3] * v[c]
        if first_column == 0 and thread < LISTED * LISTENERS:
            for step in range(thread // LISTED, TILE, LISTENERS):
                bias += slopes[step * LISTED + thread % LISTED]
    base = (np.int64(cuda.blockIdx.x) * number + cuda.blockIdx.y) * (SUMS * TEAM + LISTED)
    for k in range(0, SUMS, ROUND):
        cuda.syncthreads()
        for a in range(ROUND):
            slopes[a * THREADS + thread] = sums[k + a]
        cuda.syncthreads()
        for e in range(thread, ROUND * TEAM, THREADS):
            a, j = e // TEAM, e % TEAM
            result = slopes[a * THREADS + j]
            for q in range(1, SLICES):
                result += slopes[a * THREADS + q * TEAM + j]
            out[base + (k + a) * TEAM + j] = result
    cuda.syncthreads()
    slopes[thread] = bias
    cuda.syncthreads()
    for e in range(thread, LISTED, THREADS):
        result = slopes[e]
        for q in range(1, LISTENERS):
            result += slopes[q * LISTED + e]
        out[base + SUMS * TEAM + e] = result


@kernel
def add_up(parts, totals, blocks, numbers):
    """totals += the sums of all blocks, in float64.

    A block has 32 neighbouring numbers, one a lane; its warps take the blocks of :func:`outer` in turn and are then added in
    order.
    """
    sums = cuda.shared.array(THREADS, np.float64)
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    at = cuda.blockIdx.x * 32 + lane
    total = np.float64(0)
    if at < numbers:
        for z in range(warp, blocks, THREADS // 32):
            total += np.float64(parts[np.int64(z) * numbers + at])
    sums[cuda.threadIdx.x] = total
    cuda.syncthreads()
    if warp == 0 and at < numbers:
        total = totals[at]
        for q in range(THREADS // 32):
            total += sums[q * 32 + lane]
        totals[at] = total


@kernel
def settle(totals, place, out, count):
    """out[e] = totals[place[e]]: from the order of the sums to that of the parameters; a thread takes one."""
    e = cuda.grid(1)
    if e < count:
        out[e] = REAL(totals[place[e]])


@kernel
def pull_inputs(states, previous, rows, adjoint, by_input, ratio, row_origin, origin, begin, length, count, steps, n, m, start,
                stop, dx):
    """dL/dx_t = W_ih^T d_t for ``count`` steps.

    A matrix product over time, as :func:`pitsolve.backends.cuda.preactivations.preactivate`: UNITS inputs and TILE steps a
    block, one input and STEPS steps a thread. Derivatives of BUNDLE units by all their gates are evaluated into shared memory
    at a time.
    """
    weights = cuda.shared.array(WEIGHTS, REAL, 16)
    values = cuda.shared.array(VALUES, REAL, 16)
    row = cuda.shared.array(TILE, np.int32)
    time = cuda.shared.array(TILE, np.int32)
    sums = cuda.local.array(STEPS, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)
    s = cuda.local.array(PARTS, REAL)
    total = cuda.local.array(PARTS, REAL)
    thread = cuda.threadIdx.x
    lane, group = thread % UNITS, thread // UNITS
    first_input = cuda.blockIdx.y * UNITS
    first_step = cuda.blockIdx.x * TILE
    locate(row, time, origin + first_step, origin + count, row_origin, begin, length, start, stop)
    for q in range(STEPS):
        sums[q] = REAL(0)
    for first in range(0, n, BUNDLE):
        cuda.syncthreads()
        for e in range(thread, WEIGHTS, THREADS):
            j, k, i = first_input + e % UNITS, e // UNITS % GATES, first + e // UNITS // GATES
            weights[e] = by_input[(k * n + i) * m + j] if j < m and i < n else REAL(0)
        for e in range(thread, TILE * BUNDLE, THREADS):
            unit, step = e % BUNDLE, e // BUNDLE
            i, t = first + unit, time[step]
            at = step * PITCH + unit * GATES
            if i < n and t >= 0:
                _, dp, _, _ = evaluate(rows, states, previous, adjoint, first_step + step, row[step], t, begin, steps,
                                       length, n, i, ratio, p, u, s, total)
                for k in range(GATES):
                    values[at + k] = pulled(dp, total, k)
            else:
                for k in range(GATES):
                    values[at + k] = REAL(0)
        cuda.syncthreads()
        for k in range(0, min(DEPTH, (n - first) * GATES), 4):
            at = k * UNITS + lane
            w0, w1, w2, w3 = weights[at], weights[at + UNITS], weights[at + 2 * UNITS], weights[at + 3 * UNITS]
            for q in range(STEPS):
                v4 = load4(values, (q * GROUPS + group) * PITCH + k)
                sums[q] += w0 * v4[0]
                sums[q] += w1 * v4[1]
                sums[q] += w2 * v4[2]
                sums[q] += w3 * v4[3]
    if first_input + lane < m:
        for q in range(STEPS):
            step = q * GROUPS + group
            if time[step] >= 0:
                dx[(np.int64(row[step]) * steps + time[step]) * m + first_input + lane] = sums[q]
