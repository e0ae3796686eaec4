"""Jacobians of whole windows: products of the Jacobians of their steps, or of the diagonals of these."""

from __future__ import annotations

import math

import numpy as np

from pitsolve.backends.cuda.launch import blocks_for, cuda, device, specialise
from pitsolve.cells.memory import scratch
from pitsolve.compile import constant, kernel

BLOCK = constant("BLOCK")
THREADS = constant("THREADS")
REAL = constant("REAL")

_TINY = 1e-30  # a product below this no longer matters
_THREADS, _MOST = 128, 256  # threads of a block where each is a column, and where the block is a matrix
_SMALL = 16  # columns up to this size are in registers


@kernel
def multiply_diagonal(jacobian, begin, products, row, first, last):
    """products[w] <- J_t products[w] for the steps t of one slab that lie in window w. A thread is a number of a product."""
    number, n = cuda.grid(1), products.shape[1]
    w, i = number // n, number % n
    if w < row.size:
        b, product = row[w], products[w, i]
        for t in range(max(begin, first[w]), min(begin + jacobian.shape[1], last[w])):
            value = product * jacobian[b, t - begin, i]
            product = REAL(0.0) if abs(value) < _TINY else value
        products[w, i] = product


@kernel
def multiply_columns(jacobian, begin, products, row, first, last):
    """The same for small blocks. A thread is a column of a product, which stays in registers; all columns of a window read the
    same Jacobian at the same time."""
    number, heads = cuda.grid(1), products.shape[1]
    w, k, j = number // BLOCK // heads, number // BLOCK % heads, number % BLOCK
    if w < row.size:
        b = row[w]
        columns = scratch(2, BLOCK, products[0, 0, 0, 0])
        old, new = columns[0], columns[1]
        for i in range(BLOCK):
            old[i] = products[w, k, i, j]
        for t in range(max(begin, first[w]), min(begin + jacobian.shape[1], last[w])):
            for i in range(BLOCK):
                value = REAL(0.0)
                for c in range(BLOCK):
                    value += jacobian[b, t - begin, k, i, c] * old[c]
                new[i] = REAL(0.0) if abs(value) < _TINY else value
            for i in range(BLOCK):
                old[i] = new[i]
        for i in range(BLOCK):
            products[w, k, i, j] = old[i]


@kernel
def multiply_blocks(jacobian, begin, products, others, row, first, last):
    """The same for large blocks. A block is a product, a thread computes every ``THREADS``-th number of it; the product moves
    between two places in memory."""
    w, k, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    b, old, new = row[w], products[w, k], others[w, k]
    for t in range(max(begin, first[w]), min(begin + jacobian.shape[1], last[w])):
        for number in range(thread, BLOCK * BLOCK, THREADS):
            i, j = number // BLOCK, number % BLOCK
            value = REAL(0.0)
            for c in range(BLOCK):
                value += jacobian[b, t - begin, k, i, c] * old[c, j]
            new[i, j] = REAL(0.0) if abs(value) < _TINY else value
        cuda.syncthreads()
        for number in range(thread, BLOCK * BLOCK, THREADS):
            old[number // BLOCK, number % BLOCK] = new[number // BLOCK, number % BLOCK]
        cuda.syncthreads()


def identity(model, order: int, windows: int):
    """The Jacobian of no steps: ones (W, S), or identity blocks (W, k, m, m)."""
    heads, m = model.cell.blocks
    if order == model.DIAGONAL:
        return device().upload(np.ones((windows, heads * m), model.dtype))
    return device().upload(np.tile(np.eye(m, dtype=model.dtype), (windows, heads, 1, 1)))


def extend(model, order: int, products, jacobian, begin, row, first, last) -> None:
    """Multiply the Jacobians of the steps of one slab onto ``products``."""
    heads, m = model.cell.blocks
    bounds = [device().indices(index) for index in (row, first, last)]
    if order == model.DIAGONAL:
        specialise(multiply_diagonal, model.dtype)(
            blocks_for(math.prod(products.shape), _THREADS), _THREADS, jacobian, begin, products, *bounds)
    elif m <= _SMALL:
        specialise(multiply_columns, model.dtype, BLOCK=m)(
            blocks_for(row.size * heads * m, _THREADS), _THREADS, jacobian, begin, products, *bounds)
    else:
        others = model.work.take("product", *products.shape)
        specialise(multiply_blocks, model.dtype, BLOCK=m, THREADS=_MOST)(
            (row.size, heads), _MOST, jacobian, begin, products, others, *bounds)
