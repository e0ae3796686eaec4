"""Blocks walked by a whole block of threads: those larger than a warp, and chunks that the parallel scan had to leave alone."""

import math

import numpy as np

from pitsolve.backends.cuda.dense_reduce import bounds
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.look_back import quotient
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size M of a block
MATRIX = constant("MATRIX")  # M * M
PADDED = constant("PADDED")  # 2 * M: the state before and after a step
LEAVE = constant("LEAVE")  # whether a chunk without a finite start is left to `mend`

_ALL = 0xffffffff
_NAN = math.nan


@inline
def _step(A, b, out, at, states, old, new):
    """y_t = A_t y_{t-1} + b_t; the state is in shared memory, twice, and one barrier ends the step.

    A warp owns rows of A_t, its lanes read them 32 numbers at a time and add up by shuffles; of the transpose, a thread owns
    rows, and neighbours read neighbours.
    """
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    lane = thread & 31
    if TRANSPOSE:
        for i in range(thread, BLOCK, threads):
            total = b[at * BLOCK + i]
            for k in range(BLOCK):
                total += A[at * MATRIX + k * BLOCK + i] * states[old + k]
            states[new + i] = total
            out[at * BLOCK + i] = total
    else:
        for group in range(0, BLOCK, threads >> 5):
            i = group + (thread >> 5)
            total = REAL(0.0)
            if i < BLOCK:
                for k in range(lane, BLOCK, 32):
                    total += A[at * MATRIX + i * BLOCK + k] * states[old + k]
            distance = 16
            while distance > 0:
                total += cuda.shfl_xor_sync(_ALL, total, distance)
                distance >>= 1
            if i < BLOCK and lane == 0:
                total += b[at * BLOCK + i]
                states[new + i] = total
                out[at * BLOCK + i] = total
    cuda.syncthreads()


@inline
def _start(source, at, states):
    """The state before the first step into shared memory; whether all of it is finite. Barriers before and after."""
    cuda.syncthreads()
    finite = True
    for i in range(cuda.threadIdx.x, BLOCK, cuda.blockDim.x):
        states[i] = source[at * BLOCK + i]
        finite = finite and math.isfinite(states[i])
    return cuda.syncthreads_and(1 if finite else 0) != 0


@kernel
def walk_chunks(A, b, y0, ends, out, spoilt, start, stop, steps, heads, length, chunks):
    """A block of threads walks a chunk of one head of one sequence.

    ``ends`` holds the state after every chunk, by number of the chunk; the first of a sequence starts from ``y0``.
    """
    states = cuda.shared.array(PADDED, REAL)
    number = cuda.blockIdx.x
    part = quotient(number, heads)
    batch = quotient(part, chunks)
    chunk, head = part - batch * chunks, number - part * heads
    low, high = bounds(start, stop, batch, chunk, length)
    if chunk == (chunks - 1 if REVERSE else 0):
        _start(y0, np.int64(batch) * heads + head, states)
    elif not _start(ends, np.int64(number + heads if REVERSE else number - heads), states) and LEAVE:
        spoilt[0] = 0
        low = high
    old, new = 0, BLOCK
    at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * heads + head
    for _ in range(high - low):
        _step(A, b, out, at, states, old, new)
        old, new = new, old
        at += -heads if REVERSE else heads


@kernel
def mend(A, b, y0, ends, out, spoilt, start, stop, steps, heads, length, chunks):
    """A block of threads walks the chunks of a head of a sequence that were left alone, one after the other.

    A chunk after a state that really is infinite or NaN becomes NaN.
    """
    states = cuda.shared.array(PADDED, REAL)
    if spoilt[0] == 0:
        part = cuda.blockIdx.x
        batch = quotient(part, heads)
        head = part - batch * heads
        for position in range(1, chunks):
            chunk = chunks - 1 - position if REVERSE else position
            number = (batch * chunks + (chunk + 1 if REVERSE else chunk - 1)) * heads + head
            left_alone = not _start(ends, np.int64(number), states)
            low, high = bounds(start, stop, batch, chunk, length)
            at = (np.int64(batch) * steps + (high if REVERSE else low - 1)) * heads + head
            if left_alone and low < high:
                opens = high == stop[batch] if REVERSE else low == start[batch]
                finite = _start(y0 if opens else out, np.int64(part) if opens else at, states)
                old, new = 0, BLOCK
                for _ in range(high - low):
                    at += -heads if REVERSE else heads
                    if finite:
                        _step(A, b, out, at, states, old, new)
                        old, new = new, old
                    else:
                        for i in range(cuda.threadIdx.x, BLOCK, cuda.blockDim.x):
                            out[at * BLOCK + i] = _NAN
