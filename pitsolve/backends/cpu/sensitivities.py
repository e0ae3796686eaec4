"""Kernels that train a network in windows of time: rollouts, their losses, and the normal equations of Levenberg-Marquardt.

Window i of sequence b runs h_t = f(h_{t-1}, x_t; theta_i) from its own start s_{i,b} with its own parameters theta_i, and reads
out y_t = W h_t + c from the first entries of h_t. Its residuals are

    sqrt(w_t) (W h_t + c - y_t)          at every step, w_t being one over the number of windows that hold the step,
    sqrt(penalty) (h_t - anchor_t)       on the steps that it shares with a neighbour.

Forward sensitivities S_t = dh_t / d(s, theta) go along with the states: S_t = J_t S_{t-1} + df/dtheta. Everything is in
float64. A window reads nothing of another one: anchors come in, states on overlaps go out.
"""

import math

import numpy as np
from numba import prange

from pitsolve.backends.cpu.sensitivities_step import gated_sensitivities, gated_step, general_sensitivities
from pitsolve.compile import constant, inline, kernel

GATED = constant("GATED")  # whether the cell states its gates, or a whole step
bundle = constant("bundle")
step = constant("step")

ROWS = 8  # rows of the Jacobian that one update of the normal matrix takes


@kernel(parallel=True)
def rollout(theta, constants, starts, chosen, x, y, weight, first, last, penalty, anchors, ratio, own, gate_rows, states,
            edges, loss):
    """Half the squared residuals of every window and chosen sequence, (p, B, 2): outputs, overlaps; states where asked for.

    ``edges`` (p, B, 2, s, n) receives the states on the first and on the last s steps, ``states`` (p, B, L, n) the first L.
    """
    for number in prange(first.size * chosen.size):
        task = np.int64(number)
        i, position = task // chosen.size, task % chosen.size
        b = chosen[position]
        rollout_window(theta[i], constants, starts[i, b], x[b], y[b], weight, first[i], last[i], penalty[i:i + 2],
                       anchors[i, b], ratio, own[task], gate_rows[task], states[i, position], edges[i, position],
                       loss[i, position])


@kernel
def rollout_window(theta, constants, start, x, y, weight, first, last, penalty, anchors, ratio, own, gate_rows, states, edges,
                   loss):
    n = start.size
    overlap = edges.shape[1]
    cells = own.size - 2 * n - constants.size
    h, new = take_parameters(theta, constants, cells, start, own)
    loss[:] = 0.0
    for t in range(first, last):
        if GATED:
            gated_step(own, x[t], h, ratio, gate_rows, new)
        else:
            step(bundle(own), x[t], h, new)
        for i in range(n):
            h[i] = new[i]
        for q in range(y.shape[1]):
            difference = output(theta, cells, h, q, y.shape[1]) - y[t, q]
            loss[0] += 0.5 * weight[t] * difference * difference
        if t - first < states.shape[0]:
            states[t - first] = h
        for side in range(2):
            row = t - first if side == 0 else t - last + overlap
            if 0 <= row < overlap:
                for i in range(n):
                    edges[side, row, i] = h[i]
                    if penalty[side] > 0.0:
                        difference = h[i] - anchors[side, row, i]
                        loss[1] += 0.5 * penalty[side] * difference * difference


@inline
def take_parameters(theta, constants, cells, start, own):
    """The cell's parameters and constants at the head of ``own``; views of a state, set to the start, and of the next one."""
    n = start.size
    size = cells + constants.size
    for k in range(cells):
        own[k] = theta[k]
    for k in range(constants.size):
        own[cells + k] = constants[k]
    h, new = own[size:size + n], own[size + n:size + 2 * n]
    for i in range(n):
        h[i] = start[i]
    return h, new


@inline
def output(theta, cells, h, q, outputs):
    """Entry q of W h + c; W (outputs, k) and c follow the cell's parameters in ``theta``."""
    k = (theta.size - cells) // outputs - 1
    total = theta[cells + outputs * k + q]
    for j in range(k):
        total += theta[cells + q * k + j] * h[j]
    return total


@kernel(parallel=True)
def normal_equations(theta, constants, starts, free, chosen, x, y, weight, first, last, penalty, anchors, ratio, own,
                     complex_own, gate_rows, jacobian, slopes, rows, residuals, border, start_gradient, gram, gradient):
    """J^T J and J^T r of every window's residuals, by its starts and parameters.

    ``border`` (p, B, n, n + q) has the rows of the starts, one set a sequence; ``gram`` (p, groups, q, n + q) those of the q
    parameters, summed over a fixed group of sequences (its first n columns stay zero). Upper triangles only. ``free`` says
    which windows have starts to be found; the others' rows stay zero.
    """
    groups = gram.shape[1]
    for number in prange(first.size * groups):
        task = np.int64(number)
        i, group = task // groups, task % groups
        gram[i, group] = 0.0
        gradient[i, group] = 0.0
        for position in range(group * chosen.size // groups, (group + 1) * chosen.size // groups):
            b = chosen[position]
            add_sequence(theta[i], constants, starts[i, b], free[i], x[b], y[b], weight, first[i], last[i], penalty[i:i + 2],
                         anchors[i, b], ratio, own[task], complex_own[task], gate_rows[task], jacobian[task], slopes[task],
                         rows[task], residuals[task], border[i, position], start_gradient[i, position], gram[i, group],
                         gradient[i, group])


@kernel
def add_sequence(theta, constants, start, free, x, y, weight, first, last, penalty, anchors, ratio, own, complex_own, gate_rows,
                 jacobian, slopes, rows, residuals, border, start_gradient, gram, gradient):
    n = start.size
    overlap = anchors.shape[1]
    cells = slopes.shape[2] - n
    h, new = take_parameters(theta, constants, cells, start, own)
    border[:] = 0.0
    start_gradient[:] = 0.0
    slopes[0] = 0.0
    if free:
        for i in range(n):
            slopes[0, i, i] = 1.0
    filled = 0
    for t in range(first, last):
        before, after = slopes[(t - first) % 2], slopes[(t - first + 1) % 2]
        if GATED:
            gated_sensitivities(own, x[t], h, ratio, gate_rows, jacobian, before, after, new)
        else:
            general_sensitivities(own, complex_own, cells, x[t], h, before, after, new)
        for i in range(n):
            h[i] = new[i]
        for q in range(y.shape[1]):
            root = math.sqrt(weight[t])
            residuals[filled] = root * (output(theta, cells, h, q, y.shape[1]) - y[t, q])
            output_row(theta, cells, after, h, root, q, y.shape[1], rows[filled])
            filled = absorb(rows, residuals, filled + 1, border, start_gradient, gram, gradient)
        for side in range(2):
            row = t - first if side == 0 else t - last + overlap
            if 0 <= row < overlap and penalty[side] > 0.0:
                root = math.sqrt(penalty[side])
                for i in range(n):
                    residuals[filled] = root * (h[i] - anchors[side, row, i])
                    state_row(after[i], root, rows[filled])
                    filled = absorb(rows, residuals, filled + 1, border, start_gradient, gram, gradient)
    if filled > 0:
        rows[filled:] = 0.0
        residuals[filled:] = 0.0
        absorb(rows, residuals, ROWS, border, start_gradient, gram, gradient)


@inline
def output_row(theta, cells, slopes, h, root, q, outputs, row):
    """Row q of root d(W h + c)/d(s, theta)."""
    columns = slopes.shape[1]
    k = (theta.size - cells) // outputs - 1
    row[:] = 0.0
    for j in range(k):
        factor = root * theta[cells + q * k + j]
        slope = slopes[j]
        for c in range(columns):
            row[c] += factor * slope[c]
        row[columns + q * k + j] = root * h[j]
    row[columns + outputs * k + q] = root


@inline
def state_row(slope, root, row):
    row[:] = 0.0
    for c in range(slope.size):
        row[c] = root * slope[c]


@kernel
def absorb(rows, residuals, filled, border, start_gradient, gram, gradient):
    """Add the outer products of ``ROWS`` rows once there are so many; returns how many wait."""
    if filled < ROWS:
        return filled
    n = start_gradient.size
    add_products(rows, residuals, 0, border, start_gradient)
    add_products(rows, residuals, n, gram, gradient)
    return 0


@inline
def add_products(rows, residuals, first, matrix, vector):
    r0, r1, r2, r3, r4, r5, r6, r7 = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    for i in range(matrix.shape[0]):
        a = first + i
        f0, f1, f2, f3, f4, f5, f6, f7 = r0[a], r1[a], r2[a], r3[a], r4[a], r5[a], r6[a], r7[a]
        target = matrix[i]
        for j in range(a, target.size):
            target[j] += (f0 * r0[j] + f1 * r1[j] + f2 * r2[j] + f3 * r3[j]
                          + f4 * r4[j] + f5 * r5[j] + f6 * r6[j] + f7 * r7[j])
        vector[i] += (f0 * residuals[0] + f1 * residuals[1] + f2 * residuals[2] + f3 * residuals[3]
                      + f4 * residuals[4] + f5 * residuals[5] + f6 * residuals[6] + f7 * residuals[7])
