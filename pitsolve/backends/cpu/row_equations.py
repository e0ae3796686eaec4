"""From rows of a least-squares problem in time to its normal equations, and from a state-space model to rows.

These run once a problem and are compiled once for all sizes.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from pitsolve.compile import kernel, specialise

CHUNK = 256  # steps of one task; fixed, so that no result depends on the number of threads


@kernel(parallel=True)
def add_up(rows, targets, diagonal, off_diagonal, rhs):
    """N_tt and f_t from the rows that end at t and at t + 1, N_{t,t+1} from the latter."""
    steps = rhs.shape[0]
    for number in prange((steps + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        for t in range(chunk * CHUNK, min(steps, (chunk + 1) * CHUNK)):
            for r in range(rows.shape[1]):
                add_row(rows[t, r, 1], rows[t, r, 1], targets[t, r], diagonal[t], rhs[t])
            if t < steps - 1:
                for r in range(rows.shape[1]):
                    add_row(rows[t + 1, r, 0], rows[t + 1, r, 0], targets[t + 1, r], diagonal[t], rhs[t])
                    add_row(rows[t + 1, r, 0], rows[t + 1, r, 1], 0.0, off_diagonal[t], rhs[t])


@kernel
def add_row(a, b, target, matrix, vector):
    """matrix += a b^T, vector += a target; rows have many zeros."""
    for i in range(a.size):
        factor = a[i]
        if factor != 0.0:
            vector[i] += factor * target
            for j in range(a.size):
                matrix[i, j] += factor * b[j]


@kernel(parallel=True)
def whiten(F, Q, C, R, y, b, observed, rows, targets, scratch, failed):
    """Rows L^-1 [-F, I] with Q = L L^T, and L^-1 [0, C] with R = L L^T of what was observed.

    Matrices are one, or one a step. ``failed`` gets, for each chunk, the first step without L for Q and for R, or -1.
    """
    steps = y.shape[0]
    for number in prange((steps + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        failed[chunk, 0] = failed[chunk, 1] = -1
        factor, factor_observed = scratch[chunk, 0], scratch[chunk, 1]
        for t in range(chunk * CHUNK, min(steps, (chunk + 1) * CHUNK)):
            changed = Q.shape[0] > 1 or t == chunk * CHUNK
            if changed and not cholesky(Q[at(t, Q)], factor) and failed[chunk, 0] < 0:
                failed[chunk, 0] = t
            write_dynamics(F[at(t, F)], b[at(t, b)], t > 0, rows[t], targets[t])
            substitute(factor, F.shape[1], 0, rows[t], targets[t])
            write_observation(C[at(t, C)], R[at(t, R)], y[t], observed[t], factor_observed, rows[t], targets[t])
            if not cholesky(factor_observed, factor_observed) and failed[chunk, 1] < 0:
                failed[chunk, 1] = t
            substitute(factor_observed, C.shape[1], F.shape[1], rows[t], targets[t])


@kernel
def at(t, matrices):
    """Where the matrix of step t stands."""
    return t if matrices.shape[0] > 1 else 0


@kernel
def write_dynamics(F, b, follows, rows, targets):
    """g_t - F g_{t-1} = b; the first step has no g_{t-1}."""
    n = b.size
    for i in range(n):
        for j in range(n):
            rows[i, 0, j] = -F[i, j] if follows else 0.0
            rows[i, 1, j] = 1.0 if i == j else 0.0
        targets[i] = b[i]


@kernel
def write_observation(C, R, y, observed, covariance, rows, targets):
    """C g_t = y with covariance R; what was not observed leaves 0 = 0 with covariance 1."""
    k, n = C.shape
    for i in range(k):
        for j in range(n):
            rows[n + i, 0, j] = 0.0
            rows[n + i, 1, j] = C[i, j] if observed[i] else 0.0
        targets[n + i] = y[i] if observed[i] else 0.0
        for j in range(k):
            covariance[i, j] = R[i, j] if observed[i] and observed[j] else 1.0 if i == j else 0.0
    for i in range(k, covariance.shape[0]):
        for j in range(covariance.shape[0]):
            covariance[i, j] = covariance[j, i] = 1.0 if i == j else 0.0


@kernel
def cholesky(matrix, factor):
    """The lower factor; False if there is none."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                factor[i, i] = np.sqrt(total)
            else:
                factor[i, j] = total / factor[j, j]
    return True


@kernel
def substitute(factor, count, first, rows, targets):
    """L^-1 of ``count`` rows and targets from ``first`` on."""
    n = rows.shape[2]
    for i in range(count):
        for k in range(i):
            weight = factor[i, k]
            if weight != 0.0:
                targets[first + i] -= weight * targets[first + k]
                for j in range(n):
                    rows[first + i, 0, j] -= weight * rows[first + k, 0, j]
                    rows[first + i, 1, j] -= weight * rows[first + k, 1, j]
        scale = 1.0 / factor[i, i]
        targets[first + i] *= scale
        for j in range(n):
            rows[first + i, 0, j] *= scale
            rows[first + i, 1, j] *= scale


def normal_equations(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diagonal blocks, off-diagonal blocks and right side of the problem with these rows (T, r, 2, n)."""
    steps, _, _, n = rows.shape
    diagonal, off_diagonal = np.zeros((steps, n, n), rows.dtype), np.zeros((max(steps - 1, 0), n, n), rows.dtype)
    rhs = np.zeros((steps, n), rows.dtype)
    specialise(add_up)(rows, targets, diagonal, off_diagonal, rhs)
    return diagonal, off_diagonal, rhs


def state_space_rows(F, Q, C, R, y, b, observed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (T, n + k, 2, n), their targets, and the first step at which Q and R have no Cholesky factor, or -1."""
    steps, k = y.shape
    n = F.shape[1]
    rows, targets = np.empty((steps, n + k, 2, n), y.dtype), np.empty((steps, n + k), y.dtype)
    chunks, size = -(-steps // CHUNK), max(n, k)
    scratch, failed = np.zeros((chunks, 2, size, size), y.dtype), np.empty((chunks, 2), np.int64)
    specialise(whiten)(F, Q, C, R, y, b, observed, rows, targets, scratch, failed)
    return rows, targets, np.array([next((t for t in column if t >= 0), -1) for column in failed.T])
