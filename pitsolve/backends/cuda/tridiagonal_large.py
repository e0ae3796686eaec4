"""Factors, Schur complements and substitution on windows of block-tridiagonal matrices of any size n.

A block has a window. Its threads share the numbers of a matrix or a vector, which stay in global memory: one barrier a step and
vector, and two a pivot. In shared memory are the row and the column of a pivot, or corrections and sums. Algorithms and layouts
are those of tridiagonal.py and tridiagonal_sweeps.py, which are faster where a matrix fits the registers of a warp.
"""

import numpy as np

from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.tridiagonal_rows import column_times, row_times, step_of
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
SIZE = constant("SIZE")
SQUARE = constant("SQUARE")
TWO_ROWS = constant("TWO_ROWS")
FOUR_ROWS = constant("FOUR_ROWS")

THREADS = 256  # of a block


def shape_constants(n: int) -> dict[str, int]:
    """The compile-time constants of kernels on n x n matrices."""
    return {"SIZE": n, "SQUARE": n * n, "TWO_ROWS": 2 * n, "FOUR_ROWS": 4 * n}


@inline
def set_pivot(out, at, diagonal, block, incoming, ends):
    """out <- a diagonal block plus what came before."""
    for entry in range(cuda.threadIdx.x, SQUARE, cuda.blockDim.x):
        out[at + entry] = diagonal[block + entry] + incoming[ends + entry]


@inline
def invert(matrix, at, smallest, memory):
    """A positive definite matrix becomes its inverse; False if a pivot is not above ``smallest``."""
    positive = True
    for k in range(SIZE):
        cuda.syncthreads()
        for j in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
            memory[j] = matrix[at + k * SIZE + j]
            memory[SIZE + j] = matrix[at + j * SIZE + k]
        cuda.syncthreads()
        pivot = memory[k]
        if not pivot > smallest:
            positive = False
            pivot = 1.0
        inverse = 1.0 / pivot
        for entry in range(cuda.threadIdx.x, SQUARE, cuda.blockDim.x):
            i = step_of(entry)
            j = entry - i * SIZE
            if i == k:
                matrix[at + entry] = inverse if j == k else memory[j] * inverse
            elif j == k:
                matrix[at + entry] = -memory[SIZE + i] * inverse
            else:
                matrix[at + entry] -= memory[SIZE + i] * inverse * memory[j]
    cuda.syncthreads()
    return positive


@inline
def times_coupling(out, at, sign, coupling, block, along, across, matrix, base):
    """out[j, i] = sign sum_k C[i, k] M[k, j], where C[i, k] is coupling[k along + i across]."""
    for entry in range(cuda.threadIdx.x, SQUARE, cuda.blockDim.x):
        j = step_of(entry)
        i = entry - j * SIZE
        total = 0.0
        for k in range(SIZE):
            total += coupling[block + k * along + i * across] * matrix[base + k * SIZE + j]
        out[at + entry] = sign * total
    cuda.syncthreads()


@kernel
def factor(diagonal, off_diagonal, floors, first, last, offset, windows, overlap, mu, from_left, from_right,
           gains, inverses, traces, failed):
    """S_t^-1, its trace and B_t of M = N_ii + mu P_i + the matrices at both ends; the first step without S_t^-1, or -1."""
    memory = cuda.shared.array(TWO_ROWS, REAL)
    window = cuda.blockIdx.x
    begin = first[window]
    steps = last[window] - begin
    left = overlap if window > 0 else 0
    right = overlap if window < windows - 1 else 0
    bad = -1
    for t in range(steps):
        block = np.int64(begin + t) * SQUARE
        at = np.int64(offset[window] + t) * SQUARE
        if t == 0:
            set_pivot(inverses, at, diagonal, block, from_left, np.int64(window) * SQUARE)
        else:
            times_coupling(gains, at, 1.0, off_diagonal, block - SQUARE, SIZE, 1, inverses, at - SQUARE)
            times_coupling(inverses, at, -1.0, off_diagonal, block - SQUARE, SIZE, 1, gains, at)
            set_pivot(inverses, at, diagonal, block, inverses, at)
        cuda.syncthreads()
        if t == steps - 1:
            set_pivot(inverses, at, from_right, np.int64(window) * SQUARE, inverses, at)
        cuda.syncthreads()
        if t < left or t >= steps - right:
            for j in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
                inverses[at + j * SIZE + j] += mu[window]
        if not invert(inverses, at, floors[begin + t], memory) and bad < 0:
            bad = begin + t
        if cuda.threadIdx.x == 0:
            trace = 0.0
            for j in range(SIZE):
                trace += inverses[at + j * SIZE + j]
            traces[offset[window] + t] = trace
    if cuda.threadIdx.x == 0:
        failed[window] = bad


@kernel
def transmit(diagonal, off_diagonal, floors, first, last, windows, overlap, from_left, from_right, to_left, to_right,
             failed, work):
    """What is left of a window when it has eliminated what the neighbour does not hold: -C S^-1 C^T of the last pivot.

    A block an elimination, those to the left first and then those to the right; each has two matrices of ``work``.
    """
    memory = cuda.shared.array(TWO_ROWS, REAL)
    number = cuda.blockIdx.x
    leftward = number < windows
    window = number if leftward else number - windows
    neighbour = window > 0 if leftward else window < windows - 1
    steps = last[window] - first[window] - overlap if neighbour else 0
    ends = np.int64(window) * SQUARE
    pivot = np.int64(number) * 2 * SQUARE
    gain = pivot + SQUARE
    along = 1 if leftward else SIZE
    across = SIZE if leftward else 1
    bad = -1
    for q in range(steps):
        t = last[window] - 1 - q if leftward else first[window] + q
        block = np.int64(t) * SQUARE
        coupling = block - SQUARE if leftward else block
        if q == 0 and leftward:
            set_pivot(work, pivot, diagonal, block, from_right, ends)
        elif q == 0:
            set_pivot(work, pivot, diagonal, block, from_left, ends)
        else:
            set_pivot(work, pivot, diagonal, block, work, pivot)
        if not invert(work, pivot, floors[t], memory) and bad < 0:
            bad = t
        times_coupling(work, gain, 1.0, off_diagonal, coupling, along, across, work, pivot)
        times_coupling(work, pivot, -1.0, off_diagonal, coupling, along, across, work, gain)
    for entry in range(cuda.threadIdx.x, SQUARE if steps > 0 else 0, cuda.blockDim.x):
        if leftward:
            to_left[ends + entry] = work[pivot + entry]
        else:
            to_right[ends + entry] = work[pivot + entry]
    if cuda.threadIdx.x == 0:
        failed[number] = bad


@inline
def set_sums(sums, place, count, memory):
    """The sums over rows of the first two vectors in shared memory, in the order of the rows."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        first = 0.0
        second = 0.0
        for j in range(SIZE):
            first += memory[j]
            second += memory[SIZE + j]
        sums[place] = first
        sums[count + place] = second


@kernel
def substitute(chosen, count, offset, gains, inverses, u, copies, sums):
    """The chosen windows from scratch, for the right sides in u; the squared norms of what changed and of the copies."""
    memory = cuda.shared.array(TWO_ROWS, REAL)
    window = chosen[cuda.blockIdx.x]
    begin = offset[window]
    steps = offset[window + 1] - begin
    for t in range(1, steps):
        at = np.int64(begin + t)
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
            u[at * SIZE + i] -= column_times(gains, at * SQUARE, i, u, (at - 1) * SIZE)
    for i in range(cuda.threadIdx.x, TWO_ROWS, cuda.blockDim.x):
        memory[i] = 0.0
    for t in range(steps - 1, -1, -1):
        at = np.int64(begin + t)
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
            value = column_times(inverses, at * SQUARE, i, u, at * SIZE)
            if t < steps - 1:
                value -= row_times(gains, (at + 1) * SQUARE, i, copies, (at + 1) * SIZE)
            change = value - copies[at * SIZE + i]
            copies[at * SIZE + i] = value
            memory[i] += change * change
            memory[SIZE + i] += value * value
    set_sums(sums, cuda.blockIdx.x, count, memory)


@inline
def exceeds(vector, at, factor, bound):
    """Whether the largest absolute value of a vector, times ``factor``, is above ``bound``, or NaN."""
    found = False
    for j in range(SIZE):
        value = vector[at + j]
        if value != value or abs(value) * factor > bound:
            found = True
    return found


@kernel
def correct(chosen, count, reach, smallest, offset, gains, inverses, traces, u, copies, sums):
    """The same for changes of the right side within ``reach`` rows of the ends: only steps that they move are visited.

    The second sum is by how much the squared norm of the copy grew.
    """
    memory = cuda.shared.array(FOUR_ROWS, REAL)  # two vectors of sums, the corrections of two steps
    place = cuda.blockIdx.x
    window = chosen[place]
    begin = offset[window]
    steps = offset[window + 1] - begin
    tail = steps - min(steps, reach[place])
    bound = smallest[place]
    head = 0  # rows of u before it are what came from the left
    going = True
    while going:
        at = np.int64(begin + head)
        cuda.syncthreads()
        inside = steps - tail <= head < tail
        if inside:
            going = exceeds(u, (at - 1) * SIZE, traces[begin + head - 1], bound)
        if going:
            for i in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
                value = 0.0 if inside else u[at * SIZE + i]
                if head > 0:
                    value -= column_times(gains, at * SQUARE, i, u, (at - 1) * SIZE)
                u[at * SIZE + i] = value
            head += 1
            going = head < steps
    for t in range(max(head, tail + 1), steps):
        at = np.int64(begin + t)
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
            u[at * SIZE + i] -= column_times(gains, at * SQUARE, i, u, (at - 1) * SIZE)
    for i in range(cuda.threadIdx.x, TWO_ROWS, cuda.blockDim.x):
        memory[i] = 0.0
    follow = False  # whether the step after this one was corrected
    t = steps - 1
    while t >= 0:
        at = np.int64(begin + t)
        new = (2 + (t & 1)) * SIZE
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, SIZE, cuda.blockDim.x):
            value = 0.0
            if t < head or t >= tail:
                value = column_times(inverses, at * SQUARE, i, u, at * SIZE)
            if follow:
                value -= row_times(gains, (at + 1) * SQUARE, i, memory, 5 * SIZE - new)
            old = copies[at * SIZE + i]
            copies[at * SIZE + i] = old + value
            memory[new + i] = value
            memory[i] += value * value
            memory[SIZE + i] += value * (2.0 * old + value)
        cuda.syncthreads()
        follow = t < head or t >= tail or exceeds(memory, new, 1.0, bound)
        t = t - 1 if follow else min(t, head) - 1
    set_sums(sums, place, count, memory)
