"""The kernel that composes the affine maps y -> A_t y + b_t of a chunk of time into one map (P, q), for small blocks.

The columns of (P, q) do not know of each other, so a lane owns whole columns, and every lane of a chunk reads all of A_t.
Chunks are numbered as in :mod:`dense_scan`: sequence, chunk of time, head, the last fastest.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import WARP, blocks_for, cuda, specialise
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
VECTOR = constant("VECTOR")  # whether 4 divides M

UNROLLED = {*range(2, 13), 16}  # sizes of blocks whose product the compiler unrolls
_THREADS = 128


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


def blocks_of_warps(total, per_warp, threads):
    """Blocks of so many threads for ``total`` chunks."""
    return blocks_for(blocks_for(total, per_warp), threads // WARP)


def reduce_by_columns(A, b, P, q, grid, total, constants):
    """The maps of all chunks, for blocks in ``UNROLLED``."""
    block = constants["BLOCK"]
    columns = block + 1 if block <= 5 else 4 if block <= 7 else 3 if block <= 11 else 2
    sharers = blocks_for(block + 1, columns)
    specialise(reduce_columns, b.dtype, **constants, COLUMNS=columns, HELD=columns * block, SHARERS=sharers,
               PER_WARP=WARP // sharers, VECTOR=block % 4 == 0)(
        blocks_of_warps(total, WARP // sharers, _THREADS), _THREADS, A, b, P, q, *grid, total)
