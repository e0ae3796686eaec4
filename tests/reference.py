"""Naive NumPy twins of what pitsolve computes: obvious loops, no tricks."""

import numpy as np


def dense_matrix(A, n):
    """The (n, n) matrix stored as a diagonal (n,), as itself (n, n), or as blocks (k, m, m)."""
    if A.ndim == 1:
        return np.diag(A)
    if A.ndim == 2:
        return A
    matrix = np.zeros((n, n), A.dtype)
    size = A.shape[-1]
    for k, block in enumerate(A):
        matrix[k * size:(k + 1) * size, k * size:(k + 1) * size] = block
    return matrix


def affine_scan(A, b, y0=None, reverse=False, transpose=False, start=0, stop=None):
    """y_t = A_t y_{t-1} + b_t for start <= t < stop of one sequence, in float64; zeros elsewhere."""
    steps, n = b.shape
    stop = steps if stop is None else stop
    y = np.zeros(n) if y0 is None else y0.astype(float)
    out = np.zeros((steps, n))
    for t in range(stop - 1, start - 1, -1) if reverse else range(start, stop):
        matrix = dense_matrix(A[t].astype(float), n)
        y = (matrix.T if transpose else matrix) @ y + b[t]
        out[t] = y
    return out


def affine_scan_batch(A, b, y0=None, reverse=False):
    """The same over any leading batch axes."""
    batch = b.shape[:-2]
    out = np.zeros(b.shape)
    for index in np.ndindex(batch):
        out[index] = affine_scan(A[index], b[index], None if y0 is None else y0[index], reverse)
    return out


def compose(earlier, later):
    """Apply the map ``earlier``, then the map ``later``, both as (matrix, vector)."""
    return later[0] @ earlier[0], later[0] @ earlier[1] + later[1]
