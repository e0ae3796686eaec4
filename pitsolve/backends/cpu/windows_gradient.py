"""Parameter and input gradients of gated cells over windows of time: products over the steps and lanes of a backward sweep.

The gradient of [W_hh, W_ih] is the sum of dL/d(gates) [h_{t-1}, x_t]^T over all steps and windows. Rows [h, x] are packed, some
steps at a time, so that one tile sums over the windows and steps of a batch.
"""

from pitsolve.backends.cpu.products import tile
from pitsolve.backends.cpu.simd import load, store
from pitsolve.backends.cpu.tuples import add
from pitsolve.backends.cpu.windows import COUNT, GATES, LANES, ROWS, SUMMED, VECTORS
from pitsolve.compile import constant, inline, kernel

OUTER_VECTORS = constant("OUTER_VECTORS")  # vectors of the tiles of the parameter gradients


@kernel
def pull_inputs(to_input, gate, units, pulled, j):
    """dL/dx of the step in slot j, added to what is there."""
    width = LANES * VECTORS
    blocks = to_input.shape[0]
    for q in range(blocks):
        out = (j * blocks + q) * ROWS * width
        tile(to_input, q * GATES * units * ROWS, 1, ROWS, gate, GATES * units * width, GATES * units, pulled, out, width,
             pulled, out, width, ROWS, VECTORS, 1, LANES)


@kernel
def pack_rows(x, states, previous, row, first, task, index, t, n, packed, most, waiting):
    """The rows [h_{t-1}, x_t] of every window in the order in which tiles read them; zeros where a window has no step t."""
    width = LANES * VECTORS
    columns = OUTER_VECTORS * LANES
    m = x.shape[2]
    for lane in range(width):
        at = (waiting * width + lane) * columns
        if t < index[COUNT, lane]:
            w = task * width + lane
            b, time = row[w], first[w] + t
            h = previous[b] if time == 0 else states[b, time - 1]
            copy_row(h, n, packed, at, 0, columns, most * width * columns)
            copy_row(x[b, time], m, packed, at, n, columns, most * width * columns)
        else:
            for q in range((n + m + columns - 1) // columns):
                for i in range(columns):
                    packed[q * most * width * columns + at + i] = 0.0


@inline
def copy_row(values, count, packed, at, begin, columns, block):
    """``count`` values to columns ``begin`` and after, which run through several blocks of columns."""
    i = 0
    while i < count:
        q, c = (begin + i) // columns, (begin + i) % columns
        end = min(count, i + columns - c)
        to = q * block + at + c - i
        for k in range(i, end):
            packed[to + k] = values[k]
        i = end


@kernel
def multiply_batch(batch, packed, waiting, units, m, n, partial, biases):
    """partial[r] += sum over the steps and windows of a batch of dL/d(row r) [h_{t-1}, x_t]; biases[r] += dL/d(row r)."""
    width = LANES * VECTORS
    columns = OUTER_VECTORS * LANES
    row = batch.shape[1]
    blocks = partial.shape[1] // columns
    for r in range(0, 2 * GATES * units, ROWS):
        gate = r // units % GATES
        by_p = r >= GATES * units
        begin, end = 0, blocks
        if gate >= SUMMED:
            begin = n // columns if by_p else 0
            end = blocks if by_p else (n + columns - 1) // columns
        if gate >= SUMMED or not by_p:
            for q in range(begin, end):
                out = r * blocks * columns + q * columns
                tile(batch, r * row, row, 1, packed, q * row * columns, waiting * width, partial, out, blocks * columns,
                     partial, out, blocks * columns, ROWS, OUTER_VECTORS, 1, LANES)
    for r in range(2 * GATES * units):
        total = load(biases, r * LANES, 0, LANES, 1, LANES)
        for i in range(0, waiting * width, LANES):
            total = add(total, load(batch, r * row + i, 0, LANES, 1, LANES))
        store(biases, r * LANES, 0, LANES, total)


@kernel
def add_up(partial, totals):
    """Partial sums to the float64 totals, and zero."""
    for r in range(totals.shape[0]):
        for i in range(totals.shape[1]):
            totals[r, i] += partial[r, i]
            partial[r, i] = 0.0
