"""Products and inverses of the small matrices of one time step."""

import numpy as np

from pitsolve.backends.cpu.products import tile
from pitsolve.backends.cpu.simd import lanes_for, register_bytes
from pitsolve.compile import constant, inline, kernel

SIZE = constant("SIZE")  # n where it is small, so that loops unroll; otherwise 0
TILED = constant("TILED")  # whether rows of n numbers are whole vectors, so that products go through tiles
ROWS = constant("ROWS")  # of a tile
VECTORS = constant("VECTORS")
LANES = constant("LANES")

_UNROLLED = 32  # beyond, a kernel with n for a constant is not faster


def shape_constants(n: int, dtype: np.dtype) -> dict[str, int]:
    """The compile-time constants of kernels on n x n matrices."""
    lanes = lanes_for(dtype, n)
    vectors = n // lanes
    accumulators = 24 if register_bytes() == 64 else 12
    rows = next(rows for rows in (8, 4, 2, 1) if n % rows == 0 and rows * vectors <= max(accumulators, vectors))
    return {"SIZE": n if n <= _UNROLLED else 0, "TILED": n == vectors * lanes, "ROWS": rows, "VECTORS": max(1, vectors),
            "LANES": lanes}


@inline
def size_of(vectors):
    """n, a compile-time constant where it is small."""
    return SIZE if SIZE > 0 else vectors.shape[-1]


@kernel(reassociate=True)
def invert(matrix, smallest):
    """The inverse of a symmetric positive definite matrix in its place; False if a pivot is not above ``smallest``."""
    n = size_of(matrix)
    positive = True
    for k in range(n):
        positive = positive and matrix[k, k] > smallest
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for j in range(n):
            matrix[k, j] *= pivot
        for i in range(n):
            if i != k:
                factor = matrix[i, k]
                matrix[i, k] = 0.0
                for j in range(n):
                    matrix[i, j] -= factor * matrix[k, j]
    return positive


@inline
def copy_matrix(out, a):
    n = size_of(a)
    for i in range(n):
        for j in range(n):
            out[i, j] = a[i, j]


@inline
def add_matrix(out, a):
    n = size_of(a)
    for i in range(n):
        for j in range(n):
            out[i, j] += a[i, j]


@inline
def subtract_matrix(out, a):
    n = size_of(a)
    for i in range(n):
        for j in range(n):
            out[i, j] -= a[i, j]


@kernel
def product(out, a, b, transposed):
    """out <- a b, or a^T b."""
    n = size_of(a)
    for i in range(n):
        for j in range(n):
            out[i, j] = 0.0
    if TILED:
        row, step = (1, n) if transposed else (n, 1)
        for i in range(0, n, ROWS):
            tile(a, i * row, row, step, b, 0, n, out, i * n, n, out, i * n, n, ROWS, VECTORS, 1, LANES)
    else:
        for i in range(n):
            for k in range(n):
                factor = a[k, i] if transposed else a[i, k]
                for j in range(n):
                    out[i, j] += factor * b[k, j]


@inline
def add_times(out, sign, a, x):
    """out <- out + sign a x."""
    n = size_of(a)
    for i in range(n):
        total = out[i] * 0.0
        for j in range(n):
            total += a[i, j] * x[j]
        out[i] += sign * total


@inline
def add_transposed_times(out, sign, a, x):
    """out <- out + sign a^T x."""
    n = size_of(a)
    for i in range(n):
        factor = sign * x[i]
        for j in range(n):
            out[j] += factor * a[i, j]


@inline
def set_zero(x):
    for j in range(size_of(x)):
        x[j] = 0.0


@inline
def largest(x):
    """Largest absolute value, infinity if there is NaN."""
    value = 0.0
    for j in range(size_of(x)):
        value = max(value, abs(x[j])) if x[j] == x[j] else np.inf
    return value


@inline
def copy_vector(out, x):
    for j in range(size_of(x)):
        out[j] = x[j]


@inline
def trace(a):
    total = 0.0
    for j in range(size_of(a)):
        total += a[j, j]
    return total


@inline
def smallest_pivot(block):
    """What rounding leaves of a pivot that is zero."""
    n = size_of(block)
    largest = block[0, 0]
    for j in range(n):
        largest = max(largest, block[j, j])
    return largest * np.finfo(block.dtype).eps * n
