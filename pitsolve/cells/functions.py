"""Scalar functions that several cells share; they run on scalars, on SIMD lanes and on CUDA threads alike."""

import math

from numba.extending import register_jitable


@register_jitable
def sigmoid(x):
    """1 / (1 + exp(-x)), through tanh: no overflow, and one hard function for all gates."""
    return 0.5 * math.tanh(0.5 * x) + 0.5


@register_jitable
def power(z, k):
    """z to a positive whole power, by repeated squaring; k may come as a floating-point number."""
    result = z
    k = int(k) - 1
    while k > 0:
        if k % 2 == 1:
            result = result * z
        z = z * z
        k //= 2
    return result


@register_jitable
def eliminate(A, B):
    """X of A X = B in place of B (n, k), by Gaussian elimination with partial pivoting; A is overwritten."""
    n, columns = B.shape
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(A[i, k]) > abs(A[best, k]):
                best = i
        if best != k:
            for j in range(k, n):
                A[k, j], A[best, j] = A[best, j], A[k, j]
            for j in range(columns):
                B[k, j], B[best, j] = B[best, j], B[k, j]
        for i in range(k + 1, n):
            factor = A[i, k] / A[k, k]
            for j in range(k + 1, n):
                A[i, j] -= factor * A[k, j]
            for j in range(columns):
                B[i, j] -= factor * B[k, j]
    for k in range(n - 1, -1, -1):
        for j in range(columns):
            for i in range(k + 1, n):
                B[k, j] -= A[k, i] * B[i, j]
            B[k, j] /= A[k, k]
