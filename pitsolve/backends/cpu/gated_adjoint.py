"""Backward kernels of gated cells: the adjoint recurrence, and the parameter gradients as matrix products over time."""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.gated import (
    CHUNK,
    GATES,
    HEAD,
    HEADED,
    LANES,
    PARTS,
    STEP_SETS,
    STEP_VECTORS,
    TILE_VECTORS,
    affine_rows,
    product_rows,
)
from pitsolve.backends.cpu.products import head_outer, head_product, tile
from pitsolve.backends.cpu.simd import load, store
from pitsolve.backends.cpu.tuples import add, contract
from pitsolve.compile import constant, inline, kernel

PARTS_GATES = constant("PARTS_GATES")  # PARTS * GATES and PARTS * PARTS: a product of literals is not a literal
PARTS_PARTS = constant("PARTS_PARTS")

PIECE = 256  # time steps summed in the working precision before they are added to a float64 total


@inline
def pull_heads(v, v_at, n, units, weight, out, out_at):
    """out[i] += sum_k sum_j W[k, j, i] v[k, first unit of i's head + j]."""
    for i in range(0, n, LANES):
        total = load(out, out_at + i, 0, LANES, 1, LANES)
        for k in range(GATES):
            gate = load(v, v_at + k * units + i, 0, LANES, 1, LANES)
            total = head_product(gate, weight, k * HEAD * units + i, units, total, HEAD)
        store(out, out_at + i, 0, LANES, total)


@kernel(parallel=True)
def backward(dstates, weight, zero, du, ds, carry, v, product, adjoint, begin, start, stop):
    """lambda_t = dL/dh_t + J_{t+1}^T lambda_{t+1} down one slab; ``carry`` holds J_{t+1}^T lambda_{t+1}, padded."""
    for number in prange(dstates.shape[0]):
        b = np.int64(number)
        backward_row(dstates, weight, zero, du, ds, carry, v, product, adjoint, begin, start, stop, b)


@kernel
def backward_row(dstates, weight, zero, du, ds, carry, v, product, adjoint, begin, start, stop, b):
    _, steps, size = dstates.shape
    length = adjoint.shape[1]
    n = size // PARTS
    units = carry.shape[1] // PARTS
    block = STEP_VECTORS * LANES
    carry_at, v_at, product_at = b * carry.shape[1], b * v.shape[1], b * product.shape[1]
    for t in range(min(begin + length, stop[b]) - 1, max(begin, start[b]) - 1, -1):
        row = b * length + t - begin
        for i in range(0, n, LANES):
            total = add(load(dstates, (b * steps + t) * size + i, n, n - i, PARTS, LANES),
                        load(carry, carry_at + i, units, LANES, PARTS, LANES))
            store(adjoint, row * size + i, n, n - i, total)
            store(v, v_at + i, units, LANES, contract(load(du, row * du.shape[2] + i, units, LANES, PARTS_GATES, LANES), total))
            store(carry, carry_at + i, units, LANES,
                  contract(load(ds, row * ds.shape[2] + i, units, LANES, PARTS_PARTS, LANES), total))
        if HEADED:
            pull_heads(v, v_at, n, units, weight, carry, carry_at)
        else:
            blocks, rows, _ = weight.shape
            for q in range(blocks):
                # Alternate the direction: the block used last is still in the first-level cache.
                k = q if t % 2 == 0 else blocks - 1 - q
                tile(v, v_at, 0, 1, weight, k * rows * block, rows, zero, 0, 0, product, product_at + k * block, 0,
                     1, STEP_VECTORS, STEP_SETS, LANES)
            for i in range(0, n, LANES):
                store(carry, carry_at + i, 0, LANES, add(load(carry, carry_at + i, 0, LANES, 1, LANES),
                                                         load(product, product_at + i, 0, LANES, 1, LANES)))


@kernel(parallel=True)
def pull(adjoint, dp, du, weight, zero, padded, dx, begin, start, stop):
    """dL/dp_t and dL/du_t in place of the first ``GATES`` groups of ``dp`` and ``du``; dL/dx_t = W_ih^T dL/dp_t."""
    chunks = (adjoint.shape[1] + CHUNK - 1) // CHUNK
    for number in prange(adjoint.shape[0] * chunks):
        task = np.int64(number)
        pull_chunk(adjoint, dp, du, weight, zero, padded, dx, begin, start, stop, task // chunks, task % chunks)


@kernel
def pull_chunk(adjoint, dp, du, weight, zero, padded, dx, begin, start, stop, b, chunk):
    _, length, size = adjoint.shape
    width = dp.shape[2]
    n = size // PARTS
    units = width // (PARTS * GATES)
    inputs = dx.shape[2]
    first = max(begin + chunk * CHUNK, start[b])
    last = min(begin + min(length, (chunk + 1) * CHUNK), stop[b])
    for t in range(first, last):
        row = b * length + t - begin
        for i in range(0, n, LANES):
            total = load(adjoint, row * size + i, n, n - i, PARTS, LANES)
            by_p = contract(load(dp, row * width + i, units, LANES, PARTS_GATES, LANES), total)
            by_u = contract(load(du, row * width + i, units, LANES, PARTS_GATES, LANES), total)
            store(dp, row * width + i, units, LANES, by_p)
            store(du, row * width + i, units, LANES, by_u)
    if first < last and inputs > 0:
        at = (b * length + first - begin) * padded.shape[2]
        affine_rows(dp, (b * length + first - begin) * width, width, weight, zero, padded, at, padded.shape[2], last - first)
        for t in range(first, last):
            row, out = padded[b, t - begin], dx[b, t]
            for i in range(inputs):
                out[i] = row[i]


@kernel(parallel=True)
def accumulate(x, states, previous, dp, du, packed, products, zero, by_input, by_state, biases, begin, start, stop):
    """Add the outer products of one slab to the float64 totals of each task.

    ``by_input`` (tasks, GATES units, .) gathers sum_t dL/dp_t x_t^T, ``by_state`` sum_t dL/du_t h_{t-1}^T, ``biases`` the
    plain sums. The number of tasks is fixed and each adds its share in order, so the totals do not depend on threads.
    """
    length = dp.shape[1]
    pieces = (length + PIECE - 1) // PIECE
    units = x.shape[0] * pieces
    tasks = by_input.shape[0]
    for number in prange(tasks):
        task = np.int64(number)
        for unit in range(task * units // tasks, (task + 1) * units // tasks):
            accumulate_piece(x, states, previous, dp, du, packed[task], products[task], zero, by_input[task],
                             by_state[task], biases[task], begin, start, stop, unit // pieces, unit % pieces)


@kernel
def accumulate_piece(x, states, previous, dp, du, packed, products, zero, by_input, by_state, biases, begin, start, stop,
                     b, piece):
    length, width = dp.shape[1:]
    n = states.shape[2] // PARTS
    first = max(begin + piece * PIECE, start[b])
    last = min(begin + min(length, (piece + 1) * PIECE), stop[b])
    if first >= last:
        return
    row = (b * length + first - begin) * width
    outer_product(x, previous, False, b, begin, first, last, x.shape[2], dp, row, width, packed, products, zero, by_input)
    add_rows(dp, b, begin, first, last, biases[0])
    if HEADED:
        outer_heads(states, previous, b, begin, first, last, n, du, row, width, products, by_state)
    else:
        outer_product(states, previous, True, b, begin, first, last, n, du, row, width, packed, products, zero, by_state)
    add_rows(du, b, begin, first, last, biases[1])


@inline
def outer_product(values, previous, shifted, b, begin, first, last, n, gate, gate_at, width, packed, products, zero, total):
    """total[r, i] += sum_t gate[t, r] values[t, i] (or values[t - 1, i]): pack the values, multiply, add in float64."""
    block = TILE_VECTORS * LANES
    count = last - first
    blocks = (n + block - 1) // block
    for q in range(blocks):
        for t in range(first, last):
            at = (q * count + t - first) * block
            for i in range(block):
                packed[at + i] = 0.0
            source = values[b, t]
            if shifted:
                source = previous[b] if t == begin else values[b, t - 1]
            for i in range(q * block, min(n, (q + 1) * block)):
                packed[at + i - q * block] = source[i]
    rows, columns = total.shape
    product_rows(gate, gate_at, 1, width, count, packed, 0, blocks, zero, 0, 0, products, 0, blocks * block, rows)
    for r in range(rows):
        for i in range(columns):
            total[r, i] += products[r * blocks * block + i]


@inline
def add_rows(gate, b, begin, first, last, total):
    """total += sum_t gate[t]."""
    for t in range(first, last):
        row = gate[b, t - begin]
        for r in range(total.shape[0]):
            total[r] += row[r]


@inline
def outer_heads(states, previous, b, begin, first, last, n, gate, gate_at, width, sums, total):
    """total[k HEAD + j, i] += sum_t gate[t, k, i] h_{t-1}[first unit of i's head + j], added in float64."""
    rows, units = total.shape
    _, steps, size = states.shape
    for s in range(rows * units):
        sums[s] = 0.0
    for t in range(first, last):
        for i in range(0, n, LANES):
            if t == begin:
                h = load(previous, b * size + i, 0, n - i, 1, LANES)
            else:
                h = load(states, (b * steps + t - 1) * size + i, 0, n - i, 1, LANES)
            for k in range(GATES):
                value = load(gate, gate_at + (t - first) * width + k * units + i, 0, LANES, 1, LANES)
                head_outer(value, h, sums, k * HEAD * units + i, units, HEAD)
    for r in range(rows):
        for i in range(units):
            total[r, i] += sums[r * units + i]
