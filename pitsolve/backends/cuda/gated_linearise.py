"""f and its derivatives at every step of a slab at once, for gated cells.

A block holds ``UNITS`` neighbouring units (threadIdx.x) by ``STRANDS`` steps (threadIdx.y), and each thread ``STEPS`` steps of
its unit, ``STRANDS`` apart: a warp reads and writes neighbouring units of one step, then of the next. The recurrent products
are sums in registers. One weight, read by neighbouring threads from neighbouring addresses, serves the ``STEPS`` steps of the
thread; one state, the same address for all units of a head, serves all gates.

The blocks of the Jacobian are diag(du_k) W_k, summed over the gates k. Threads that own units would write them a row each, far
apart. So the factors du and ds go through shared memory, and the block writes element after element of the matrices.
"""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cuda.gated import BLOCKS, DIAGONAL, VALUE
from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import blocks_for, cuda, device, specialise
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
ORDER = constant("ORDER")  # what is written besides the defect: VALUE (nothing), DIAGONAL or BLOCKS
GATES = constant("GATES")
PARTS = constant("PARTS")
PARTS_GATES = constant("PARTS_GATES")
PARTS_PARTS = constant("PARTS_PARTS")
N = constant("N")  # units, the numbers of a part of the state
COLUMNS = constant("COLUMNS")  # units of a head
UNITS = constant("UNITS")
STRANDS = constant("STRANDS")
STEPS = constant("STEPS")
SUMS = constant("SUMS")  # STEPS x GATES
SPREAD = constant("SPREAD")  # steps of which a block writes Jacobians side by side
FACTORS = constant("FACTORS")  # numbers in shared memory: du and ds of every step and unit of the block
VECTOR = constant("VECTOR")  # columns read at once: 4, or 1 where a head has no multiple of 4 units
gates = constant("gates")

THREADS = 128


@kernel
def linearise_slab(drive, weight, matrix, bias, ratio, states, previous, defect, jacobian, begin, length, steps, start,
                   stop):
    """f(h_{t-1}, x_t) - h_t and derivatives; the mapping of threads is that of the module.

    ``weight`` (COLUMNS, GATES, N) has the weights of neighbouring units side by side. ``matrix`` is (GATES, N, COLUMNS) for the
    blocks and (GATES, N), of the elements W_k[i, i], for the diagonal.
    """
    factors = cuda.shared.array(FACTORS, REAL)  # du of every gate and ds, of every step and unit of the block
    chunks = np.uint32((length + STEPS * STRANDS - 1) // (STEPS * STRANDS))
    b = np.int64(np.uint32(cuda.blockIdx.x) // chunks)
    chunk = np.int64(np.uint32(cuda.blockIdx.x) - np.uint32(b) * chunks)
    from_step = begin + np.int32(chunk) * STEPS * STRANDS
    first, last = max(from_step, start[b]), min(min(from_step + STEPS * STRANDS, begin + length), stop[b])
    i = np.int32(cuda.blockIdx.y * UNITS + cuda.threadIdx.x)
    strand = np.int32(cuda.threadIdx.y)
    if i < N:
        outside(defect, b, from_step, first, last, begin, length, strand, i)
    if first < last:
        u = cuda.local.array(SUMS, REAL)
        if i < N:
            recurrent(weight, bias, states, previous, u, b, from_step, first, last, begin, steps, strand, i)
            for r in range(STEPS):
                t = from_step + r * STRANDS + strand
                if first <= t and t < last:
                    evaluate(drive, matrix, u, ratio, states, previous, defect, jacobian, factors, b, r, t, begin,
                             length, steps, strand, i)
        if ORDER == BLOCKS:
            cuda.syncthreads()
            write_blocks(matrix, factors, jacobian, b, from_step, first, last, begin, length)


@inline
def outside(defect, b, from_step, first, last, begin, length, strand, i):
    """The defect is zero before the start and after the end of a sequence."""
    for r in range(STEPS):
        t = from_step + r * STRANDS + strand
        if t < begin + length and (t < first or t >= last):
            for a in range(PARTS):
                defect[(b * length + t - begin) * PARTS * N + a * N + i] = 0.0


@inline
def recurrent(weight, bias, states, previous, u, b, from_step, first, last, begin, steps, strand, i):
    """u[r, k] = b_k + W_k h_{t-1} for the steps r of a thread and all gates k."""
    head = i // COLUMNS * COLUMNS
    for r in range(STEPS):
        for k in range(GATES):
            u[r * GATES + k] = bias[k * N + i]
    for j in range(0, COLUMNS, VECTOR):
        for r in range(STEPS):
            # Steps outside the range take the nearest inside, or one whose state before exists.
            t = min(max(from_step + r * STRANDS + strand, first), last - 1)
            if r > 0:
                t = max(t, begin + 1)
            if r == 0 and t == begin:
                add_products(weight, previous, b * PARTS * N + head + j, u, r, j, i)
            else:
                add_products(weight, states, (b * steps + t - 1) * PARTS * N + head + j, u, r, j, i)


@inline
def add_products(weight, h, at, u, r, j, i):
    """u[r, k] += W_k[i, j ...] h[j ...] for one step and ``VECTOR`` columns."""
    if VECTOR == 4:
        values = load4(h, at)
        for v in range(4):
            for k in range(GATES):
                u[r * GATES + k] += weight[((j + v) * GATES + k) * N + i] * values[v]
    else:
        for k in range(GATES):
            u[r * GATES + k] += weight[(j * GATES + k) * N + i] * h[at]


@inline
def evaluate(drive, matrix, u, ratio, states, previous, defect, jacobian, factors, b, r, t, begin, length, steps,
             strand, i):
    """The gates of one unit at one step."""
    p = cuda.local.array(GATES, REAL)
    v = cuda.local.array(GATES, REAL)
    s = cuda.local.array(PARTS, REAL)
    row = b * length + t - begin
    for k in range(GATES):
        p[k] = drive[row * GATES * N + k * N + i]
        v[k] = u[r * GATES + k]
    for a in range(PARTS):
        if t == begin:
            s[a] = previous[b * PARTS * N + a * N + i]
        else:
            s[a] = states[(b * steps + t - 1) * PARTS * N + a * N + i]
    new, _, by_u, by_s = gates(p, v, s, ratio)
    for a in range(PARTS):
        defect[row * PARTS * N + a * N + i] = new[a] - states[(b * steps + t) * PARTS * N + a * N + i]
    if ORDER == DIAGONAL:
        slope = by_s[0]
        for k in range(GATES):
            slope += by_u[k] * matrix[k * N + i]
        jacobian[row * PARTS * N + i] = slope
        for a in range(1, PARTS):
            jacobian[row * PARTS * N + a * N + i] = by_s[a * PARTS + a]
    if ORDER == BLOCKS:
        at = (r * STRANDS + strand) * (PARTS_GATES + PARTS_PARTS) * UNITS + cuda.threadIdx.x
        for k in range(PARTS_GATES):
            factors[at + k * UNITS] = by_u[k]
        for c in range(PARTS_PARTS):
            factors[at + (PARTS_GATES + c) * UNITS] = by_s[c]


@inline
def write_blocks(matrix, factors, jacobian, b, from_step, first, last, begin, length):
    """J = sum_k diag(du_k) W_k in the columns of h, diag(ds) in those of the other parts: neighbours write neighbours."""
    thread = np.int32(cuda.threadIdx.y * UNITS + cuda.threadIdx.x)
    corner = np.int32(cuda.blockIdx.y) * UNITS
    units = min(UNITS, N - corner)
    side = thread // (UNITS * COLUMNS) if SPREAD > 1 else 0
    weights = cuda.local.array(GATES, REAL)
    for element in range(thread - side * UNITS * COLUMNS, units * COLUMNS if side < SPREAD else 0, UNITS * STRANDS):
        unit = element // COLUMNS
        j = element - unit * COLUMNS
        i = corner + unit
        head = i // COLUMNS
        own = i - head * COLUMNS
        for k in range(GATES):
            weights[k] = matrix[(k * N + corner) * COLUMNS + element]
        for step in range(side, STEPS * STRANDS, SPREAD):
            t = from_step + step
            if first <= t and t < last:
                at = step * (PARTS_GATES + PARTS_PARTS) * UNITS + unit
                block = ((b * length + t - begin) * (N // COLUMNS) + head) * (PARTS * COLUMNS) * (PARTS * COLUMNS)
                for a in range(PARTS):
                    out = block + (a * COLUMNS + own) * (PARTS * COLUMNS) + j
                    total = factors[at + (PARTS_GATES + a * PARTS) * UNITS] if j == own else REAL(0)
                    for k in range(GATES):
                        total += factors[at + (a * GATES + k) * UNITS] * weights[k]
                    jacobian[out] = total
                    for c in range(1, PARTS):
                        jacobian[out + c * COLUMNS] = (factors[at + (PARTS_GATES + a * PARTS + c) * UNITS] if j == own
                                                       else REAL(0))


def linearise(model, order: int, x, states, previous, begin: int, end: int, start: np.ndarray, stop: np.ndarray) -> tuple:
    """f(h_{t-1}, x_t) - h_t (B, L, S) and its Jacobian: none, diagonal (B, L, S) or blocks (B, L, k, m, m)."""
    batch, length = x.shape[0], end - begin
    heads, m = model.cell.blocks
    shape = {VALUE: (1, 1, 1), DIAGONAL: (batch, length, model.cell.state_size), BLOCKS: (batch, length, heads, m, m)}[order]
    jacobian = model.work.take(f"jacobian{order}", *shape)
    return _launch(model, order, x, states, previous, begin, end, start, stop, jacobian), jacobian


def _launch(model, order, x, states, previous, begin, end, start, stop, jacobian):
    cell, weights, length = model.cell, model.weights, end - begin
    n, columns = cell.hidden_size, weights.columns
    drive = model.project(x, begin, end, start, stop)
    defect = model.work.take("defect", x.shape[0], length, cell.state_size)
    units = min(n, THREADS)
    strands = max(1, THREADS // units)
    steps = 4 if cell.PARTS == 1 or model.dtype == np.float32 else 2  # more would not fit the registers
    of_step = cell.PARTS * (cell.GATES + cell.PARTS) * units * strands
    matrix = own_weights(weights) if order == DIAGONAL else weights.hidden
    flat = (array.reshape(-1) for array in (states, previous, defect, jacobian))
    specialise(linearise_slab, model.dtype, **weights.constants, ORDER=order, PARTS_GATES=cell.PARTS * cell.GATES,
               PARTS_PARTS=cell.PARTS**2, N=n, COLUMNS=columns, UNITS=units, STRANDS=strands, STEPS=steps,
               SUMS=steps * cell.GATES, SPREAD=max(1, strands // columns), FACTORS=steps * of_step if order == BLOCKS else 1,
               VECTOR=4 if columns % 4 == 0 else 1)(
        (x.shape[0] * blocks_for(length, steps * strands), blocks_for(n, units)), (units, strands),
        drive.reshape(-1), weights.hidden_transposed, matrix, weights.hidden_bias, float(cell.ratio), *flat, begin, length,
        x.shape[1], device().indices(start), device().indices(stop))
    return defect


def own_weights(weights):
    """W_k[i, i] of every gate k and unit i."""
    if "hidden_diagonal" not in vars(weights):
        n, columns = weights.cell.hidden_size, weights.columns
        by_gate = weights.host["weight_hh"].reshape(weights.cell.GATES, n, columns)
        weights.hidden_diagonal = weights.upload(by_gate[:, np.arange(n), np.arange(n) % columns])
    return weights.hidden_diagonal
