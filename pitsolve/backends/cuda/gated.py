"""Kernels of gated cells on slabs of time: project the inputs of all steps at once."""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load, store
from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
INPUTS = constant("INPUTS")
WIDTH = constant("WIDTH")  # GATES hidden_size: numbers of a step of the result
THREADS = constant("THREADS")
ACROSS = constant("ACROSS")  # threads of a block side by side in a row of the result
ALONG = constant("ALONG")  # THREADS / ACROSS
STEPS = constant("STEPS")  # of a tile, 4 ALONG
COLUMNS = constant("COLUMNS")  # of a tile, 4 ACROSS
DEPTH = constant("DEPTH")  # inputs that are in shared memory at a time
INPUT_ROOM = constant("INPUT_ROOM")  # DEPTH (STEPS + 1)
WEIGHT_ROOM = constant("WEIGHT_ROOM")  # DEPTH COLUMNS

VALUE, DIAGONAL, BLOCKS = 0, 1, 2  # what `linearise` writes next to the defect
_DEPTH, _ROOM = 16, 4096  # the most inputs of a tile, and numbers of x in shared memory


def tile(inputs: int, width: int, threads: int) -> dict[str, int]:
    """The constants of :func:`project`: tiles of few columns are long in time."""
    across = min(16, 1 << max(0, (width - 1).bit_length() - 2))
    steps, columns = 4 * threads // across, 4 * across
    depth = max(1, min(inputs, _DEPTH, _ROOM // steps))
    return {"INPUTS": inputs, "WIDTH": width, "THREADS": threads, "ACROSS": across, "ALONG": threads // across, "STEPS": steps,
            "COLUMNS": columns, "DEPTH": depth, "INPUT_ROOM": depth * (steps + 1), "WEIGHT_ROOM": depth * columns}


@kernel
def project(x, weight, bias, drive, steps, begin, length, batch, start, stop):
    """drive[b, t - begin] = W_ih x[b, t] + b_ih for one slab of time.

    A block computes a tile of steps and columns of one sequence, a thread four by four of its numbers, in registers. Inputs
    and weights pass through shared memory, ``DEPTH`` inputs at a time. ``weight`` is W_ih^T. Tiles without a step of
    [start, stop) are left out.
    """
    inputs = cuda.shared.array(INPUT_ROOM, REAL)
    weights = cuda.shared.array(WEIGHT_ROOM, REAL)
    sums = cuda.local.array((4, 4), REAL)
    values = cuda.local.array(4, REAL)
    thread = cuda.threadIdx.x
    along, across = np.uint32(thread // ACROSS), np.uint32(thread % ACROSS)
    leading, left = cuda.blockIdx.x * STEPS, cuda.blockIdx.y * COLUMNS
    for b in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
        wanted = begin + leading < stop[b] and begin + leading + STEPS > start[b]
        for c in range(4):
            column = left + across + c * ACROSS
            for r in range(4):
                sums[r, c] = load(bias, column) if column < WIDTH else 0.0
        for first in range(0, INPUTS if wanted else 0, DEPTH):
            for at in range(thread, STEPS * DEPTH, THREADS):
                step, j = at // DEPTH, at % DEPTH
                inside = leading + step < length and first + j < INPUTS
                here = (np.int64(b) * steps + begin + leading + step) * INPUTS + first + j
                store(inputs, j * (STEPS + 1) + step, load(x, here) if inside else 0.0)
            for at in range(thread, DEPTH * COLUMNS, THREADS):
                j, column = at // COLUMNS, left + at % COLUMNS
                inside = column < WIDTH and first + j < INPUTS
                store(weights, at, load(weight, (first + j) * WIDTH + column) if inside else 0.0)
            cuda.syncthreads()
            for j in range(DEPTH):
                for r in range(4):
                    values[r] = load(inputs, j * (STEPS + 1) + along + r * ALONG)
                for c in range(4):
                    factor = load(weights, j * COLUMNS + across + c * ACROSS)
                    for r in range(4):
                        sums[r, c] += values[r] * factor
            cuda.syncthreads()
        at = (np.int64(b) * length + leading + along) * WIDTH + left + across
        for r in range(4):
            for c in range(4):
                if wanted and leading + along + r * ALONG < length and left + across + c * ACROSS < WIDTH:
                    store(drive, at + r * ALONG * WIDTH + c * ACROSS, sums[r, c])
