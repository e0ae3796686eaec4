"""The affine recurrence y_t = A_t y_{t-1} + b_t on the device, forward or reverse, with A_t or its transpose.

Which kernel runs, and how time is cut, follows from shape and dtype alone, so that no bit of a result depends on the card.
"""

from __future__ import annotations

from pitsolve.backends.cuda.dense_scan import scan_blocks
from pitsolve.backends.cuda.diagonal_scan import scan_channels, scan_time, walk_channels
from pitsolve.backends.cuda.launch import blocks_for, device, specialise
from pitsolve.backends.cuda.look_back import constants, unwritten_words

_THREADS = {4: 256, 8: 128}  # of a tile, by the bytes of a number: two blocks fit the registers of a multiprocessor
_WALK_THREADS = 64
_WALK_CHANNELS = 28_000  # channels that keep the memory busy with no parallelism over time
_WALK_STEPS = 64  # so few steps do not fill a tile


def scan(A, b, y0, out, start, stop, reverse=False, transpose=False):
    """Write the affine recurrence of every row into ``out``: y_t = A_t y_{t-1} + b_t for start <= t < stop.

    Parameters
    ----------
    A : device array, (B, T, n) or (B, T, K, M, M)
        Diagonals, or K blocks of size M = n / K.  All arrays are C-contiguous, of one floating dtype and aligned to 16 bytes.
    b : device array, (B, T, n)
    y0 : device array, (B, n)
        The state before the first step: y_{start-1}, or y_{stop} in reverse.
    out : device array, (B, T, n)
        May be ``b`` itself.  Steps outside [start, stop) are left as they are.
    start, stop : ndarray of int64 on the host, (B,)
    reverse : bool
        y_t = A_t y_{t+1} + b_t, from stop - 1 down to start.
    transpose : bool
        Multiply by A_t^T.
    """
    if b.size == 0:
        return
    if A.ndim == 3 or A.shape[4] == 1:
        _scan_diagonal(A, b, y0, out, start, stop, bool(reverse))
    else:
        scan_blocks(A, b, y0, out, start, stop, bool(reverse), bool(transpose))


def _scan_diagonal(A, b, y0, out, start, stop, reverse):
    batch, steps, n = b.shape
    arrays = [x.reshape(-1) for x in (A, b, y0, out)] + [device().indices(start), device().indices(stop)]
    per_thread = 4 if n % 4 == 0 else 1
    threads, wide = _THREADS[b.dtype.itemsize], 8 // b.dtype.itemsize  # numbers in 8 bytes
    if batch * n >= _WALK_CHANNELS or steps <= _WALK_STEPS:
        depth = 4 * wide
        held = {"REVERSE": reverse, "PER_THREAD": per_thread, "DEPTH": depth, "HELD": depth * per_thread}
        walks = batch * n // per_thread
        specialise(walk_channels, b.dtype, **held)(blocks_for(walks, _WALK_THREADS), _WALK_THREADS, *arrays, steps, n, walks)
        return
    across = _across(n, per_thread)
    depth = (4 if per_thread == 4 else 8) * wide
    rows = batch * blocks_for(n, across * per_thread)
    tile = constants(b.dtype, threads, across * per_thread, per_thread, repair=True)
    tile |= {"REVERSE": reverse, "DEPTH": depth, "HELD": depth * per_thread, "STEPS": threads // across * depth}
    tiles = blocks_for(steps + 3 if n == 1 else steps, tile["STEPS"])
    words, ends = unwritten_words(tiles, rows, across * per_thread, b.dtype)
    if n == 1:
        specialise(scan_time, b.dtype, **tile)(tiles * rows, threads, *arrays, words, ends, steps, rows)
    else:
        specialise(scan_channels, b.dtype, (threads, 2), **tile)(tiles * rows, threads, *arrays, words, ends, steps, n, rows)


def _across(n, per_thread):
    """Threads side by side: 4 of 16 bytes or 8 of one number, fewer where more than a quarter of them would be idle."""
    across = 4 if per_thread == 4 else 8
    while 3 * blocks_for(n, across * per_thread) * across * per_thread > 4 * n:
        across //= 2
    return across
