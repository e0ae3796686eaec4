"""The scan with blocks larger than a warp: every block of every sequence is walked step by step."""

import numpy as np

from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.look_back import quotient
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
REVERSE = constant("REVERSE")
TRANSPOSE = constant("TRANSPOSE")
BLOCK = constant("BLOCK")  # size M of a block
MATRIX = constant("MATRIX")  # M * M
PADDED = constant("PADDED")  # 2 * M: the state before and after a step

_ALL = 0xffffffff


@kernel
def walk_large(A, b, y0, out, start, stop, steps, heads):
    """A block of threads is a head of a sequence; the state is in shared memory, twice, with one barrier a step.

    A warp owns rows of A_t, its lanes read them 32 numbers at a time and add up by shuffles; of the transpose, a thread owns
    rows, and neighbours read neighbours.
    """
    states = cuda.shared.array(PADDED, REAL)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    lane = thread & 31
    batch = quotient(cuda.blockIdx.x, heads)
    head = cuda.blockIdx.x - batch * heads
    low, high = start[batch], stop[batch]
    for i in range(thread, BLOCK, threads):
        states[i] = y0[cuda.blockIdx.x * BLOCK + i]
    cuda.syncthreads()
    old, new = 0, BLOCK
    at = (np.int64(batch) * steps + (high - 1 if REVERSE else low)) * heads + head
    for _ in range(high - low):
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
        old, new = new, old
        at += -heads if REVERSE else heads
