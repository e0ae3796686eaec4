"""Products and inverses of small symmetric n x n matrices by a few lanes of one warp: lane i has row i in registers.

A group of ``LANES`` lanes, the power of two from n on, works on one matrix, ``GROUPS`` of them side by side in a warp; lanes
beyond n repeat the last row and store the same numbers again. What a lane reads of other rows goes through shared memory, in
reads of 16 bytes that are the same for all lanes of a group where n is a multiple of four. All threads of a warp reach every
barrier.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import WARP, cuda
from pitsolve.compile import constant, inline

SIZE = constant("SIZE")  # n
LANES = constant("LANES")
PITCH = constant("PITCH")  # from one row in shared memory to the next
QUADS = constant("QUADS")  # whether n is a multiple of four

LARGEST = 128  # bytes of a row, n = 32 in float32 and 16 in float64: of longer ones the registers do not hold two
_REGISTERS = 64  # for the matrices of the next steps, whose loads are under way together


def shape_constants(n: int, dtype: np.dtype) -> dict[str, int]:
    """The compile-time constants of kernels on n x n matrices."""
    lanes = 1 << (n - 1).bit_length()
    groups, pitch = WARP // lanes, -(-n // 4) * 4
    depth = max(1, min(8, _REGISTERS * 4 // (2 * n * np.dtype(dtype).itemsize)))
    return {"SIZE": n, "SQUARE": n * n, "LANES": lanes, "GROUPS": groups, "PITCH": pitch, "QUADS": n % 4 == 0,
            "DEPTH": depth, "BUFFER": depth * n, "MATRIX_CELLS": 2 * pitch + n * pitch + n * lanes,
            "ALL_MATRIX_CELLS": groups * (2 * pitch + n * pitch + n * lanes), "ALL_VECTOR_CELLS": groups * 4 * pitch}


def in_a_warp(n: int, dtype: np.dtype) -> bool:
    """Whether matrices are small enough for the kernels that keep a row of them in the registers of a lane."""
    return n * np.dtype(dtype).itemsize <= LARGEST


@inline
def clear(values):
    for j in range(SIZE):
        values[j] = 0.0


@inline
def load_column(values, begin, matrices, base, lane):
    """Column ``lane`` of a matrix, lanes side by side in memory: the row of a symmetric matrix."""
    for j in range(SIZE):
        values[begin + j] = matrices[base + j * SIZE + lane]


@inline
def add_column(values, matrices, base, lane):
    """The same, added."""
    for j in range(SIZE):
        values[j] += matrices[base + j * SIZE + lane]


@inline
def load_row(values, begin, matrices, base, lane):
    """Row ``lane`` of a matrix."""
    if QUADS:
        for j in range(0, SIZE, 4):
            at = begin + j
            values[at], values[at + 1], values[at + 2], values[at + 3] = load4(matrices, base + lane * SIZE + j)
    else:
        for j in range(SIZE):
            values[begin + j] = matrices[base + lane * SIZE + j]


@inline
def store_column(matrices, base, lane, values):
    """The row of this lane as a column."""
    for j in range(SIZE):
        matrices[base + j * SIZE + lane] = values[j]


@inline
def dot(values, begin, memory, at):
    """Registers from ``begin`` on times a vector in shared memory, in sums that do not wait for each other."""
    if QUADS:
        first = 0.0
        second = 0.0
        third = 0.0
        fourth = 0.0
        for j in range(0, SIZE, 4):
            a, b, c, d = load4(memory, at + j)
            first += values[begin + j] * a
            second += values[begin + j + 1] * b
            third += values[begin + j + 2] * c
            fourth += values[begin + j + 3] * d
        return (first + second) + (third + fourth)
    total = 0.0
    for j in range(SIZE):
        total += values[begin + j] * memory[at + j]
    return total


@inline
def exceeds(memory, at, factor, bound):
    """Whether the largest absolute value of a vector in shared memory, times ``factor``, is above ``bound``, or NaN."""
    found = False
    for j in range(SIZE):
        value = memory[at + j]
        if value != value or abs(value) * factor > bound:
            found = True
    return found


@inline
def invert(row, lane, smallest, shift, memory, at):
    """A symmetric matrix plus a multiple of the identity becomes its inverse; False if a pivot is not above ``smallest``.

    Gauss-Jordan steps on registers that turn by one place each step, so that the pivot always stands in the first: the loop
    over the pivots need not be unrolled. Row k is what the lanes have in column k, with the other sign where they are done;
    it goes to the first 2 PITCH cells from ``at`` on.
    """
    positive = True
    for k in range(SIZE):
        here = at + (k & 1) * PITCH
        mine = lane == k
        if mine:
            row[0] += shift
        memory[here + (lane - k if lane >= k else lane - k + SIZE)] = row[0] if lane >= k else -row[0]
        cuda.syncwarp()
        pivot = memory[here]
        if not pivot > smallest:
            positive = False
            pivot = 1.0
        inverse = 1.0 / pivot
        factor = -inverse if mine else row[0] * inverse
        if QUADS:
            for j in range(0, SIZE, 4):
                a, b, c, d = load4(memory, here + j)
                if j > 0:
                    row[j - 1] = (0.0 if mine else row[j]) - factor * a
                row[j] = (0.0 if mine else row[j + 1]) - factor * b
                row[j + 1] = (0.0 if mine else row[j + 2]) - factor * c
                row[j + 2] = (0.0 if mine else row[j + 3]) - factor * d
        else:
            for j in range(1, SIZE):
                row[j - 1] = (0.0 if mine else row[j]) - factor * memory[here + j]
        row[SIZE - 1] = -factor
    return positive


@inline
def put_column(memory, at, lane, values):
    """The row of this lane as a column in shared memory."""
    for j in range(SIZE):
        memory[at + j * PITCH + lane] = values[j]


@inline
def coupling_cells(at):
    """Where a thread keeps its row of C: cells that no other thread uses, so no barrier is needed."""
    return at + 2 * PITCH + SIZE * PITCH + cuda.threadIdx.x % LANES


@inline
def put_coupling(memory, at, row):
    """Row ``lane`` of C, for :func:`gain` and :func:`complement`."""
    cells = coupling_cells(at)
    for k in range(SIZE):
        memory[cells + k * LANES] = row[k]


@inline
def add_product(out, sign, coupling, memory, at):
    """out += sign times a row of C M: that of C in the cells from ``coupling`` on, M in shared memory."""
    for k in range(SIZE):
        factor = sign * memory[coupling + k * LANES]
        row = at + k * PITCH
        if QUADS:
            for j in range(0, SIZE, 4):
                a, b, c, d = load4(memory, row + j)
                out[j] += factor * a
                out[j + 1] += factor * b
                out[j + 2] += factor * c
                out[j + 3] += factor * d
        else:
            for j in range(SIZE):
                out[j] += factor * memory[row + j]


@inline
def gain(out, inverse, lane, memory, at):
    """Row ``lane`` of C S^-1, for the row of S^-1 in registers and C as put before; the trace of S^-1."""
    matrix, cells = at + 2 * PITCH, coupling_cells(at)
    put_column(memory, matrix, lane, inverse)
    clear(out)
    cuda.syncwarp()
    add_product(out, 1.0, cells, memory, matrix)
    trace = 0.0
    for k in range(SIZE):
        trace += memory[matrix + k * PITCH + k]
    return trace


@inline
def complement(out, gains, lane, memory, at):
    """Row ``lane`` of -C S^-1 C^T, which is symmetric, after :func:`gain`."""
    matrix, cells = at + 2 * PITCH, coupling_cells(at)
    cuda.syncwarp()
    put_column(memory, matrix, lane, gains)
    cuda.syncwarp()
    clear(out)
    add_product(out, -1.0, cells, memory, matrix)
