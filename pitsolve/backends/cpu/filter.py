"""Gains of the Kalman filter behind ELK: they turn a Newton system into a trust-region system of the same form.

With P^- = J_t P J_t^T + I and gain K = P^- (P^- + s I)^-1, the filtered correction obeys the affine recurrence

    change_t = (I - K)(J_t change_{t-1} + defect_t),      P = (I - K) P^-,      I - K = s (P^- + s I)^-1.

The kernels overwrite J_t by (I - K) J_t and the defect by (I - K) defect; an ordinary scan does the rest. The recursion of
P runs step by step, in parallel over rows, heads and channels.
"""

import math

from numba import prange

from pitsolve.compile import inline, kernel

_STRIP = 16  # channels of one parallel task


@kernel(parallel=True)
def diagonal_gains(jacobian, defect, covariance, trust, start, stop):
    """The scalar filter of every component, for a diagonal J; ``covariance`` (B, n) carries P."""
    rows, _, n = defect.shape
    strips = (n + _STRIP - 1) // _STRIP
    for task in prange(rows * strips):
        b, first = task // strips, task % strips * _STRIP
        diagonal_strip(jacobian[b], defect[b], covariance[b], trust[b], start[b], stop[b], first, min(n, first + _STRIP))


@kernel
def diagonal_strip(jacobian, defect, covariance, trust, start, stop, first, last):
    for t in range(start, stop):
        for i in range(first, last):
            j = jacobian[t, i]
            prior = j * j * covariance[i] + 1.0
            keep = trust / (prior + trust)
            jacobian[t, i] = keep * j
            defect[t, i] = keep * defect[t, i]
            covariance[i] = keep * prior


@kernel(parallel=True)
def block_gains(jacobian, defect, covariance, work, trust, start, stop):
    """The filter of every diagonal block; ``covariance`` (B, k, m, m) carries P, ``work`` (B k, 2, m, m) is scratch."""
    rows, _, heads = jacobian.shape[:3]
    for task in prange(rows * heads):
        b, head = task // heads, task % heads
        block_rows(jacobian[b], defect[b], covariance[b, head], work[task, 0], work[task, 1], trust[b], start[b], stop[b],
                   head)


@kernel
def block_rows(jacobian, defect, covariance, prior, keep, trust, start, stop, head):
    m = covariance.shape[0]
    for t in range(start, stop):
        J = jacobian[t, head]
        multiply(J, covariance, keep)
        for i in range(m):
            for j in range(m):
                total = 1.0 if i == j else 0.0
                for k in range(m):
                    total += keep[i, k] * J[j, k]
                prior[i, j] = total
        kept_share(prior, trust, keep)
        multiply(keep, prior, covariance)
        multiply(keep, J, prior)
        values = defect[t, head * m:(head + 1) * m]
        for i in range(m):
            for j in range(m):
                J[i, j] = prior[i, j]
        for i in range(m):
            total = 0.0
            for j in range(m):
                total += keep[i, j] * values[j]
            prior[0, i] = total
        for i in range(m):
            values[i] = prior[0, i]


@inline
def multiply(a, b, out):
    m = a.shape[0]
    for i in range(m):
        for j in range(m):
            out[i, j] = 0.0
        for k in range(m):
            factor = a[i, k]
            for j in range(m):
                out[i, j] += factor * b[k, j]


@inline
def kept_share(prior, trust, out):
    """out = s (prior + s I)^-1 by Cholesky factorisation; the matrix is positive definite for every s > 0."""
    m = prior.shape[0]
    for i in range(m):
        for j in range(i + 1):
            total = prior[i, j] + (trust if i == j else 0.0)
            for k in range(j):
                total -= out[i, k] * out[j, k]
            out[i, j] = math.sqrt(total) if i == j else total / out[j, j]
    # Invert the lower factor in place, then out = s L^-T L^-1; the upper triangle holds the result as it grows.
    for j in range(m):
        out[j, j] = 1.0 / out[j, j]
        for i in range(j + 1, m):
            total = 0.0
            for k in range(j, i):
                total -= out[i, k] * out[k, j]
            out[i, j] = total / out[i, i]
    for i in range(m):
        for j in range(i, m):
            total = 0.0
            for k in range(j, m):
                total += out[k, i] * out[k, j]
            out[i, j] = trust * total
    for i in range(m):
        for j in range(i):
            out[i, j] = out[j, i]
