"""Block LDL^T factors of windows of a block-tridiagonal matrix with small blocks, and the Schur complements that they send.

A window is a chain of small matrices, one after the other, so it is one group of lanes of one warp (small_matrices.py): n = 32
has a warp a window, n = 8 four windows a warp, n = 1 a thread a window. The matrix of a step stays in registers from the pivot
to the next one, row i in lane i. With S_t the pivot and C = M_{t,t+1}^T,

    S_t^-1,    B_{t+1} = C S_t^-1,    S_{t+1} = M_{t+1,t+1} - B_{t+1} C^T.

Gains lie in memory transposed: lanes side by side read neighbouring numbers in forward substitution.
"""

import numpy as np

from pitsolve.backends.cuda.launch import WARP, cuda
from pitsolve.backends.cuda.small_matrices import (
    add_column,
    clear,
    complement,
    gain,
    invert,
    load_column,
    load_row,
    put_coupling,
    store_column,
)
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
SIZE = constant("SIZE")
SQUARE = constant("SQUARE")
LANES = constant("LANES")
GROUPS = constant("GROUPS")
MATRIX_CELLS = constant("MATRIX_CELLS")
ALL_MATRIX_CELLS = constant("ALL_MATRIX_CELLS")

THREADS = WARP  # of a block


@kernel
def factor(longest, diagonal, off_diagonal, floors, first, last, offset, windows, overlap, mu, from_left, from_right,
           gains, inverses, traces, failed):
    """S_t^-1, its trace and B_t of M = N_ii + mu P_i + the matrices at both ends; the first step without S_t^-1, or -1.

    A group of lanes a window, a warp a block. In registers a row of S and one of C or B; in shared memory S^-1 or B, C, and the
    row of a pivot.
    """
    memory = cuda.shared.array(ALL_MATRIX_CELLS, REAL, 16)
    row = cuda.local.array(SIZE, REAL)
    product = cuda.local.array(SIZE, REAL)
    group = cuda.threadIdx.x // LANES
    number = cuda.blockIdx.x * GROUPS + group
    lane = min(cuda.threadIdx.x % LANES, SIZE - 1)
    cells = group * MATRIX_CELLS
    window = min(number, windows - 1)
    begin = first[window]
    steps = last[window] - begin if number < windows else 0
    left = overlap if window > 0 else 0
    right = overlap if window < windows - 1 else 0
    ends = np.int64(window) * SQUARE
    bad = -1
    load_column(row, 0, from_left, ends, lane)
    if steps == 1:
        add_column(row, from_right, ends, lane)
    for t in range(longest):
        block = np.int64(begin + t) * SQUARE
        at = np.int64(offset[window] + t) * SQUARE
        smallest = 0.0
        shift = 0.0
        if t < steps:
            smallest = floors[begin + t]
            if t < left or t >= steps - right:
                shift = mu[window]
            add_column(row, diagonal, block, lane)
        else:
            clear(row)
        if t < steps - 1:
            load_column(product, 0, off_diagonal, block, lane)
        else:
            clear(product)
        put_coupling(memory, cells, product)
        positive = invert(row, lane, smallest, shift, memory, cells)
        if t < steps:
            store_column(inverses, at, lane, row)
            if bad < 0 and not positive:
                bad = begin + t
        trace = gain(product, row, lane, memory, cells)
        if t < steps:
            traces[offset[window] + t] = trace
        if t < steps - 1:
            store_column(gains, at + SQUARE, lane, product)
        complement(row, product, lane, memory, cells)
        if t == steps - 2:
            add_column(row, from_right, ends, lane)
    if number < windows:
        failed[window] = bad


@kernel
def transmit(longest, diagonal, off_diagonal, floors, first, last, windows, overlap, from_left, from_right, to_left, to_right,
             failed):
    """What is left of a window when it has eliminated what the neighbour does not hold: -C S^-1 C^T of the last pivot.

    A group of lanes an elimination, those to the left first and then those to the right; otherwise as ``factor``.
    """
    memory = cuda.shared.array(ALL_MATRIX_CELLS, REAL, 16)
    row = cuda.local.array(SIZE, REAL)
    product = cuda.local.array(SIZE, REAL)
    group = cuda.threadIdx.x // LANES
    number = cuda.blockIdx.x * GROUPS + group
    lane = min(cuda.threadIdx.x % LANES, SIZE - 1)
    cells = group * MATRIX_CELLS
    leftward = number < windows
    window = min(number if leftward else number - windows, windows - 1)
    neighbour = number < 2 * windows and (window > 0 if leftward else window < windows - 1)
    steps = last[window] - first[window] - overlap if neighbour else 0
    ends = np.int64(window) * SQUARE
    bad = -1
    if leftward:
        load_column(row, 0, from_right, ends, lane)
    else:
        load_column(row, 0, from_left, ends, lane)
    for q in range(longest):
        t = last[window] - 1 - q if leftward else first[window] + q
        block = np.int64(t) * SQUARE
        smallest = 0.0
        if q < steps:
            smallest = floors[t]
            add_column(row, diagonal, block, lane)
            if leftward:
                load_row(product, 0, off_diagonal, block - SQUARE, lane)
            else:
                load_column(product, 0, off_diagonal, block, lane)
        else:
            clear(row)
            clear(product)
        put_coupling(memory, cells, product)
        positive = invert(row, lane, smallest, 0.0, memory, cells)
        if q < steps and bad < 0 and not positive:
            bad = t
        gain(product, row, lane, memory, cells)
        complement(row, product, lane, memory, cells)
        if q == steps - 1:
            if leftward:
                store_column(to_left, ends, lane, row)
            else:
                store_column(to_right, ends, lane, row)
    if number < 2 * windows:
        failed[number] = bad
