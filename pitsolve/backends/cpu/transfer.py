"""Jacobians of whole windows: products of the Jacobians of their steps, or of the diagonals of these."""

from __future__ import annotations

import numpy as np
from numba import prange

from pitsolve.compile import constant, kernel, specialise

DIAGONAL = constant("DIAGONAL")

_TINY = 1e-30  # a product below this no longer matters, and denormal numbers are slow


@kernel(parallel=True)
def multiply(jacobian, begin, products, scratch, row, first, last):
    """products[w] <- J_t products[w] for the steps t of one slab that lie in window w."""
    for number in prange(row.size):
        w = np.int64(number)
        multiply_window(jacobian, begin, products, scratch, row[w], max(begin, first[w]),
                        min(begin + jacobian.shape[1], last[w]), w)


@kernel(reassociate=True)
def multiply_window(jacobian, begin, products, scratch, b, start, stop, w):
    for t in range(start, stop):
        if DIAGONAL:
            for i in range(products.shape[1]):
                value = products[w, i] * jacobian[b, t - begin, i]
                products[w, i] = 0.0 if abs(value) < _TINY else value
        else:
            heads, m = products.shape[1:3]
            for k in range(heads):
                old, new = products[w, k], scratch[w]
                for i in range(m):
                    for j in range(m):
                        new[i, j] = 0.0
                    for c in range(m):
                        factor = jacobian[b, t - begin, k, i, c]
                        for j in range(m):
                            new[i, j] += factor * old[c, j]
                for i in range(m):
                    for j in range(m):
                        old[i, j] = 0.0 if abs(new[i, j]) < _TINY else new[i, j]


def identity(model, order: int, windows: int) -> np.ndarray:
    """The Jacobian of no steps: ones (W, S), or identity blocks (W, k, m, m)."""
    heads, m = model.cell.blocks
    if order == model.DIAGONAL:
        return np.ones((windows, heads * m), model.dtype)
    return np.tile(np.eye(m, dtype=model.dtype), (windows, heads, 1, 1))


def extend(model, order: int, products, jacobian, begin, row, first, last) -> None:
    """Multiply the Jacobians of the steps of one slab onto ``products``."""
    diagonal = order == model.DIAGONAL
    scratch = model.work.take("product", *((1, 1, 1) if diagonal else (row.size, *products.shape[2:])))
    specialise(multiply, DIAGONAL=diagonal)(jacobian, begin, products, scratch, row, first, last)
