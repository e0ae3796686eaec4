"""Gains of the Kalman filter behind ELK: they turn a Newton system into a trust-region system of the same form.

With P^- = J_t P J_t^T + I and gain K = P^- (P^- + s I)^-1, the filtered correction obeys the affine recurrence

    change_t = (I - K)(J_t change_{t-1} + defect_t),      P = (I - K) P^-,      I - K = s (P^- + s I)^-1.

The kernels overwrite J_t by (I - K) J_t and the defect by (I - K) defect; an ordinary scan does the rest. The recursion of
P runs step by step, in parallel over rows, heads and channels.
"""

import math

import numpy as np
from numba import prange

from pitsolve.compile import inline, kernel, specialise

_STRIP = 16  # channels of one parallel task


@kernel(parallel=True)
def diagonal_gains(jacobian, defect, covariance, trust, start, stop):
    """The scalar filter of every component, for a diagonal J; ``covariance`` (B, n) carries P."""
    rows, _, n = defect.shape
    strips = (n + _STRIP - 1) // _STRIP
    for number in prange(rows * strips):
        task = np.int64(number)
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
    for number in prange(rows * heads):
        task = np.int64(number)
        b, head = task // heads, task % heads
        block_rows(jacobian[b], defect[b], covariance[b, head], work[task, 0], work[task, 1], trust[b], start[b], stop[b],
                   head)


@kernel(reassociate=True)
def block_rows(jacobian, defect, covariance, prior, factor, trust, start, stop, head):
    m = covariance.shape[0]
    for t in range(start, stop):
        J = jacobian[t, head]
        predict(J, covariance, factor, prior)
        factorise(prior, trust, factor)
        for i in range(m):
            for j in range(m):
                covariance[i, j] = prior[i, j]
        keep(factor, trust, covariance)
        keep(factor, trust, J)
        keep(factor, trust, defect[t, head * m:(head + 1) * m].reshape((m, 1)))


@inline
def predict(J, covariance, product, prior):
    """prior = J P J^T + I, by way of product = J P."""
    m = J.shape[0]
    for i in range(m):
        for j in range(m):
            product[i, j] = 0.0
        for k in range(m):
            entry = J[i, k]
            for j in range(m):
                product[i, j] += entry * covariance[k, j]
    for i in range(m):
        for j in range(m):
            total = prior.dtype.type(1.0 if i == j else 0.0)
            for k in range(m):
                total += product[i, k] * J[j, k]
            prior[i, j] = total


@inline
def factorise(prior, trust, factor):
    """Cholesky factor L of prior + s I, which is positive definite for every s > 0."""
    m = prior.shape[0]
    for i in range(m):
        for j in range(i + 1):
            total = prior[i, j]
            if i == j:
                total += trust
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = math.sqrt(total) if i == j else total / factor[j, j]


@inline
def keep(factor, trust, right):
    """right <- s (L L^T)^-1 right = (I - K) right, by forward and backward substitution on whole rows."""
    m, width = right.shape
    for i in range(m):
        for j in range(width):
            right[i, j] *= trust
        for k in range(i):
            entry = factor[i, k]
            for j in range(width):
                right[i, j] -= entry * right[k, j]
        for j in range(width):
            right[i, j] /= factor[i, i]
    for i in range(m - 1, -1, -1):
        for k in range(i + 1, m):
            entry = factor[k, i]
            for j in range(width):
                right[i, j] -= entry * right[k, j]
        for j in range(width):
            right[i, j] /= factor[i, i]


def gains(jacobian, defect, covariance, trust, start, stop) -> None:
    """J_t <- (I - K) J_t and defect_t <- (I - K) defect_t for start <= t < stop, with s = ``trust`` (B,) of each sequence.

    ``jacobian`` is (B, T, n), diagonals, or (B, T, k, m, m), blocks; ``covariance``, (B, n) or (B, k, m, m), carries P from one
    slab to the next.
    """
    if jacobian.ndim == 3:
        specialise(diagonal_gains)(jacobian, defect, covariance, trust, start, stop)
    else:
        batch, _, heads, m, _ = jacobian.shape
        work = np.empty((batch * heads, 2, m, m), jacobian.dtype)
        specialise(block_gains)(jacobian, defect, covariance, work, trust, start, stop)
