"""The kernel that composes the maps y -> A_t y + b_t of a chunk of time into one map (P, q), for blocks of up to 128 rows.

A block of threads is a chunk, or a chunk and a group of the columns of P where P is too large for shared memory. P stays
there for the whole chunk; a thread makes four by four numbers of A_t P, sums in registers. A_t comes as panels of DEPTH
columns: the numbers of the next panel are on their way from memory while this one is multiplied.
"""

import numpy as np

from pitsolve.backends.cuda.dense_reduce import bounds
from pitsolve.backends.cuda.intrinsics import load, load4, store, store4
from pitsolve.backends.cuda.launch import WARP, blocks_for, cuda, specialise
from pitsolve.backends.cuda.look_back import quotient
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size M of a block
MATRIX = constant("MATRIX")  # M * M
WIDTH = constant("WIDTH")  # columns of a group, a multiple of 4
ACROSS = constant("ACROSS")  # WIDTH / 4
TILES = constant("TILES")  # of 4 x 4 numbers
THREADS = constant("THREADS")
DEPTH = constant("DEPTH")  # columns of a panel
PITCH = constant("PITCH")  # of the columns of a panel in shared memory: 4 times an odd number, against bank conflicts
PANEL = constant("PANEL")  # DEPTH * PITCH
PANELS = constant("PANELS")  # 2 * PANEL: one is read, one is written
HELD = constant("HELD")  # numbers of a panel that a thread brings
LINES = constant("LINES")  # M rounded up to whole panels
OF_COLUMNS = constant("OF_COLUMNS")  # LINES * WIDTH

_SHARED_BYTES = 48 << 10
_PANEL_BYTES = 64  # of a row of A_t in a panel: whole sectors of memory


@inline
def _place(e):
    """Row of A_t (of its transpose) and column in the panel of the number e; neighbours are neighbours in memory."""
    if TRANSPOSE:
        k = quotient(e, BLOCK)
        return e - k * BLOCK, k
    else:
        i = quotient(e, DEPTH)
        return i, e - i * DEPTH


@inline
def _hold(A, at, first, held):
    """The panel that begins at column ``first``, into registers; zeros beyond the last column."""
    for j in range(HELD):
        e = cuda.threadIdx.x + j * THREADS
        i, k = _place(e)
        held[j] = 0.0
        if e < DEPTH * BLOCK and first + k < BLOCK:
            held[j] = load(A, at * MATRIX + ((first + k) * BLOCK + i if TRANSPOSE else i * BLOCK + first + k))


@inline
def _multiply(panels, buffer, row, columns, line, column, sums):
    """Add the product of a panel and the rows of P that belong to it to the four by four sums of this thread."""
    for k in range(DEPTH):
        factors = load4(panels, buffer + k * PITCH + row)
        values = load4(columns, (line + k) * WIDTH + column)
        for i in range(4):
            for j in range(4):
                sums[4 * i + j] += factors[i] * values[j]


@kernel
def reduce_tiles(A, b, P, q, start, stop, steps, heads, length, chunks):
    """Chunks are numbered by sequence, chunk of time and head, the last fastest: blocks along x; groups of columns along y."""
    panels = cuda.shared.array(PANELS, REAL, 16)
    columns = cuda.shared.array(OF_COLUMNS, REAL, 16)
    vector = cuda.shared.array(LINES, REAL)
    held = cuda.local.array(HELD, REAL)
    sums = cuda.local.array(16, REAL)
    thread, number, group = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y * WIDTH
    part = quotient(number, heads)
    batch = quotient(part, chunks)
    low, high = bounds(start, stop, batch, part - batch * chunks, length)
    row = quotient(min(thread, TILES - 1), ACROSS) * 4
    column = min(thread, TILES - 1) * 4 - row * ACROSS
    for e in range(thread, OF_COLUMNS, THREADS):
        i = quotient(e, WIDTH)
        columns[e] = 1.0 if i < BLOCK and i == group + e - i * WIDTH else 0.0
    for i in range(thread, LINES, THREADS):
        vector[i] = 0.0
    at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * heads + number - part * heads
    buffer = 0
    if low < high:
        _hold(A, at, 0, held)
    for step in range(high - low):
        after = at + (-heads if REVERSE else heads)
        for r in range(16):
            sums[r] = 0.0
        offset = REAL(0.0)
        added = b[at * BLOCK + thread] if thread < BLOCK else REAL(0.0)
        for first in range(0, BLOCK, DEPTH):
            for j in range(HELD):
                i, k = _place(thread + j * THREADS)
                if thread + j * THREADS < DEPTH * BLOCK:
                    store(panels, buffer + k * PITCH + i, held[j])
            cuda.syncthreads()
            if first + DEPTH < BLOCK:
                _hold(A, at, first + DEPTH, held)
            elif step + 1 < high - low:
                _hold(A, after, 0, held)
            _multiply(panels, buffer, row, columns, first, column, sums)
            if thread < BLOCK:
                for k in range(DEPTH):
                    offset += load(panels, buffer + k * PITCH + thread) * load(vector, first + k)
            buffer = PANEL - buffer
        cuda.syncthreads()
        for i in range(4):
            if thread < TILES and row + i < BLOCK:
                store4(columns, (row + i) * WIDTH + column, sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3])
        if thread < BLOCK:
            vector[thread] = offset + added
        at = after
    cuda.syncthreads()
    for e in range(thread, BLOCK * WIDTH, THREADS):
        i = quotient(e, WIDTH)
        if group + e - i * WIDTH < BLOCK:
            P[np.int64(number) * MATRIX + i * BLOCK + group + e - i * WIDTH] = columns[e]
    if group == 0 and thread < BLOCK:
        q[np.int64(number) * BLOCK + thread] = vector[thread]


def layout(block: int, itemsize: int) -> dict[str, int]:
    """The constants of the kernel; as few groups of columns as shared memory allows."""
    depth, side = _PANEL_BYTES // itemsize, blocks_for(block, 4) * 4
    pitch, lines = side | 4, blocks_for(block, depth) * depth
    most = (_SHARED_BYTES // itemsize - 2 * depth * pitch - lines) // lines
    groups = blocks_for(side, most // 4 * 4)
    width = blocks_for(side, 4 * groups) * 4
    tiles = side // 4 * (width // 4)
    threads = blocks_for(tiles, WARP) * WARP
    return {"WIDTH": width, "ACROSS": width // 4, "TILES": tiles, "THREADS": threads, "DEPTH": depth, "PITCH": pitch,
            "PANEL": depth * pitch, "PANELS": 2 * depth * pitch, "HELD": blocks_for(block * depth, threads), "LINES": lines,
            "OF_COLUMNS": lines * width}


def reduce_by_tiles(A, b, P, q, grid, total, constants):
    """The maps of all chunks."""
    chosen = layout(constants["BLOCK"], b.dtype.itemsize)
    specialise(reduce_tiles, b.dtype, (chosen["THREADS"], 1), **constants, **chosen)(
        (total, blocks_for(constants["BLOCK"], chosen["WIDTH"])), chosen["THREADS"], A, b, P, q, *grid)
