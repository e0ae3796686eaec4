"""The scan with blocks: reduce chunks of time to one map each, scan the maps in the same way, apply the states to the chunks.

A chunk is a run of time of one block ("head") of one sequence. Chunks are numbered by sequence, chunk of time and head, the
last fastest, so that their maps lie in memory as the blocks of a recurrence with ``chunks`` steps. Few steps are one chunk.

A product of A_t may overflow where the states do not. Chunks whose start is then not finite are left alone at first, and walked
in the end from the state before them.
"""

from __future__ import annotations

import math

import numpy as np

from pitsolve.backends.cuda.dense_reduce import bounds, reduce_columns, reduce_shared
from pitsolve.backends.cuda.intrinsics import load4, store4
from pitsolve.backends.cuda.large_scan import walk_large
from pitsolve.backends.cuda.launch import WARP, blocks_for, cuda, device, specialise
from pitsolve.backends.cuda.look_back import quotient
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
_LARGEST = 32  # blocks of this size and less are scanned in parallel
_THREADS = 128
_CHUNKS = 1 << 15  # of all heads and sequences: they fill the largest cards
_LENGTH = 32  # shortest chunk
_UNROLLED = {*range(2, 13), 16}  # blocks whose product the compiler unrolls
_SHARED_THREADS = {4: 128, 8: 64}  # by the bytes of a number: shared memory is limited
_LARGE_THREADS = 256
_NAN = math.nan


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


@kernel
def mend(A, b, y0, ends, out, spoilt, start, stop, steps, heads, length, chunks):
    """A warp is a head of a sequence, a lane a row; it walks the chunks that were left alone, one after the other.

    A chunk after a state that really is infinite or NaN becomes NaN.
    """
    if spoilt[0] == 0:
        lane, part = cuda.threadIdx.x, cuda.blockIdx.x
        batch = quotient(part, heads)
        head = part - batch * heads
        for position in range(1, chunks):
            chunk = chunks - 1 - position if REVERSE else position
            number = (batch * chunks + (chunk + 1 if REVERSE else chunk - 1)) * heads + head
            finite = lane >= BLOCK or math.isfinite(ends[np.int64(number) * BLOCK + lane])
            left_alone = not cuda.all_sync(_ALL, finite)
            low, high = bounds(start, stop, batch, chunk, length)
            at = (np.int64(batch) * steps + (high if REVERSE else low - 1)) * heads + head
            if left_alone and low < high:
                state = REAL(0.0)
                if lane < BLOCK:
                    opens = high == stop[batch] if REVERSE else low == start[batch]
                    state = y0[part * BLOCK + lane] if opens else out[at * BLOCK + lane]
                broken = cuda.any_sync(_ALL, not math.isfinite(state))
                for _ in range(high - low):
                    at += -heads if REVERSE else heads
                    if broken:
                        state = _NAN
                    else:
                        total = b[at * BLOCK + lane] if lane < BLOCK else REAL(0.0)
                        for k in range(BLOCK):
                            other = cuda.shfl_sync(_ALL, state, k)
                            if lane < BLOCK:
                                total += A[at * MATRIX + (k * BLOCK + lane if TRANSPOSE else lane * BLOCK + k)] * other
                        state = total
                    if lane < BLOCK:
                        out[at * BLOCK + lane] = state


def scan_blocks(A, b, y0, out, start, stop, reverse, transpose):
    """The verb ``scan`` for blocks of two and more rows."""
    batch, steps, heads, block, _ = A.shape
    arrays = [x.reshape(-1) for x in (A, b, y0, out)]
    constants = {"REVERSE": reverse, "TRANSPOSE": transpose, "BLOCK": block, "MATRIX": block * block}
    if block > _LARGEST:
        specialise(walk_large, b.dtype, **constants, PADDED=2 * block)(
            batch * heads, _LARGE_THREADS, *arrays, device().indices(start), device().indices(stop), steps, heads)
    else:
        spoilt = of_device(np.int32).take("spoilt", 1)
        _scan_level(0, *arrays, spoilt, start, stop, (batch, steps, heads), constants)


def _scan_level(level, A, b, y0, out, spoilt, start, stop, shape, constants):
    batch, steps, heads = shape
    block, dtype = constants["BLOCK"], b.dtype
    length = _chunk_length(batch * heads, steps)
    chunks = blocks_for(steps, length)
    total = batch * chunks * heads
    grid = device().indices(start), device().indices(stop), steps, heads, length, chunks
    ends = y0
    if chunks > 1:
        work = of_device(dtype)
        P, ends = work.take(f"P{level}", total * block * block), work.take(f"q{level}", total * block)
        _reduce(A, b, P, ends, grid, total, constants)
        whole = np.zeros(batch, np.int64), np.full(batch, chunks)
        _scan_level(level + 1, P, ends, y0, ends, spoilt, *whole, (batch, chunks, heads), constants | {"TRANSPOSE": False})
    leave = level == 0 and chunks > 1
    if leave:
        device().preset(spoilt)
    rows = block if block <= 4 else 4 if block % 4 == 0 else 1
    sharers = block // rows
    shared = {"ROWS": rows, "HELD": rows * block, "SHARERS": sharers, "PER_WARP": WARP // sharers, "VECTOR": rows == 4}
    specialise(apply_chunks, dtype, **constants, **shared, LEAVE=leave)(
        _blocks(total, WARP // sharers, _THREADS), _THREADS, A, b, y0, ends, out, spoilt, *grid, total)
    if leave:
        specialise(mend, dtype, **constants)(batch * heads, WARP, A, b, y0, ends, out, spoilt, *grid)


def _reduce(A, b, P, q, grid, total, constants):
    """The maps of all chunks."""
    block, dtype = constants["BLOCK"], b.dtype
    if block in _UNROLLED:
        columns = block + 1 if block <= 5 else 4 if block <= 7 else 3 if block <= 11 else 2
        sharers = blocks_for(block + 1, columns)
        constants = constants | {"COLUMNS": columns, "HELD": columns * block, "SHARERS": sharers, "PER_WARP": WARP // sharers,
                                 "VECTOR": block % 4 == 0}
        specialise(reduce_columns, dtype, **constants)(
            _blocks(total, WARP // sharers, _THREADS), _THREADS, A, b, P, q, *grid, total)
    else:
        threads = _SHARED_THREADS[dtype.itemsize]
        warps, pitch = threads // WARP, blocks_for(block, 4) * 4
        constants = constants | {"PITCH": pitch, "OF_MATRICES": warps * block * pitch, "OF_COLUMNS": warps * block * WARP,
                                 "OF_VECTORS": warps * WARP}
        specialise(reduce_shared, dtype, **constants)(_blocks(total, 1, threads), threads, A, b, P, q, *grid, total)


def _blocks(total, per_warp, threads):
    """Blocks of so many threads for ``total`` chunks."""
    return blocks_for(blocks_for(total, per_warp), threads // WARP)


def _chunk_length(rows, steps):
    """Steps of a chunk, from the shape alone."""
    length = max(_LENGTH, blocks_for(rows * steps, _CHUNKS))
    return length if steps > 2 * length else steps
