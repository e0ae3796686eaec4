"""The affine recurrence y_t = A_t y_{t-1} + b_t on the CPU, forward or reverse, with A_t or its transpose.

Small blocks run in SIMD lanes and, where there are few rows, in chunks of time: reduce each chunk to one affine map,
combine the maps into the state before each chunk, then walk every chunk from its known start. A wave of chunks is
reduced and walked before the next one is touched, so that the walk reads its input from the cache. The grid of chunks
follows from the shape alone: neither the number of threads nor the size of a wave can change a bit of the result.
"""

import math

import numba
import numpy as np

from pitsolve.backends.cpu.dense_scan import walk_rows
from pitsolve.backends.cpu.maps import (
    apply,
    compose,
    finite,
    flush,
    last,
    load_maps,
    load_states,
    prefix,
    store_maps,
    store_states,
    stream_states,
)
from pitsolve.backends.cpu.simd import lanes_for, register_bytes
from pitsolve.compile import constant, inline, kernel, specialise

REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size of a diagonal block
LANES = constant("LANES")
COUNT = constant("COUNT")  # vectors of blocks that advance together
PERIOD = constant("PERIOD")  # lanes from one step to the next in a vector
TOGETHER = constant("TOGETHER")  # steps in a vector
WHOLE = constant("WHOLE")  # blocks in a full group of vectors
STREAM = constant("STREAM")  # whether every store is a whole aligned vector that goes past the cache

_CHUNK_BYTES = 1 << 18
_WAVE_BYTES = 1 << 21  # of A, b and y for each thread: a common second-level cache, measured best with chunks of this size
_STREAM_BYTES = 1 << 25  # outputs beyond this would evict the inputs from the cache
_LANE_BLOCK = 4  # largest block that runs in lanes where the blocks of a step fill a vector
_TIME_BLOCK = 2  # the same where a vector has to hold several steps


@inline
def _step(A, a_at, b, at, source, source_at, out, out_at, heads):
    """out[out_at:] = A[a_at:] source[source_at:] + b[at:], block by block; out may be b, but not source."""
    for h in range(heads):
        for i in range(BLOCK):
            total = b[at + h * BLOCK + i]
            for k in range(BLOCK):
                j = k * BLOCK + i if TRANSPOSE else i * BLOCK + k
                total += A[a_at + h * BLOCK * BLOCK + j] * source[source_at + h * BLOCK + k]
            out[out_at + h * BLOCK + i] = total


@kernel(reassociate=True)
def _steps(A, b, source, source_at, out, row, start, stop, heads):
    """Steps start <= t < stop of a row whose first element is ``row`` steps into the arrays, one after the other."""
    width = heads * BLOCK
    for step in range(stop - start):
        t = row + (stop - 1 - step if REVERSE else start + step)
        if step == 0:
            _step(A, t * width * BLOCK, b, t * width, source, source_at, out, t * width, heads)
        else:
            before = (t + 1 if REVERSE else t - 1) * width
            _step(A, t * width * BLOCK, b, t * width, out, before, out, t * width, heads)


@inline
def _maps(A, b, at, blocks):
    """The maps of ``blocks`` blocks from number ``at``, composed within each vector."""
    if blocks == WHOLE:
        maps = load_maps(A, at * BLOCK * BLOCK, b, at * BLOCK, WHOLE, BLOCK, COUNT, LANES, TRANSPOSE)
    else:
        maps = load_maps(A, at * BLOCK * BLOCK, b, at * BLOCK, blocks, BLOCK, COUNT, LANES, TRANSPOSE)
    return prefix(maps, BLOCK, PERIOD, REVERSE)


@kernel
def _reduce(A, b, P, q, to, row, start, stop, heads, head, blocks):
    """The map of steps start <= t < stop, for ``blocks`` blocks from ``head`` on, as block number ``to`` of P and q.

    P is transposed where A is.
    """
    total = load_maps(A, 0, b, 0, 0, BLOCK, COUNT, LANES, TRANSPOSE)  # none valid: the identity
    done = 0
    while done < stop - start:
        size = min(TOGETHER, stop - start - done)
        t = row + (stop - done - size if REVERSE else start + done)
        maps = _maps(A, b, t * heads + head, size * blocks)
        total = last(compose(total, maps, BLOCK), PERIOD, REVERSE)
        # Products of contractions soon leave the normal range; the check lengthens the chain where there is only one.
        if COUNT > 1 or done % (8 * TOGETHER) == 0:
            total = flush(total, BLOCK)
        done += size
    store_maps(P, to * BLOCK * BLOCK, q, to * BLOCK, blocks, total, BLOCK, TRANSPOSE)


@kernel
def _walk(A, b, source, source_at, out, row, start, stop, heads, head, blocks):
    """Steps start <= t < stop for ``blocks`` blocks from ``head`` on; ``source`` holds the states of these blocks."""
    state = load_states(source, source_at, blocks, BLOCK, COUNT, LANES, PERIOD)
    done = 0
    while done < stop - start:
        size = min(TOGETHER, stop - start - done)
        t = row + (stop - done - size if REVERSE else start + done)
        at = t * heads + head
        states = apply(_maps(A, b, at, size * blocks), state, BLOCK)
        if TOGETHER > 1 and finite(state) and not finite(states):
            # The product of several A_t may overflow where the states themselves do not.
            if done == 0:
                _steps(A, b, source, source_at, out, 0, t, t + size, heads)
            else:
                before = t + size if REVERSE else t - 1
                _steps(A, b, out, before * heads * BLOCK, out, 0, t, t + size, heads)
            after = t if REVERSE else t + size - 1
            state = load_states(out, after * heads * BLOCK, blocks, BLOCK, COUNT, LANES, PERIOD)
        else:
            if STREAM:
                stream_states(out, at * BLOCK, states, BLOCK)
            elif size * blocks == WHOLE:
                store_states(out, at * BLOCK, WHOLE, states, BLOCK)
            else:
                store_states(out, at * BLOCK, size * blocks, states, BLOCK)
            state = last(states, PERIOD, REVERSE)
        done += size


@inline
def _all_finite(values, at, count):
    for i in range(count):
        if not math.isfinite(values[at + i]):
            return False
    return True


@inline
def _bounds(position, chunks, length, start, stop):
    """First and last-plus-one step of the chunk that comes as number ``position``; empty beyond the last chunk."""
    chunk = chunks - 1 - position if REVERSE else position
    return max(start, chunk * length), min(stop, (chunk + 1) * length)


@inline
def _copy(source, source_at, target, target_at, count):
    for i in range(count):
        target[target_at + i] = source[source_at + i]


@kernel
def _repair(A, b, states, before, after, scratch, here, row, low, high, heads):
    """The state after steps low <= t < high, one by one; ``scratch`` holds two states from ``here`` on."""
    width = heads * BLOCK
    there = here + width
    _copy(states, before, scratch, here, width)
    for step in range(high - low):
        t = row + (high - 1 - step if REVERSE else low + step)
        _step(A, t * width * BLOCK, b, t * width, scratch, here, scratch, there, heads)
        here, there = there, here
    _copy(scratch, here, states, after, width)


@kernel
def _combine(A, b, y0, P, q, states, scratch, r, first, chunks, length, wave, start, stop, steps, heads):
    """states[p + 1] = P_p states[p] + q_p for the chunks p of a wave in row r, from y0 or the end of the last wave."""
    width = heads * BLOCK
    base = r * (wave + 1) * width
    if first == 0:
        _copy(y0, r * width, states, base, width)
    else:
        _copy(states, base + wave * width, states, base, width)
    for p in range(min(wave, chunks - 1 - first)):
        before, after = base + p * width, base + (p + 1) * width
        _step(P, (r * wave + p) * width * BLOCK, q, (r * wave + p) * width, states, before, states, after, heads)
        if _all_finite(states, before, width) and not _all_finite(states, after, width):
            # The product over a chunk may overflow where the states themselves do not.
            low, high = _bounds(first + p, chunks, length, start, stop)
            _repair(A, b, states, before, after, scratch, r * 2 * width, r * steps, low, high, heads)


@kernel(parallel=True)
def _chunks(A, b, y0, out, start, stop, steps, heads, length, wave, P, q, states, scratch):
    group = COUNT * LANES if TOGETHER == 1 else heads
    rows, chunks, groups = start.size, -(-steps // length), -(-heads // group)
    for first in range(0, chunks, wave):
        if first < chunks - 1:  # no chunk starts from the end of the last
            for task in numba.prange(rows * wave * groups):
                piece, head = task // groups, task % groups * group
                low, high = _bounds(first + piece % wave, chunks, length, start[piece // wave], stop[piece // wave])
                _reduce(A, b, P, q, piece * heads + head, piece // wave * steps, low, high, heads, head,
                        min(group, heads - head))
        for r in range(rows):  # one thread: it is little work, and waiting for threads is not free
            _combine(A, b, y0, P, q, states, scratch, r, first, chunks, length, wave, start[r], stop[r], steps, heads)
        for task in numba.prange(rows * wave * groups):
            piece, head = task // groups, task % groups * group
            low, high = _bounds(first + piece % wave, chunks, length, start[piece // wave], stop[piece // wave])
            _walk(A, b, states, ((piece + piece // wave) * heads + head) * BLOCK, out, piece // wave * steps, low, high,
                  heads, head, min(group, heads - head))


def _chunk_length(rows, steps, blocks, block, groups, itemsize):
    """Steps in a chunk, from the shape alone; all of them where the rows and groups of blocks feed the cores."""
    # Composing blocks costs ``block`` times the work of applying them, so chunks must then be the only parallelism.
    if rows * groups >= (8 if block == 1 else 2):
        return steps
    length = max(64, _CHUNK_BYTES // (blocks * block * (block + 1) * itemsize))
    return length if steps > 2 * length else steps


def _streams(out, b, start, stop, whole):
    """Whether stores can go past the cache: a large output, aligned, and every store (``whole``) fills its vectors."""
    steps = out.shape[1]
    return bool(whole and out.nbytes >= _STREAM_BYTES and out.ctypes.data % register_bytes() == 0
                and not np.shares_memory(out, b) and not start.any() and (stop == steps).all())


def scan(A, b, y0, out, start, stop, reverse=False, transpose=False):
    """Write the affine recurrence of every row into ``out``: y_t = A_t y_{t-1} + b_t for start <= t < stop.

    Parameters
    ----------
    A : ndarray, (B, T, n) or (B, T, K, M, M)
        Diagonals, or K blocks of size M = n / K.  All arrays are C-contiguous and of one floating dtype.
    b : ndarray, (B, T, n)
    y0 : ndarray, (B, n)
        The state before the first step: y_{start-1}, or y_{stop} in reverse.
    out : ndarray, (B, T, n)
        May be ``b`` itself.  Steps outside [start, stop) are left as they are.
    start, stop : ndarray of int64, (B,)
    reverse : bool
        y_t = A_t y_{t+1} + b_t, from stop - 1 down to start.
    transpose : bool
        Multiply by A_t^T.
    """
    rows, steps, width = b.shape
    if b.size == 0:
        return
    block = 1 if A.ndim == 3 else A.shape[-1]
    blocks = width // block
    lanes = register_bytes() // b.itemsize
    constants = {"REVERSE": bool(reverse), "TRANSPOSE": bool(transpose) and block > 1, "BLOCK": block}
    arguments = [x.reshape(-1) for x in (A, b, y0, out)] + [start, stop, steps, blocks]
    if block > (_LANE_BLOCK if blocks >= lanes else _TIME_BLOCK):
        lanes = lanes_for(b.dtype, block)
        specialise(walk_rows, **constants, LANES=lanes, WHOLE=lanes)(*arguments)
        return
    vectors = -(-blocks // lanes)
    groups = -(-vectors // (register_bytes() // 8)) if block == 1 else vectors
    count = -(-vectors // groups)
    together = max(1, lanes // blocks)
    constants |= {"LANES": lanes, "COUNT": count, "TOGETHER": together, "PERIOD": min(blocks, lanes),
                  "WHOLE": together * blocks if blocks <= lanes else count * lanes}
    length = _chunk_length(rows, steps, blocks, block, groups, b.itemsize)
    chunks = -(-steps // length)
    bytes_of_chunk = rows * length * width * (block + 2) * b.itemsize
    wave = min(chunks, max(1, _WAVE_BYTES * numba.get_num_threads() // bytes_of_chunk))
    wave = -(-chunks // -(-chunks // wave))
    P = np.empty(rows * wave * width * block, b.dtype)
    q = np.empty(rows * wave * width, b.dtype)
    states = np.empty(rows * (wave + 1) * width, b.dtype)
    scratch = np.empty(rows * 2 * width, b.dtype)
    whole = (blocks % (count * lanes) == 0 if together == 1
             else together * blocks == lanes and steps % together == 0 and length % together == 0)
    constants["STREAM"] = _streams(out, b, start, stop, whole)
    specialise(_chunks, **constants)(*arguments, length, wave, P, q, states, scratch)
