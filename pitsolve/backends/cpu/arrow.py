"""Damped normal equations of windows with many sequences: the starts are eliminated one by one, the parameters remain.

For one window, with the rows of its starts s_b and of its parameters,

    [ A_b + damping D     C_b           ] [ds_b  ]     [ g_b ]
    [ sum_b of C_b^T      G + damping D ] [dtheta] = - [ g   ] ,

so (G + damping D - sum_b C_b^T (A_b + damping D)^{-1} C_b) dtheta = -g + sum_b C_b^T (A_b + damping D)^{-1} g_b.
"""

import math

import numpy as np
from numba import prange

from pitsolve.compile import inline, kernel


@kernel(parallel=True)
def solve(border, start_gradient, gram, gradient, ridge, pull, damping, wanted, work, schur, kept, theta_step, start_step,
          decrease):
    """The step of every wanted window and the decrease that its quadratic model predicts; NaN where there is no step.

    ``ridge`` (p,) and ``pull`` (p, q) are the matrix, a multiple of the identity, and the gradient of what depends on the
    parameters alone. D_ii is the geometric mean of the i-th and of the largest diagonal entry of the block of the starts of one
    sequence or of the parameters: between Levenberg's identity, slow where parameters differ in scale, and Marquardt's
    diagonal, under which parameters that matter little run away.
    """
    for number in prange(damping.size):
        i = np.int64(number)
        if wanted[i]:
            decrease[i] = solve_window(border[i], start_gradient[i], gram[i], gradient[i], ridge[i], pull[i], damping[i],
                                       work[i], schur[i], kept[i], theta_step[i], start_step[i])


@kernel
def solve_window(border, start_gradient, gram, gradient, ridge, pull, damping, work, schur, kept, theta_step, start_step):
    sequences, n = start_gradient.shape
    q = pull.size
    total, scale = kept[0], kept[1]
    for i in range(q):
        total[i] = pull[i]
        row = schur[i]
        row[:] = 0.0
        row[i] = ridge
        for group in range(gram.shape[0]):
            total[i] += gradient[group, i]
            source = gram[group, i]
            for j in range(i, q):
                row[j] += source[n + j]
        theta_step[i] = -total[i]
    largest = largest_diagonal(schur)
    for i in range(q):
        scale[i] = damping * mean(schur[i, i], largest)
        schur[i, i] += scale[i]
    for b in range(sequences):
        eliminate_start(border[b], start_gradient[b], damping, work[b], schur, theta_step)
    if not factor(schur):
        return np.nan
    substitute(schur, theta_step)
    # With (H + damping D) d = -g the model decreases by (damping d^T D d - g^T d) / 2.
    decrease = 0.0
    for i in range(q):
        decrease += (scale[i] * theta_step[i] - total[i]) * theta_step[i]
    for b in range(sequences):
        recover_start(work[b], theta_step, start_step[b])
        largest = largest_diagonal(border[b])
        for i in range(n):
            added = damping * mean(border[b, i, i], largest)
            decrease += (added * start_step[b, i] - start_gradient[b, i]) * start_step[b, i]
    return 0.5 * decrease


@inline
def largest_diagonal(matrix):
    largest = 0.0
    for i in range(matrix.shape[0]):
        largest = max(largest, matrix[i, i])
    return largest


@inline
def mean(entry, largest):
    return math.sqrt(max(entry, 1e-12 * largest) * largest)


@inline
def eliminate_start(border, start_gradient, damping, work, schur, rhs):
    """Subtract C^T A^{-1} C from the Schur complement; ``work`` (n, n + q + 1) keeps U of A = U^T U, U^{-T} C and U^{-T} g."""
    n = start_gradient.size
    q = rhs.size
    largest = largest_diagonal(border)
    for i in range(n):
        for j in range(i, n + q):
            work[i, j] = border[i, j]
        work[i, n + q] = start_gradient[i]
        # A start that is given has rows of zeros, and its step is zero.
        work[i, i] += damping * mean(border[i, i], largest) if largest > 0.0 else 1.0
    for k in range(n):
        pivot = work[k]
        root = 1.0 / math.sqrt(max(pivot[k], 1e-300))
        for j in range(k, n + q + 1):
            pivot[j] *= root
        for i in range(k + 1, n):
            target = work[i]
            scale = pivot[i]
            for j in range(i, n + q + 1):
                target[j] -= scale * pivot[j]
    for k in range(n):
        source = work[k]
        last = source[n + q]
        for i in range(q):
            scale = source[n + i]
            row = schur[i]
            for j in range(i, q):
                row[j] -= scale * source[n + j]
            rhs[i] += scale * last


@inline
def recover_start(work, theta_step, start_step):
    """ds = -A^{-1} (g + C dtheta)."""
    n = start_step.size
    q = theta_step.size
    for i in range(n - 1, -1, -1):
        total = work[i, n + q]
        for j in range(q):
            total += work[i, n + j] * theta_step[j]
        for j in range(i + 1, n):
            total += work[i, j] * start_step[j]
        start_step[i] = -total / work[i, i]


@kernel
def factor(matrix):
    """Upper factor U of a symmetric matrix U^T U in place of its upper triangle; False if it is not positive definite."""
    q = matrix.shape[0]
    for k in range(q):
        pivot = matrix[k]
        if not pivot[k] > 0.0:
            return False
        root = 1.0 / math.sqrt(pivot[k])
        for j in range(k, q):
            pivot[j] *= root
        for i in range(k + 1, q):
            target = matrix[i]
            scale = pivot[i]
            for j in range(i, q):
                target[j] -= scale * pivot[j]
    return True


@kernel
def substitute(factor, vector):
    """x of U^T U x = b in place of b."""
    q = vector.size
    for k in range(q):
        row = factor[k]
        vector[k] /= row[k]
        for j in range(k + 1, q):
            vector[j] -= row[j] * vector[k]
    for k in range(q - 1, -1, -1):
        row = factor[k]
        total = vector[k]
        for j in range(k + 1, q):
            total -= row[j] * vector[j]
        vector[k] = total / row[k]
