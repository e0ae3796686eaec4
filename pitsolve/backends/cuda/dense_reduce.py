"""Kernels that compose the affine maps y -> A_t y + b_t of a chunk of time into one map (P, q), for blocks up to 32.

The columns of (P, q) do not know of each other, so a lane owns whole columns, and every lane of a chunk reads all of A_t.
Chunks are numbered as in :mod:`dense_scan`: sequence, chunk of time, head, the last fastest.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.look_back import quotient
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size M of a block
MATRIX = constant("MATRIX")  # M * M
COLUMNS = constant("COLUMNS")  # of a lane
HELD = constant("HELD")  # COLUMNS * M
SHARERS = constant("SHARERS")  # lanes of a chunk
PER_WARP = constant("PER_WARP")  # chunks of a warp
PITCH = constant("PITCH")  # of the rows of a block in shared memory, a multiple of 4
OF_MATRICES = constant("OF_MATRICES")  # warps of a block * M * PITCH
OF_COLUMNS = constant("OF_COLUMNS")  # warps of a block * M * 32
OF_VECTORS = constant("OF_VECTORS")  # warps of a block * 32
VECTOR = constant("VECTOR")  # whether 4 divides M


@inline
def load_row(values, at, row):
    """M neighbours into registers."""
    if VECTOR:
        for k in range(0, BLOCK, 4):
            row[k], row[k + 1], row[k + 2], row[k + 3] = load4(values, at + k)
    else:
        for k in range(BLOCK):
            row[k] = values[at + k]


@inline
def bounds(start, stop, batch, chunk, length):
    """First and last-plus-one step of a chunk, inside the range of its sequence."""
    return max(start[batch], chunk * length), min(stop[batch], (chunk + 1) * length)


@kernel
def reduce_columns(A, b, P, q, start, stop, steps, heads, length, chunks, total):
    """SHARERS neighbouring lanes are a chunk; each holds COLUMNS columns of (P, q) in registers. No shared memory, no shuffles.

    The lanes of a chunk read the same address, once for all of them.
    """
    thread = cuda.grid(1)
    lane = thread & 31
    place = lane // SHARERS
    first = (lane - place * SHARERS) * COLUMNS
    number = (thread >> 5) * PER_WARP + place
    if place < PER_WARP and number < total:
        part = quotient(number, heads)
        batch = quotient(part, chunks)
        low, high = bounds(start, stop, batch, part - batch * chunks, length)
        columns = cuda.local.array(HELD, REAL)
        after = cuda.local.array(HELD, REAL)
        row = cuda.local.array(BLOCK, REAL)
        for j in range(COLUMNS):
            for i in range(BLOCK):
                columns[j * BLOCK + i] = 1.0 if first + j == i else 0.0
        at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * heads + number - part * heads
        for _ in range(high - low):
            for j in range(COLUMNS):
                for i in range(BLOCK):
                    after[j * BLOCK + i] = b[at * BLOCK + i] if first + j == BLOCK else 0.0
            for i in range(BLOCK):
                load_row(A, at * MATRIX + i * BLOCK, row)
                for j in range(COLUMNS):
                    if TRANSPOSE:
                        for k in range(BLOCK):
                            after[j * BLOCK + k] += row[k] * columns[j * BLOCK + i]
                    else:
                        for k in range(BLOCK):
                            after[j * BLOCK + i] += row[k] * columns[j * BLOCK + k]
            for i in range(HELD):
                columns[i] = after[i]
            at += -heads if REVERSE else heads
        for j in range(COLUMNS):
            if first + j < BLOCK:
                for i in range(BLOCK):
                    P[np.int64(number) * MATRIX + i * BLOCK + first + j] = columns[j * BLOCK + i]
            elif first + j == BLOCK:
                for i in range(BLOCK):
                    q[np.int64(number) * BLOCK + i] = columns[j * BLOCK + i]


@kernel
def reduce_shared(A, b, P, q, start, stop, steps, heads, length, chunks, total):
    """A warp is a chunk; lane j holds column j of P in registers and entry j of q. A_t is staged in shared memory.

    Only the product of a row of A_t with a column is unrolled: a row is read as 16-byte broadcasts. A new column is gathered in
    shared memory, in an order without bank conflicts.
    """
    matrices = cuda.shared.array(OF_MATRICES, REAL, 16)
    gathered = cuda.shared.array(OF_COLUMNS, REAL)
    vectors = cuda.shared.array(OF_VECTORS, REAL)
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    number = cuda.blockIdx.x * (cuda.blockDim.x >> 5) + warp
    inside = number < total
    part = quotient(min(number, total - 1), heads)
    batch = quotient(part, chunks)
    low, high = bounds(start, stop, batch, part - batch * chunks, length)
    matrix, gather, vector = warp * BLOCK * PITCH, warp * BLOCK * 32 + lane, warp * 32
    column = cuda.local.array(BLOCK, REAL)
    for i in range(BLOCK):
        column[i] = 1.0 if lane == i else 0.0
    offset = REAL(0.0)
    at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * heads + number - part * heads
    for step in range(length):
        valid = inside and step < high - low
        if valid:
            for k in range(lane, MATRIX, 32):
                i, j = k // BLOCK, k % BLOCK
                matrices[matrix + (j * PITCH + i if TRANSPOSE else i * PITCH + j)] = A[at * MATRIX + k]
        vectors[vector + lane] = offset
        cuda.syncwarp()
        if valid:
            for i in range(BLOCK):
                value = REAL(0.0)
                for k in range(0, PITCH, 4):
                    a0, a1, a2, a3 = load4(matrices, matrix + i * PITCH + k)
                    value += a0 * column[k]
                    if k + 1 < BLOCK:
                        value += a1 * column[k + 1]
                    if k + 2 < BLOCK:
                        value += a2 * column[k + 2]
                    if k + 3 < BLOCK:
                        value += a3 * column[k + 3]
                gathered[gather + i * 32] = value
            if lane < BLOCK:
                offset = b[at * BLOCK + lane]
                for k in range(BLOCK):
                    offset += matrices[matrix + lane * PITCH + k] * vectors[vector + k]
            for i in range(BLOCK):
                column[i] = gathered[gather + i * 32]
        cuda.syncwarp()
        at += -heads if REVERSE else heads
    if inside and lane < BLOCK:
        for i in range(BLOCK):
            P[np.int64(number) * MATRIX + i * BLOCK + lane] = column[i]
        q[np.int64(number) * BLOCK + lane] = offset
