"""The scan with blocks: reduce chunks of time to one map each, scan the maps in the same way, apply the states to the chunks.

A chunk is a run of time of one block ("head") of one sequence. Chunks are numbered by sequence, chunk of time and head, the
last fastest, so that their maps lie in memory as the blocks of a recurrence with ``chunks`` steps. Few steps are one chunk.

A product of A_t may overflow where the states do not. Chunks whose start is then not finite are left alone at first, and walked
in the end from the state before them.
"""

from __future__ import annotations

import math

import numpy as np

from pitsolve.backends.cuda.dense_reduce import UNROLLED, blocks_of_warps, bounds, reduce_by_columns
from pitsolve.backends.cuda.intrinsics import load4, store4
from pitsolve.backends.cuda.large_scan import mend, walk_chunks
from pitsolve.backends.cuda.launch import WARP, blocks_for, cuda, device, specialise
from pitsolve.backends.cuda.look_back import quotient
from pitsolve.backends.cuda.tiled_reduce import reduce_by_tiles
from pitsolve.backends.cuda.workspace import of_device
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size M of a block
MATRIX = constant("MATRIX")  # M * M
ROWS = constant("ROWS")  # of a lane
HELD = constant("HELD")  # ROWS * M
SHARERS = constant("SHARERS")  # lanes of a chunk: M / ROWS
PER_WARP = constant("PER_WARP")  # chunks of a warp
VECTOR = constant("VECTOR")  # whether ROWS is 4 and 4 divides M
LEAVE = constant("LEAVE")  # whether a chunk without a finite start is left to `mend`

_ALL = 0xffffffff
_OF_A_WARP = 32  # larger blocks are walked by a block of threads
_COMPOSED = 128  # still larger ones are always walked
_SIDE_BY_SIDE = 150_000  # rows of the batch times M * M, from which on walking them side by side fills the card
_THREADS = 128
_LARGE_THREADS = 256
_CHUNKS, _LARGE_CHUNKS = 1 << 15, 1 << 11  # of all heads and sequences: they fill the largest cards
_LENGTH = 32  # shortest chunk


@inline
def _product(A, at, first, state, new):
    """new += rows ``first`` ... of A_t or of its transpose, times the state of the whole block."""
    rows = cuda.local.array(HELD, REAL)
    if TRANSPOSE:
        for k in range(BLOCK):
            if VECTOR:
                rows[0], rows[1], rows[2], rows[3] = load4(A, at + k * BLOCK + first)
            else:
                for i in range(ROWS):
                    rows[i] = A[at + k * BLOCK + first + i]
            for i in range(ROWS):
                new[i] += rows[i] * state[k]
    else:
        for k in range(0, HELD, 4 if VECTOR else 1):
            if VECTOR:
                rows[k], rows[k + 1], rows[k + 2], rows[k + 3] = load4(A, at + first * BLOCK + k)
            else:
                rows[k] = A[at + first * BLOCK + k]
        for i in range(ROWS):
            for k in range(BLOCK):
                new[i] += rows[i * BLOCK + k] * state[k]


@kernel
def apply_chunks(A, b, y0, ends, out, spoilt, start, stop, steps, heads, length, chunks, total):
    """SHARERS neighbouring lanes walk a chunk, ROWS rows of A_t each; all hold the whole state, exchanged by shuffles.

    ``ends`` holds the state after every chunk, by number of the chunk; the first of a sequence starts from ``y0``.
    """
    thread = cuda.grid(1)
    lane = thread & 31
    place = lane // SHARERS
    first = (lane - place * SHARERS) * ROWS
    number = (thread >> 5) * PER_WARP + place
    inside = place < PER_WARP and number < total
    if not inside:
        place, number = 0, 0
    part = quotient(number, heads)
    batch = quotient(part, chunks)
    chunk, head = part - batch * chunks, number - part * heads
    low, high = bounds(start, stop, batch, chunk, length)
    state = cuda.local.array(BLOCK, REAL)
    new = cuda.local.array(ROWS, REAL)
    finite = True
    before = number + heads if REVERSE else number - heads
    for i in range(BLOCK):
        if chunk == (chunks - 1 if REVERSE else 0):
            state[i] = y0[(batch * heads + head) * BLOCK + i]
        else:
            state[i] = ends[np.int64(before) * BLOCK + i]
            finite = finite and math.isfinite(state[i])
    if LEAVE and not finite:
        spoilt[0] = 0
        inside = False
    at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * heads + head
    for step in range(length):
        if inside and step < high - low:
            if VECTOR:
                new[0], new[1], new[2], new[3] = load4(b, at * BLOCK + first)
            else:
                for i in range(ROWS):
                    new[i] = b[at * BLOCK + first + i]
            _product(A, at * MATRIX, first, state, new)
            if VECTOR:
                store4(out, at * BLOCK + first, new[0], new[1], new[2], new[3])
            else:
                for i in range(ROWS):
                    out[at * BLOCK + first + i] = new[i]
        for i in range(BLOCK):
            state[i] = new[i] if SHARERS == 1 else cuda.shfl_sync(_ALL, new[i % ROWS], place * SHARERS + i // ROWS)
        at += -heads if REVERSE else heads


def scan_blocks(A, b, y0, out, start, stop, reverse, transpose):
    """The verb ``scan`` for blocks of two and more rows."""
    batch, steps, heads, block, _ = A.shape
    constants = {"REVERSE": reverse, "TRANSPOSE": transpose, "BLOCK": block, "MATRIX": block * block}
    _scan_level(0, *(x.reshape(-1) for x in (A, b, y0, out)), of_device(np.int32).take("spoilt", 1), start, stop,
                (batch, steps, heads), constants)


def _scan_level(level, A, b, y0, out, spoilt, start, stop, shape, constants):
    batch, steps, heads = shape
    block, dtype = constants["BLOCK"], b.dtype
    length = _chunk_length(batch * heads, steps, block)
    chunks = blocks_for(steps, length)
    total = batch * chunks * heads
    grid = device().indices(start), device().indices(stop), steps, heads, length, chunks
    ends = y0
    if chunks > 1:
        work = of_device(dtype)
        P, ends = work.take(f"P{level}", total * block * block), work.take(f"q{level}", total * block)
        (reduce_by_columns if block in UNROLLED else reduce_by_tiles)(A, b, P, ends, grid, total, constants)
        whole = np.zeros(batch, np.int64), np.full(batch, chunks)
        _scan_level(level + 1, P, ends, y0, ends, spoilt, *whole, (batch, chunks, heads), constants | {"TRANSPOSE": False})
    leave = level == 0 and chunks > 1
    if leave:
        device().preset(spoilt)
    arrays, padded = (A, b, y0, ends, out, spoilt, *grid), {"PADDED": 2 * block}
    if block > _OF_A_WARP:
        specialise(walk_chunks, dtype, **constants, **padded, LEAVE=leave)(total, _LARGE_THREADS, *arrays)
    else:
        rows = block if block <= 4 else 4 if block % 4 == 0 else 1
        sharers = block // rows
        shared = {"ROWS": rows, "HELD": rows * block, "SHARERS": sharers, "PER_WARP": WARP // sharers, "VECTOR": rows == 4}
        specialise(apply_chunks, dtype, **constants, **shared, LEAVE=leave)(
            blocks_of_warps(total, WARP // sharers, _THREADS), _THREADS, *arrays, total)
    if leave:
        specialise(mend, dtype, **constants, **padded)(
            batch * heads, WARP if block <= _OF_A_WARP else _LARGE_THREADS, *arrays)


def _chunk_length(rows, steps, block):
    """Steps of a chunk, from the shape alone; all of them where composing maps costs more than walking side by side saves."""
    large = block > _OF_A_WARP
    if large and (block > _COMPOSED or rows * block**2 > _SIDE_BY_SIDE):
        return steps
    length = max(_LENGTH, blocks_for(rows * steps, _LARGE_CHUNKS if large else _CHUNKS))
    return length if steps > 2 * length else steps
