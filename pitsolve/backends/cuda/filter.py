"""Gains of the Kalman filter behind ELK: they turn a Newton system into a trust-region system of the same form.

With P^- = J_t P J_t^T + I and gain K = P^- (P^- + s I)^-1, the filtered correction obeys the affine recurrence

    change_t = (I - K)(J_t change_{t-1} + defect_t),      P = (I - K) P^-,      I - K = s (P^- + s I)^-1.

The kernels overwrite J_t by (I - K) J_t and the defect by (I - K) defect; an ordinary scan does the rest. The recursion of
P runs step by step, in parallel over rows, heads and channels.
"""

from __future__ import annotations

import math

import numpy as np

from pitsolve.backends.cuda.launch import blocks_for, cuda, device, specialise
from pitsolve.backends.cuda.look_back import quotient
from pitsolve.backends.cuda.workspace import of_device
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
DEPTH = constant("DEPTH")  # steps of loads in flight
BLOCK = constant("BLOCK")  # size m of a block
MATRIX = constant("MATRIX")  # m * m
MATRICES = constant("MATRICES")  # 3 * m * m
IN_SHARED = constant("IN_SHARED")  # whether three matrices fit into shared memory

_THREADS = 64
_DEPTH = 8
_SHARED_BYTES = 48 << 10


@kernel
def diagonal_gains(jacobian, defect, covariance, trust, start, stop, steps, n, total):
    """A thread is a channel of a sequence and walks it, with DEPTH steps of loads in flight; neighbours read neighbours."""
    number = cuda.grid(1)
    if number < total:
        batch = quotient(number, n)
        low, high, s = start[batch], stop[batch], trust[batch]
        at = (np.int64(batch) * steps + low) * n + number - batch * n
        P = covariance[number]
        J = cuda.local.array(DEPTH, REAL)
        d = cuda.local.array(DEPTH, REAL)
        for done in range(0, high - low, DEPTH):
            for r in range(DEPTH):
                if done + r < high - low:
                    J[r], d[r] = jacobian[at + r * n], defect[at + r * n]
            for r in range(DEPTH):
                if done + r < high - low:
                    prior = J[r] * J[r] * P + 1.0
                    keep = s / (prior + s)
                    jacobian[at + r * n] = keep * J[r]
                    defect[at + r * n] = keep * d[r]
                    P = keep * prior
            at += DEPTH * n
        covariance[number] = P


@inline
def _factorise(factor, base, thread, threads):
    """Cholesky factor in the lower triangle, column by column, by all threads of the block."""
    for j in range(BLOCK):
        pivot = math.sqrt(factor[base + j * BLOCK + j])
        cuda.syncthreads()
        for i in range(j + thread, BLOCK, threads):
            factor[base + i * BLOCK + j] = pivot if i == j else factor[base + i * BLOCK + j] / pivot
        cuda.syncthreads()
        for k in range(thread, MATRIX, threads):
            row, column = k // BLOCK, k % BLOCK
            if row >= column and column > j:
                factor[base + k] -= factor[base + row * BLOCK + j] * factor[base + column * BLOCK + j]
        cuda.syncthreads()


@inline
def _keep(factor, base, s, right, at, width):
    """One column <- s (L L^T)^-1 column = (I - K) column, by substitution; ``width`` is from one entry to the next."""
    for i in range(BLOCK):
        value = s * right[at + i * width]
        for k in range(i):
            value -= factor[base + i * BLOCK + k] * right[at + k * width]
        right[at + i * width] = value / factor[base + i * BLOCK + i]
    for j in range(BLOCK):
        i = BLOCK - 1 - j
        value = right[at + i * width]
        for k in range(i + 1, BLOCK):
            value -= factor[base + k * BLOCK + i] * right[at + k * width]
        right[at + i * width] = value / factor[base + i * BLOCK + i]


@kernel
def block_gains(jacobian, defect, covariance, work, trust, start, stop, steps, heads):
    """A block of threads is a head of a sequence: P, a factor and a copy of J_t in shared memory, or in ``work`` if large.

    Entries of products are dealt to threads, and so are the columns of P, J_t and the defect, which are solved for alone.
    """
    matrices = cuda.shared.array(MATRICES, REAL) if IN_SHARED else work
    base = 0 if IN_SHARED else cuda.blockIdx.x * MATRICES
    thread, threads, number = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.x
    batch = quotient(number, heads)
    P, factor, copy = base, base + MATRIX, base + 2 * MATRIX
    s = trust[batch]
    for k in range(thread, MATRIX, threads):
        matrices[P + k] = covariance[np.int64(number) * MATRIX + k]
    for t in range(start[batch], stop[batch]):
        block = (np.int64(batch) * steps + t) * heads + number - batch * heads
        for k in range(thread, MATRIX, threads):
            matrices[copy + k] = jacobian[block * MATRIX + k]
        cuda.syncthreads()
        for k in range(thread, MATRIX, threads):
            row, column = k // BLOCK, k % BLOCK
            total = REAL(0.0)
            for j in range(BLOCK):
                total += matrices[copy + row * BLOCK + j] * matrices[P + j * BLOCK + column]
            matrices[factor + k] = total
        cuda.syncthreads()
        for k in range(thread, MATRIX, threads):
            row, column = k // BLOCK, k % BLOCK
            total = REAL(1.0) if row == column else REAL(0.0)
            for j in range(BLOCK):
                total += matrices[factor + row * BLOCK + j] * matrices[copy + column * BLOCK + j]
            matrices[P + k] = total
        cuda.syncthreads()
        for k in range(thread, MATRIX, threads):
            matrices[factor + k] = matrices[P + k] + (s if k % (BLOCK + 1) == 0 else REAL(0.0))
        cuda.syncthreads()
        _factorise(matrices, factor, thread, threads)
        for column in range(thread, 2 * BLOCK + 1, threads):
            if column < BLOCK:
                _keep(matrices, factor, s, matrices, P + column, BLOCK)
            elif column < 2 * BLOCK:
                _keep(matrices, factor, s, matrices, copy + column - BLOCK, BLOCK)
            else:
                _keep(matrices, factor, s, defect, block * BLOCK, 1)
        cuda.syncthreads()
        for k in range(thread, MATRIX, threads):
            jacobian[block * MATRIX + k] = matrices[copy + k]
    for k in range(thread, MATRIX, threads):
        covariance[np.int64(number) * MATRIX + k] = matrices[P + k]


def gains(jacobian, defect, covariance, trust, start, stop) -> None:
    """J_t <- (I - K) J_t and defect_t <- (I - K) defect_t for start <= t < stop, with s = ``trust`` (B,) of each sequence.

    ``jacobian`` is (B, T, n), diagonals, or (B, T, k, m, m), blocks; ``covariance``, (B, n) or (B, k, m, m), carries P from one
    slab to the next.
    """
    if defect.size == 0:
        return
    dtype, (batch, steps, n) = defect.dtype, defect.shape
    arrays = [x.reshape(-1) for x in (jacobian, defect, covariance)]
    bounds = device().upload(trust.astype(dtype)), device().indices(start), device().indices(stop)
    if jacobian.ndim == 3:
        specialise(diagonal_gains, dtype, DEPTH=_DEPTH)(
            blocks_for(batch * n, _THREADS), _THREADS, *arrays, *bounds, steps, n, batch * n)
        return
    heads, m = jacobian.shape[2:4]
    shared = 3 * m * m * dtype.itemsize <= _SHARED_BYTES
    work = of_device(dtype).take("filter", 1 if shared else batch * heads * 3 * m * m)
    specialise(block_gains, dtype, BLOCK=m, MATRIX=m * m, MATRICES=3 * m * m, IN_SHARED=shared)(
        batch * heads, _THREADS, *arrays, work, *bounds, steps, heads)
