"""Phi functions of small matrices: the exact flow of a linear equation over one step, stable however stiff it is.

Over a step, y' = A y + a + b s with s from 0 to 1 and y(0) = 0 ends at y(1) = phi_1(A) a + phi_2(A) b, where
phi_1(z) = (e^z - 1) / z and phi_2(z) = (phi_1(z) - 1) / z. A Taylor series gives this for the 2^h-th part of the step, and h
doublings lead back. A doubling follows the flow twice as long: nothing is divided by A, what decays stays small, and nothing
overflows unless e^A does. For the same reason e^A - I is formed in place of e^A: it keeps the digits of a small A.
"""

import math

from pitsolve.compile import inline, kernel

MATRICES = 5  # rooms of n x n that `flow` needs, A and the result included
VECTORS = 5  # rooms of n, the vectors included
SMALL = 0.0625  # the series runs at |A| / 2^h below this, where the terms left out are below a rounding error
DEGREE = 8


@inline
def matvec(A, x, out):
    """out = A x."""
    for i in range(x.size):
        total = A[i, 0] * x[0]
        for k in range(1, x.size):
            total += A[i, k] * x[k]
        out[i] = total


@inline
def matmul(A, B, out):
    """out = A B."""
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            out[i, j] = A[i, 0] * B[0, j]
        for k in range(1, n):
            for j in range(n):
                out[i, j] += A[i, k] * B[k, j]


@inline
def halvings(A):
    """How often to halve A for the series; -1 if it is not finite."""
    n = A.shape[0]
    norm = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += abs(A[i, j].real)  # of the real part: a complex step must not change the count
        if not math.isfinite(total):
            return -1
        norm = max(norm, total)
    return 0 if norm < SMALL else math.frexp(norm / SMALL)[1]


@inline
def series(A, order, vector, value, product):
    """vector <- phi_order(A) vector for order 1 or 2, by Horner's rule."""
    n = vector.size
    for i in range(n):
        value[i] = vector[i]
    for k in range(DEGREE, 0, -1):
        matvec(A, value, product)
        for i in range(n):
            value[i] = vector[i] + product[i] / (order + k)
    for i in range(n):
        vector[i] = value[i] / order


@inline
def expm1(A, D, squared, cubed, product):
    """D = e^A - I for small A: the terms up to A^9, in groups of three."""
    n = A.shape[0]
    matmul(A, A, squared)
    matmul(squared, A, cubed)
    for i in range(n):
        for j in range(n):
            product[i, j] = 0.0
    for first, factorial in ((7, 5040.0), (4, 24.0), (1, 1.0)):
        for i in range(n):
            for j in range(n):
                later = (squared[i, j] + cubed[i, j] / (first + 2)) / (first + 1)
                D[i, j] = product[i, j] + (A[i, j] + later) / factorial
        if first > 1:
            matmul(cubed, D, product)


@inline
def begin(A, vectors, ramp):
    """The flow over a step so short that the series holds: phi_1(A) a + phi_2(A) b and phi_1(A) b."""
    a, b, value, product, second = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
    n = a.size
    series(A, 1, a, value, product)
    if ramp:
        for i in range(n):
            second[i] = b[i]
        series(A, 2, second, value, product)
        matvec(A, second, product)
        for i in range(n):
            a[i] += second[i]
            b[i] += product[i]


@inline
def double(D, vectors, ramp):
    """The flow over twice the step. The second half begins where the first ended and where the ramp has risen to."""
    a, b, product = vectors[0], vectors[1], vectors[2]
    n = a.size
    matvec(D, a, product)
    for i in range(n):
        a[i] = product[i] + 2.0 * a[i]
    if ramp:
        matvec(D, b, product)
        for i in range(n):
            a[i] += b[i]
            b[i] = 2.0 * (product[i] + 2.0 * b[i])


@kernel
def flow(matrices, vectors, ramp, exponential):
    """vectors[0] <- phi_1(A) vectors[0] + phi_2(A) vectors[1] with A = matrices[0]; all but the result is scratch.

    Without ``ramp``, vectors[1] counts as zero. With ``exponential``, matrices[1] <- e^A - I. If A is not finite, the results
    are NaN.
    """
    A, D, product = matrices[0], matrices[1], matrices[4]
    n = A.shape[0]
    count = halvings(A)
    if count < 0:
        vectors[0] = math.nan
        D[:] = math.nan
        return
    part = math.ldexp(1.0, -count)
    for i in range(n):
        vectors[0, i] *= part
        vectors[1, i] *= part * part
        for j in range(n):
            A[i, j] *= part
    begin(A, vectors, ramp)
    if exponential or count > 0:
        expm1(A, D, matrices[2], matrices[3], product)
    for doubling in range(count):
        double(D, vectors, ramp)
        if exponential or doubling < count - 1:
            matmul(D, D, product)
            for i in range(n):
                for j in range(n):
                    D[i, j] = product[i, j] + 2.0 * D[i, j]
