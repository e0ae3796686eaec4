"""Forward kernels of gated cells: project the inputs, propagate in time, linearise everywhere at once.

Every array row of gate values is padded: ``GATES`` groups of ``units`` numbers, ``units`` being hidden_size rounded up to
whole vectors. States stay in the user's layout (n numbers a part, no padding); the last vector of a part is masked.

Recurrent products u = W h + b take one of two forms. With one head they are tiles of a matrix product. With heads of HEAD
units, HEAD dividing LANES, a vector holds whole heads, and the product is HEAD multiply-adds with h shuffled within them.
"""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.products import head_product, tile
from pitsolve.backends.cpu.simd import load, store
from pitsolve.backends.cpu.tuples import add, contract
from pitsolve.compile import constant, inline, kernel

GATES = constant("GATES")
PARTS = constant("PARTS")
LANES = constant("LANES")
HEADED = constant("HEADED")  # whether the products run on heads of HEAD units, or on one dense matrix
HEAD = constant("HEAD")
STEP_VECTORS = constant("STEP_VECTORS")  # vectors and accumulator sets of the matrix-vector tile of one time step
STEP_SETS = constant("STEP_SETS")
TILE_VECTORS = constant("TILE_VECTORS")  # vectors of the matrix-matrix tile
SOURCE = constant("SOURCE")  # whether `propagate` adds one
ORDER = constant("ORDER")  # what `linearise` writes: VALUE, DIAGONAL, BLOCKS or PARTIALS
gates = constant("gates")

VALUE, DIAGONAL, BLOCKS, PARTIALS = 0, 1, 2, 3
CHUNK = 64  # time steps of one parallel task; fixed, so that no result depends on the number of threads


@kernel
def product_rows(a, a_at, a_row, a_step, length, packed, packed_at, blocks, start, start_at, start_block, out, out_at, out_row,
                 count):
    """out[r] = start + sum_k A[r, k] packed[k] for ``count`` rows of A, eight rows a tile."""
    block = TILE_VECTORS * LANES
    for q in range(blocks):
        b_at = packed_at + q * length * block
        s_at = start_at + q * start_block
        o_at = out_at + q * block
        r = 0
        while r + 8 <= count:
            tile(a, a_at + r * a_row, a_row, a_step, packed, b_at, length, start, s_at, 0, out, o_at + r * out_row, out_row,
                 8, TILE_VECTORS, 1, LANES)
            r += 8
        while r < count:
            tile(a, a_at + r * a_row, 0, a_step, packed, b_at, length, start, s_at, 0, out, o_at + r * out_row, 0,
                 1, TILE_VECTORS, 1, LANES)
            r += 1


@inline
def affine_rows(a, a_at, a_row, packed, bias, out, out_at, out_row, count):
    """out[r] = bias + W a[r] for ``count`` rows."""
    blocks, length, block = packed.shape
    product_rows(a, a_at, a_row, 1, length, packed, 0, blocks, bias, 0, block, out, out_at, out_row, count)


@inline
def product_heads(h, weight, bias, units, i, out, out_at):
    """u[k, i] = b[k, i] + sum_j W[k, j, i] h[first unit of i's head + j], for one vector of units and every gate."""
    for k in range(GATES):
        start = load(bias, k * units + i, 0, LANES, 1, LANES)
        store(out, out_at + k * units + i, 0, LANES, head_product(h, weight, k * HEAD * units + i, units, start, HEAD))


@kernel(parallel=True)
def project(x, weight, bias, drive, begin, start, stop):
    """drive[b, t - begin] = W_ih x[b, t] + b_ih for one slab of time."""
    length = drive.shape[1]
    chunks = (length + CHUNK - 1) // CHUNK
    for number in prange(x.shape[0] * chunks):
        task = np.int64(number)
        project_chunk(x, weight, bias, drive, begin, start, stop, task // chunks, task % chunks)


@kernel
def project_chunk(x, weight, bias, drive, begin, start, stop, b, chunk):
    _, steps, m = x.shape
    _, length, width = drive.shape
    first = max(begin + chunk * CHUNK, start[b])
    last = min(begin + min(length, (chunk + 1) * CHUNK), stop[b])
    if first < last:
        affine_rows(x, (b * steps + first) * m, m, weight, bias, drive, (b * length + first - begin) * width, width,
                    last - first)


@kernel(parallel=True)
def propagate(drive, weight, bias, source, ratio, state, u, states, begin, start, stop):
    """h_t = f(h_{t-1}, x_t) + g_t through one slab, every row of the batch on its own; ``state`` carries the padded state.

    g is ``source`` (B, T, S), if ``SOURCE`` says that there is one.
    """
    for number in prange(states.shape[0]):
        b = np.int64(number)
        propagate_row(drive, weight, bias, source, ratio, state, u, states, begin, start, stop, b)


@kernel
def propagate_row(drive, weight, bias, source, ratio, state, u, states, begin, start, stop, b):
    _, steps, size = states.shape
    _, length, width = drive.shape
    n = size // PARTS
    units = state.shape[1] // PARTS
    state_at = b * state.shape[1]
    u_at = b * u.shape[1]
    block = STEP_VECTORS * LANES
    for t in range(max(begin, start[b]), min(begin + length, stop[b])):
        if HEADED:
            for i in range(0, n, LANES):
                product_heads(load(state, state_at + i, 0, LANES, 1, LANES), weight, bias, units, i, u, u_at)
        else:
            blocks = weight.shape[0]
            for q in range(blocks):
                # Alternate the direction: the block used last is still in the first-level cache.
                k = q if t % 2 == 0 else blocks - 1 - q
                tile(state, state_at, 0, 1, weight, k * n * block, n, bias, k * block, 0, u, u_at + k * block, 0,
                     1, STEP_VECTORS, STEP_SETS, LANES)
        drive_at = (b * length + t - begin) * width
        out_at = (b * steps + t) * size
        for i in range(0, n, LANES):
            p = load(drive, drive_at + i, units, LANES, GATES, LANES)
            v = load(u, u_at + i, units, LANES, GATES, LANES)
            s = load(state, state_at + i, units, LANES, PARTS, LANES)
            new = gates(p, v, s, ratio)[0]
            if SOURCE:
                new = add(new, load(source, out_at + i, n, n - i, PARTS, LANES))
            store(state, state_at + i, units, LANES, new)
            store(states, out_at + i, n, n - i, new)


@kernel(parallel=True)
def linearise(drive, weight, bias, matrix, ratio, states, previous, u, defect, dp, du, ds, jacobian, begin, start, stop):
    """f and its derivatives at every t of one slab, from the states of the current iterate.

    ``defect`` receives f(h_{t-1}, x_t) - h_t. ``previous`` holds the state before the slab. By ``ORDER``, ``jacobian`` receives
    the diagonal (B, L, n) or the blocks (B, L, k, m, m), or ``dp``, ``du``, ``ds`` the partial derivatives of the gates.
    """
    chunks = (defect.shape[1] + CHUNK - 1) // CHUNK
    for number in prange(states.shape[0] * chunks):
        task = np.int64(number)
        linearise_chunk(drive, weight, bias, matrix, ratio, states, previous, u, defect, dp, du, ds, jacobian, begin,
                        start, stop, task // chunks, task % chunks)


@kernel
def linearise_chunk(drive, weight, bias, matrix, ratio, states, previous, u, defect, dp, du, ds, jacobian, begin, start,
                    stop, b, chunk):
    _, steps, size = states.shape
    _, length, width = drive.shape
    n = size // PARTS
    units = du.shape[2] // (PARTS * GATES)
    task = b * ((length + CHUNK - 1) // CHUNK) + chunk
    first = max(begin + chunk * CHUNK, start[b])
    last = min(begin + min(length, (chunk + 1) * CHUNK), stop[b])
    if first < last:
        recurrent_rows(weight, bias, states, previous, u, begin, length, n, units, b, first, last)
    for t in range(first, last):
        row = b * length + t - begin
        # Partials are kept for the whole slab only when the caller wants them, else for one step of this task.
        at = row if ORDER == PARTIALS else task
        for i in range(0, n, LANES):
            valid = n - i
            p = load(drive, row * width + i, units, LANES, GATES, LANES)
            v = load(u, row * u.shape[2] + i, units, LANES, GATES, LANES)
            if t == begin:
                s = load(previous, b * size + i, n, valid, PARTS, LANES)
            else:
                s = load(states, (b * steps + t - 1) * size + i, n, valid, PARTS, LANES)
            new, by_p, by_u, by_s = gates(p, v, s, ratio)
            store(defect, row * size + i, n, valid, new)
            if ORDER == PARTIALS:
                store(dp, at * dp.shape[2] + i, units, LANES, by_p)
            if ORDER != VALUE:
                store(du, at * du.shape[2] + i, units, LANES, by_u)
                store(ds, at * ds.shape[2] + i, units, LANES, by_s)
            if ORDER == DIAGONAL:
                write_diagonal(matrix, du, ds, at, units, i, jacobian, row * size, n)
        new_row = defect[b, t - begin]
        old_row = states[b, t]
        for i in range(size):
            new_row[i] -= old_row[i]
        if ORDER == BLOCKS:
            _, _, heads, block, _ = jacobian.shape
            write_blocks(matrix, du[task, 0], ds[task, 0], units, jacobian, row * heads * block * block, heads, block // PARTS)


@inline
def recurrent_rows(weight, bias, states, previous, u, begin, length, n, units, b, first, last):
    """u[t] = W h_{t-1} + b for first <= t < last."""
    _, steps, size = states.shape
    width = u.shape[2]
    if HEADED:
        for t in range(first, last):
            for i in range(0, n, LANES):
                if t == begin:
                    h = load(previous, b * size + i, 0, n - i, 1, LANES)
                else:
                    h = load(states, (b * steps + t - 1) * size + i, 0, n - i, 1, LANES)
                product_heads(h, weight, bias, units, i, u, (b * length + t - begin) * width)
    else:
        if first == begin:
            affine_rows(previous, b * size, size, weight, bias, u, b * length * width, width, 1)
            first += 1
        affine_rows(states, (b * steps + first - 1) * size, size, weight, bias, u,
                    (b * length + first - begin) * width, width, last - first)


@inline
def write_diagonal(matrix, du, ds, at, units, i, jacobian, out, n):
    """Diagonal of the Jacobian for one vector of units: sum_k du[k] W_k[i, i] + ds, never through the dense matrix."""
    weights = load(matrix, i, units, LANES, GATES, LANES)
    slopes = load(du, at * du.shape[2] + i, units, LANES, GATES, LANES)
    own = load(ds, at * ds.shape[2] + i, 0, LANES, 1, LANES)
    store(jacobian, out + i, 0, n - i, add(contract(weights, slopes), own))
    for a in range(1, PARTS):
        own = load(ds, at * ds.shape[2] + (a * PARTS + a) * units + i, 0, LANES, 1, LANES)
        store(jacobian, out + a * n + i, 0, n - i, own)


@inline
def write_blocks(matrix, du, ds, units, jacobian, at, heads, m):
    """Blocks of the Jacobian: sum_k diag(du[a, k]) W_k in the columns of h, diag(ds[a, c]) in those of part c.

    ``matrix`` (n, GATES + 1, .) keeps one row of every W_k side by side, and the same row of the identity after them.
    """
    columns = matrix.shape[2]
    size = PARTS * m
    for a in range(PARTS):
        for i in range(heads * m):
            head, r = i // m, i % m
            row = at + (head * size + a * m + r) * size
            for j in range(0, m, LANES):
                weights = i * (GATES + 1) * columns + j
                unit = load(matrix, weights + GATES * columns, 0, LANES, 1, LANES)[0]
                total = unit * ds[a * PARTS * units + i]
                for k in range(GATES):
                    factor = du[(a * GATES + k) * units + i]
                    total = total + load(matrix, weights + k * columns, 0, LANES, 1, LANES)[0] * factor
                store(jacobian, row + j, 0, m - j, (total,))
                for c in range(1, PARTS):
                    store(jacobian, row + c * m + j, 0, m - j, (unit * ds[(a * PARTS + c) * units + i],))
