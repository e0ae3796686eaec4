"""One step of a cell and of its forward sensitivities S = dh / d(s, theta), in scalar arithmetic.

For a gated cell J and the direct part of J S + df/dtheta follow from the partial derivatives of its gates; a column of any
other cell is one complex step of the whole cell.
"""

from pitsolve.backends.cpu.general import TINY
from pitsolve.compile import constant, inline

GATES = constant("GATES")
PARTS = constant("PARTS")
gates = constant("gates")
bundle = constant("bundle")
step = constant("step")


@inline
def preactivations(own, x, h, n, columns, gate_rows):
    """p = W_ih x + b_ih and u = W_hh h + b_hh, unit by unit, into ``gate_rows`` (n, 2 GATES + PARTS)."""
    m, rows = x.size, GATES * n
    hidden = rows * m
    bias = hidden + rows * columns
    for k in range(GATES):
        for i in range(n):
            r = k * n + i
            at = i // columns * columns
            total = own[bias + r]
            for j in range(m):
                total += own[r * m + j] * x[j]
            gate_rows[i, k] = total
            total = own[bias + rows + r]
            for j in range(columns):
                total += own[hidden + r * columns + j] * h[at + j]
            gate_rows[i, GATES + k] = total
    for i in range(n):
        for c in range(PARTS):
            gate_rows[i, 2 * GATES + c] = h[c * n + i]


@inline
def head_columns(own, m, n):
    """Columns of weight_hh: the units that a unit sees; ``own`` ends with two states."""
    return (own.size - 2 * PARTS * n) // (GATES * n) - m - 2


@inline
def gated_step(own, x, h, ratio, gate_rows, new):
    n = gate_rows.shape[0]
    preactivations(own, x, h, n, head_columns(own, x.size, n), gate_rows)
    for i in range(n):
        row = gate_rows[i]
        parts = gates(row[:GATES], row[GATES:2 * GATES], row[2 * GATES:], ratio)[0]
        for a in range(PARTS):
            new[a * n + i] = parts[a]


@inline
def gated_sensitivities(own, x, h, ratio, gate_rows, jacobian, before, after, new):
    """f(h, x), its Jacobian J, and J S + df/dtheta, for columns ordered s, weight_ih, weight_hh, bias_ih, bias_hh."""
    n, m = gate_rows.shape[0], x.size
    size, rows = h.size, GATES * n
    columns = head_columns(own, m, n)
    preactivations(own, x, h, n, columns, gate_rows)
    jacobian[:] = 0.0
    hidden = rows * m
    for i in range(n):
        at = i // columns * columns
        row = gate_rows[i]
        parts, by_p, by_u, by_s = gates(row[:GATES], row[GATES:2 * GATES], row[2 * GATES:], ratio)
        for a in range(PARTS):
            new[a * n + i] = parts[a]
            slope = jacobian[a * n + i]
            for c in range(PARTS):
                slope[c * n + i] += by_s[a * PARTS + c]
            for k in range(GATES):
                for j in range(columns):
                    slope[at + j] += by_u[a * GATES + k] * own[hidden + (k * n + i) * columns + j]
            multiply_row(slope, before, after[a * n + i])
            add_direct(by_p, by_u, a, i, n, x, h, at, columns, after[a * n + i, size:])


@inline
def multiply_row(slope, before, out):
    """out = slope S, a row times a matrix, four rows of S at a time."""
    size = slope.size
    out[:] = 0.0
    j = 0
    while j + 4 <= size:
        f0, f1, f2, f3 = slope[j], slope[j + 1], slope[j + 2], slope[j + 3]
        b0, b1, b2, b3 = before[j], before[j + 1], before[j + 2], before[j + 3]
        for c in range(out.size):
            out[c] += f0 * b0[c] + f1 * b1[c] + f2 * b2[c] + f3 * b3[c]
        j += 4
    while j < size:
        f0, b0 = slope[j], before[j]
        for c in range(out.size):
            out[c] += f0 * b0[c]
        j += 1


@inline
def add_direct(by_p, by_u, a, i, n, x, h, at, columns, out):
    """The part of df/dtheta that belongs to part a of unit i."""
    m, rows = x.size, GATES * n
    bias = rows * (m + columns)
    for k in range(GATES):
        r = k * n + i
        dp, du = by_p[a * GATES + k], by_u[a * GATES + k]
        for j in range(m):
            out[r * m + j] += dp * x[j]
        for j in range(columns):
            out[rows * m + r * columns + j] += du * h[at + j]
        out[bias + r] += dp
        out[bias + rows + r] += du


@inline
def general_sensitivities(own, complex_own, cells, x, h, before, after, new):
    """f(h, x), and every column of J S + df/dtheta by one complex step in h and theta together."""
    n, m = h.size, x.size
    size = own.size - 2 * n
    step(bundle(own), x, h, new)
    theta, inputs = complex_own[:size], complex_own[size:size + m]
    state, moved = complex_own[size + m:size + m + n], complex_own[size + m + n:size + m + 2 * n]
    for k in range(size):
        theta[k] = own[k]
    for j in range(m):
        inputs[j] = x[j]
    p = bundle(theta)
    for c in range(before.shape[1]):
        for i in range(n):
            state[i] = complex(h[i], TINY * before[i, c])
        if c >= n:
            theta[c - n] = complex(own[c - n], TINY)
        step(p, inputs, state, moved)
        if c >= n:
            theta[c - n] = own[c - n]
        for i in range(n):
            after[i, c] = moved[i].imag / TINY
