"""Blocks of one launch that hand states on to each other: the look-back behind one-pass scans of y_t = A_t y_{t-1} + b_t.

A block owns a tile: CHANNELS neighbouring channels and a run of time. A thread owns PER_THREAD of the channels and a strand, a
few consecutive steps; ACROSS threads side by side share a strand, the next ACROSS threads have the next strand. From the affine
map of each strand, :func:`strand_states` finds the state before it. Order in a block: strands of a warp by shuffles, warps
through shared memory, tiles through global memory.

Tiles of one row come in groups. Every tile publishes its map; a tile reads all earlier maps of its group, one a thread, and
combines them in a fixed order with the state after the last tile of the group before. The serial chain has one link a group,
and no bit depends on which block came first. Numbers of tiles are drawn from a counter when blocks start, so that a block waits
only for blocks that already run.

A word of global memory is unwritten while all its bits are ones, and is written once; no fences are needed, as whoever sees the
word sees the value. A map is one word in float32 and two in float64, a state is one.

A product of many A_t may overflow where the states do not. With REPAIR, a tile whose incoming state is not finite waits for the
state that the tile before really reached, and :func:`strand_states` says when the caller has to walk its tile step by step.
"""

from __future__ import annotations

import math

import numpy as np
from numba import int32

from pitsolve.backends.cuda.intrinsics import first_half, load_relaxed, pack, second_half, store_relaxed
from pitsolve.backends.cuda.launch import WARP, cuda, device
from pitsolve.backends.cuda.workspace import of_device
from pitsolve.compile import constant, inline

REAL = constant("REAL")
CHANNELS = constant("CHANNELS")  # of a tile: a power of two, at most 32
PER_THREAD = constant("PER_THREAD")  # neighbouring channels of a thread
ACROSS = constant("ACROSS")  # CHANNELS / PER_THREAD
GROUP = constant("GROUP")  # tiles that read each other's maps: threads of a block / CHANNELS
OF_WARPS = constant("OF_WARPS")  # warps of a block * CHANNELS
WARPS = constant("WARPS")  # of a block
WORDS = constant("WORDS")  # of a map
REPAIR = constant("REPAIR")  # whether the caller can walk its tile step by step

_ALL = 0xffffffff  # threads of a warp
_NANS = 0x7fc000007fc00000  # two float32 that are no numbers, other than the unwritten word
_NAN = 0x7ff8000000000000  # the same in float64


def constants(dtype: np.dtype, threads: int, channels: int, per_thread: int, repair: bool) -> dict[str, object]:
    """What the functions below need bound, for blocks of so many threads."""
    return {"CHANNELS": channels, "PER_THREAD": per_thread, "ACROSS": channels // per_thread, "GROUP": threads // channels,
            "OF_WARPS": threads // WARP * channels, "WARPS": threads // WARP, "WORDS": np.dtype(dtype).itemsize // 4,
            "REPAIR": repair}


def unwritten_words(tiles: int, rows: int, channels: int, dtype: np.dtype) -> tuple[object, int]:
    """Words for ``tiles`` tiles in each of ``rows`` rows: the counter, the maps, the states; and where the states begin.

    They are the same memory in every launch of a stream.
    """
    ends = 1 + tiles * rows * channels * (np.dtype(dtype).itemsize // 4)
    words = of_device(np.int64).take("words", ends + tiles * rows * channels)
    device().preset(words)
    return words, ends


@inline
def quotient(number, divisor):
    """number // divisor of whole numbers that are not negative, in one 32-bit division."""
    return np.int32(np.uint32(number) // np.uint32(divisor))


@inline
def take_number(words):
    """The number of this block in the order in which blocks start."""
    number = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        number[0] = cuda.atomic.add(words, 0, 1) + 1
    cuda.syncthreads()
    return number[0]


@inline
def _wait(words, at):
    word = load_relaxed(words, at)
    while word == -1:
        word = load_relaxed(words, at)
    return word


@inline
def _publish_map(words, at, A, B):
    if WORDS == 1:
        word = pack(A, B)
        store_relaxed(words, at, word if word != -1 else _NANS)
    else:
        first, second = A.view(np.int64), B.view(np.int64)
        store_relaxed(words, at, first if first != -1 else _NAN)
        store_relaxed(words, at + 1, second if second != -1 else _NAN)


@inline
def _await_map(words, at):
    if WORDS == 1:
        word = _wait(words, at)
        return first_half(word), second_half(word)
    else:
        return _wait(words, at).view(np.float64), _wait(words, at + 1).view(np.float64)


@inline
def publish_state(words, at, state):
    """Let later tiles know the state after this one; ``at`` is its word."""
    if WORDS == 1:
        store_relaxed(words, at, pack(state, 0.0))  # the second half keeps it from being all ones
    else:
        word = state.view(np.int64)
        store_relaxed(words, at, word if word != -1 else _NAN)


@inline
def await_state(words, at):
    """The state after an earlier tile."""
    if WORDS == 1:
        return first_half(_wait(words, at))
    else:
        return _wait(words, at).view(np.float64)


@inline
def _scan_warp(A, B, count, distance, lane):
    """Compose the ``count`` maps of each lane with those of all lanes before it that are whole ``distance``s away."""
    while distance < 32:
        for q in range(count):
            earlier_A = cuda.shfl_up_sync(_ALL, A[q], distance)
            earlier_B = cuda.shfl_up_sync(_ALL, B[q], distance)
            if lane >= distance:
                B[q] += A[q] * earlier_B
                A[q] *= earlier_A
        distance *= 2


@inline
def strand_states(words, ends, tile, row, rows, y0, y0_at, valid, A, B, y):
    """The state before the strand of this thread in ``y``, from the map (A, B) of the strand: PER_THREAD numbers each.

    (A, B) is destroyed. Every thread of the block calls this, with the identity where it has nothing to do. ``y0`` holds the
    states before the first tile, for ``valid`` channels from ``y0_at`` on; ``rows`` is how many rows there are.

    The result is 0 in general. With REPAIR it is larger where a product of A_t overflowed: then the caller walks the tile from
    its :func:`tile_state`, and a thread number c < CHANNELS that got 2 publishes the state after the tile in channel c.
    """
    warp_A = cuda.shared.array(OF_WARPS, REAL)
    warp_B = cuda.shared.array(OF_WARPS, REAL)
    tile_A = cuda.shared.array(OF_WARPS, REAL)
    tile_B = cuda.shared.array(OF_WARPS, REAL)
    entry = cuda.shared.array(CHANNELS, REAL)
    look_A = cuda.local.array(1, REAL)
    look_B = cuda.local.array(1, REAL)
    thread = cuda.threadIdx.x
    lane, warp = thread & 31, thread >> 5
    column = (thread & (ACROSS - 1)) * PER_THREAD
    _scan_warp(A, B, PER_THREAD, ACROSS, lane)
    if lane >= 32 - ACROSS:
        for q in range(PER_THREAD):
            warp_A[warp * CHANNELS + column + q] = A[q]
            warp_B[warp * CHANNELS + column + q] = B[q]
    for q in range(PER_THREAD):  # from here on without the strand itself
        earlier_A = cuda.shfl_up_sync(_ALL, A[q], ACROSS)
        earlier_B = cuda.shfl_up_sync(_ALL, B[q], ACROSS)
        A[q] = earlier_A if lane >= ACROSS else 1.0
        B[q] = earlier_B if lane >= ACROSS else 0.0
    cuda.syncthreads()
    place = (tile * rows + row) * CHANNELS
    total_A, total_B = REAL(1.0), REAL(0.0)
    if thread < CHANNELS:
        for w in range(WARPS):
            of_warp_A, of_warp_B = warp_A[w * CHANNELS + thread], warp_B[w * CHANNELS + thread]
            warp_A[w * CHANNELS + thread], warp_B[w * CHANNELS + thread] = total_A, total_B
            total_B = of_warp_A * total_B + of_warp_B
            total_A = of_warp_A * total_A
        _publish_map(words, 1 + (place + thread) * WORDS, total_A, total_B)
    first = tile - (tile & (GROUP - 1))
    looked_at = first + thread // CHANNELS
    look_A[0], look_B[0] = 1.0, 0.0
    if looked_at < tile:
        at = (looked_at * rows + row) * CHANNELS + (thread & (CHANNELS - 1))
        look_A[0], look_B[0] = _await_map(words, 1 + at * WORDS)
    _scan_warp(look_A, look_B, 1, CHANNELS, lane)
    if lane >= 32 - CHANNELS:
        tile_A[warp * CHANNELS + (lane & (CHANNELS - 1))] = look_A[0]
        tile_B[warp * CHANNELS + (lane & (CHANNELS - 1))] = look_B[0]
    cuda.syncthreads()
    owes = 0
    if thread < CHANNELS:
        state = REAL(0.0)
        if first > 0:
            state = await_state(words, ends + ((first - 1) * rows + row) * CHANNELS + thread)
        elif thread < valid:
            state = y0[y0_at + thread]
        for w in range(WARPS):
            state = tile_A[w * CHANNELS + thread] * state + tile_B[w * CHANNELS + thread]
        if REPAIR and tile > first and not math.isfinite(state):
            state = await_state(words, ends + place - rows * CHANNELS + thread)
        entry[thread] = state
        end = total_A * state + total_B
        if REPAIR and math.isfinite(state) and not math.isfinite(end):
            owes = 2
        else:
            publish_state(words, ends + place + thread, end)
    cuda.syncthreads()
    spoilt = owes
    for q in range(PER_THREAD):
        before = warp * CHANNELS + column + q
        y[q] = A[q] * (warp_A[before] * entry[column + q] + warp_B[before]) + B[q]
        if REPAIR and not math.isfinite(y[q]) and math.isfinite(entry[column + q]):
            spoilt = 1
    if REPAIR:
        return max(owes, 1) if cuda.syncthreads_or(spoilt) else 0
    return 0


@inline
def tile_state(words, ends, tile, row, rows, y0, y0_at, channel):
    """The state before a tile in one of its channels, as the tile before left it."""
    if tile == 0:
        return y0[y0_at + channel]
    return await_state(words, ends + ((tile - 1) * rows + row) * CHANNELS + channel)
