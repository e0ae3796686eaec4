"""Kernels on whole arrays: rows copied from place to place, sums and maxima of rows. Each is bound by memory.

Where rows are picked, a warp copies a row, its lanes side by side. Where time is walked, blocks of the x direction of the grid
share a sequence and the y direction counts sequences.
"""

import math

from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, kernel

REAL = constant("REAL")
BITS = constant("BITS")  # the integer of as many bits: numbers that are not negative have the order of their bit patterns
INITIAL = constant("INITIAL")  # whether there is a value before the first step
ADD = constant("ADD")  # whether to add to what is there
PICKED = constant("PICKED")  # whether rows are picked by an index
MINUS = constant("MINUS")  # whether something is subtracted


@kernel
def gather(values, initial, row, at, out, number, steps, width):
    """out[w] = values[row[w], at[w]]."""
    lane = cuda.threadIdx.x & 31
    for w in range(cuda.grid(1) >> 5, number, cuda.gridsize(1) >> 5):
        step = at[w]
        for i in range(lane, width, 32):
            if INITIAL and step < 0:
                out[w * width + i] = initial[row[w] * width + i]
            else:
                out[w * width + i] = values[(row[w] * steps + step) * width + i]


@kernel
def scatter(values, row, at, new, index, minus, number, steps, width):
    """values[row[w], at[w]] = new[index[w]] - minus[w]."""
    lane = cuda.threadIdx.x & 31
    for w in range(cuda.grid(1) >> 5, number, cuda.gridsize(1) >> 5):
        source = index[w] if PICKED else w
        for i in range(lane, width, 32):
            value = new[source * width + i]
            if MINUS:
                value -= minus[w * width + i]
            values[(row[w] * steps + at[w]) * width + i] = value


@kernel
def shift(out, values, begin, rows, out_size, size):
    """out[b, j] = values[b, begin + j] (or +=) on rows of so many numbers, zero where there is none."""
    for b in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
        for j in range(cuda.grid(1), out_size, cuda.gridDim.x * cuda.blockDim.x):
            inside = 0 <= begin + j < size
            if ADD:
                if inside:
                    out[b * out_size + j] += values[b * size + begin + j]
            else:
                out[b * out_size + j] = values[b * size + begin + j] if inside else REAL(0)


@kernel
def repeat(out, values, rows, steps, width):
    """out[b, t] = values[b]."""
    for b in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
        for t in range(cuda.grid(1), steps, cuda.gridDim.x * cuda.blockDim.x):
            for i in range(width):
                out[(b * steps + t) * width + i] = values[b * width + i]


@kernel
def clear(values, first, rows, size, width):
    """values[b, j] = 0 from step first[b] of ``width`` numbers on."""
    for b in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
        for j in range(first[b] * width + cuda.grid(1), size, cuda.gridDim.x * cuda.blockDim.x):
            values[b * size + j] = 0.0


@kernel
def linear(alpha, a, beta, b, out, size):
    """out = alpha a + beta b."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = alpha * a[i] + beta * b[i]


@kernel
def multiply(values, factor, size):
    """values *= factor."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        values[i] *= factor


@kernel
def products(a, b, sums, size):
    """A thread adds up every gridsize-th product in float64, always the same ones in the same order."""
    total = REAL(0)
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        total += REAL(a[i]) * REAL(b[i])
    sums[cuda.grid(1)] = total


@kernel
def square_sums(values, minus, sums, rows, width):
    """A thread adds up the squares of a row of values - minus in float64."""
    for w in range(cuda.grid(1), rows, cuda.gridsize(1)):
        total = REAL(0)
        for i in range(width):
            number = REAL(values[w * width + i] - minus[w * width + i] if MINUS else values[w * width + i])
            total += number * number
        sums[w] = total


@kernel
def maxima(values, result, rows, size):
    """The integer maximum of the bit patterns of |v| of each row, which is the same in any order and keeps NaN."""
    for b in range(cuda.blockIdx.y, rows, cuda.gridDim.y):
        best = BITS(0)
        for j in range(cuda.grid(1), size, cuda.gridDim.x * cuda.blockDim.x):
            best = max(best, abs(values[b * size + j]).view(BITS))
        cuda.atomic.max(result, b, best)


@kernel
def compare(old, new, sizes, differs, rows, width):
    """A thread compares a row: max |new - old| / max(1, |new|), NaN if there is one, and whether anything differs."""
    for w in range(cuda.grid(1), rows, cuda.gridsize(1)):
        largest, different = REAL(0), False
        for i in range(w * width, (w + 1) * width):
            before, after = old[i], new[i]
            size = abs(after - before) / max(REAL(1), abs(after))
            if not size <= largest and not math.isnan(largest):
                largest = size
            if after != before and not (math.isnan(after) and math.isnan(before)):
                different = True
        sizes[w] = largest
        differs[w] = different
