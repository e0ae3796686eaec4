"""Forward and backward substitution through the windows of a block-tridiagonal matrix with small blocks.

    forward   u_t = r_t - B_t u_{t-1},          backward   x_t = S_t^-1 u_t - B_{t+1}^T x_{t+1}

A window is one group of lanes of one warp, lane i has component i, and vectors go from lane to lane through shared memory, one
barrier a step; what is read of an array that is written is read before that barrier, since lanes beyond n repeat the last one.
A step waits for the one before it and for memory. So the matrices of ``DEPTH`` steps are loaded into registers together before
the first of them is needed, and S_t^-1 u_t is not on the way from one step to the next.
"""

import numpy as np

from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.small_matrices import dot, exceeds, load_column, load_row
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
SIZE = constant("SIZE")
SQUARE = constant("SQUARE")
LANES = constant("LANES")
GROUPS = constant("GROUPS")
PITCH = constant("PITCH")
DEPTH = constant("DEPTH")
BUFFER = constant("BUFFER")  # DEPTH matrices
ALL_VECTOR_CELLS = constant("ALL_VECTOR_CELLS")

_ALL = 0xffffffff


@inline
def add_lanes(memory, at, lane, value):
    """The sum over the lanes of a group, in their order."""
    cuda.syncwarp()
    memory[at + lane] = value
    cuda.syncwarp()
    total = 0.0
    for j in range(SIZE):
        total += memory[at + j]
    return total


@kernel
def substitute(longest, chosen, count, offset, gains, inverses, u, copies, sums):
    """The chosen windows from scratch, for the right sides in u; the squared norms of what changed and of the copies."""
    memory = cuda.shared.array(ALL_VECTOR_CELLS, REAL, 16)
    columns = cuda.local.array(BUFFER, REAL)
    rows = cuda.local.array(BUFFER, REAL)
    right = cuda.local.array(DEPTH, REAL)
    old = cuda.local.array(DEPTH, REAL)
    group = cuda.threadIdx.x // LANES
    number = cuda.blockIdx.x * GROUPS + group
    lane = min(cuda.threadIdx.x % LANES, SIZE - 1)
    u_at = group * 4 * PITCH  # two vectors each, for steps in turn
    x_at = u_at + 2 * PITCH
    window = chosen[min(number, count - 1)]
    begin = offset[window]
    steps = offset[window + 1] - begin if number < count else 0
    for base in range(0, longest, DEPTH):
        for d in range(DEPTH):
            t = base + d
            if t < steps:
                right[d] = u[np.int64(begin + t) * SIZE + lane]
                if t > 0:
                    load_column(columns, d * SIZE, gains, np.int64(begin + t) * SQUARE, lane)
        for d in range(DEPTH):
            t = base + d
            cuda.syncwarp()
            if t < steps:
                value = right[d]
                if t > 0:
                    value -= dot(columns, d * SIZE, memory, u_at + ((t - 1) & 1) * PITCH)
                memory[u_at + (t & 1) * PITCH + lane] = value
                u[np.int64(begin + t) * SIZE + lane] = value
    cuda.syncwarp()
    change = 0.0
    length = 0.0
    for base in range(longest - 1, -1, -DEPTH):
        for d in range(DEPTH):
            t = base - d
            if 0 <= t < steps:
                at = np.int64(begin + t)
                right[d] = u[at * SIZE + lane]
                old[d] = copies[at * SIZE + lane]
                load_column(columns, d * SIZE, inverses, at * SQUARE, lane)
                if t < steps - 1:
                    load_row(rows, d * SIZE, gains, at * SQUARE + SQUARE, lane)
        for d in range(DEPTH):
            t = base - d
            even = (t & 1) * PITCH
            if 0 <= t < steps:
                memory[u_at + even + lane] = right[d]
            cuda.syncwarp()
            if 0 <= t < steps:
                value = dot(columns, d * SIZE, memory, u_at + even)
                if t < steps - 1:
                    value -= dot(rows, d * SIZE, memory, x_at + PITCH - even)
                memory[x_at + even + lane] = value
                copies[np.int64(begin + t) * SIZE + lane] = value
                change += (value - old[d]) * (value - old[d])
                length += value * value
    change = add_lanes(memory, u_at, lane, change)
    length = add_lanes(memory, u_at, lane, length)
    if number < count:
        sums[number] = change
        sums[count + number] = length


@kernel
def correct(most, chosen, count, reach, smallest, offset, gains, inverses, traces, u, copies, sums):
    """The same for changes of the right side within ``reach`` rows of the ends: only steps that they move are visited.

    Going in from the left stops where what comes is below ``smallest``; going back, a stretch that nothing reaches is skipped.
    ``most`` is the largest reach. The second sum is by how much the squared norm of the copy grew.
    """
    memory = cuda.shared.array(ALL_VECTOR_CELLS, REAL, 16)
    columns = cuda.local.array(BUFFER, REAL)
    rows = cuda.local.array(BUFFER, REAL)
    right = cuda.local.array(DEPTH, REAL)
    old = cuda.local.array(DEPTH, REAL)  # going in: the trace of the inverse before
    group = cuda.threadIdx.x // LANES
    number = cuda.blockIdx.x * GROUPS + group
    lane = min(cuda.threadIdx.x % LANES, SIZE - 1)
    u_at = group * 4 * PITCH
    x_at = u_at + 2 * PITCH
    place = min(number, count - 1)
    window = chosen[place]
    begin = offset[window]
    steps = offset[window + 1] - begin if number < count else 0
    near = min(steps, reach[place])
    tail = steps - near
    bound = smallest[place]
    head = 0  # rows of u before it are what came from the left
    going = steps > 0
    base = 0
    while cuda.any_sync(_ALL, going):
        for d in range(DEPTH):
            t = base + d
            if going and t < steps:
                right[d] = u[np.int64(begin + t) * SIZE + lane] if t < near or t >= tail else 0.0
                if t > 0:
                    old[d] = traces[begin + t - 1]
                    load_column(columns, d * SIZE, gains, np.int64(begin + t) * SQUARE, lane)
        for d in range(DEPTH):
            t = base + d
            before = u_at + ((t - 1) & 1) * PITCH
            cuda.syncwarp()
            if going and t < steps and near <= t < tail:
                going = exceeds(memory, before, old[d], bound)
            if going and t < steps:
                value = right[d]
                if t > 0:
                    value -= dot(columns, d * SIZE, memory, before)
                memory[u_at + (t & 1) * PITCH + lane] = value
                u[np.int64(begin + t) * SIZE + lane] = value
                head = t + 1
        base += DEPTH
        going = going and base < steps
    cuda.syncwarp()
    value = 0.0
    if head <= tail and steps > 0:
        value = u[np.int64(begin + tail) * SIZE + lane]
    for k in range(1, most):
        inside = head <= tail and k < near
        before = u_at + (k & 1) * PITCH
        memory[before + lane] = value
        at = np.int64(begin + tail + k)
        if inside:
            right[0] = u[at * SIZE + lane]
            load_column(columns, 0, gains, at * SQUARE, lane)
        cuda.syncwarp()
        if inside:
            value = right[0] - dot(columns, 0, memory, before)
            u[at * SIZE + lane] = value
    cuda.syncwarp()
    change = 0.0
    growth = 0.0
    follow = False  # whether the step after this one was corrected
    previous = steps  # the step visited last
    step = steps - 1
    while cuda.any_sync(_ALL, step >= 0):
        base = step
        for d in range(DEPTH):
            t = base - d
            if t >= 0:
                at = np.int64(begin + t)
                old[d] = copies[at * SIZE + lane]
                if t < head or t >= tail:
                    right[d] = u[at * SIZE + lane]
                    load_column(columns, d * SIZE, inverses, at * SQUARE, lane)
                if t < steps - 1:
                    load_row(rows, d * SIZE, gains, at * SQUARE + SQUARE, lane)
        for d in range(DEPTH):
            t = base - d
            even = (t & 1) * PITCH
            known = t >= 0 and (t < head or t >= tail)
            if known:
                memory[u_at + even + lane] = right[d]
            cuda.syncwarp()
            if t == step and t >= 0:
                follow = previous == t + 1 and previous < steps and (
                    previous < head or previous >= tail or exceeds(memory, x_at + PITCH - even, 1.0, bound))
                if not follow and previous < steps:
                    step = min(t, head - 1)
            if t == step and t >= 0:
                value = 0.0
                if known:
                    value = dot(columns, d * SIZE, memory, u_at + even)
                if follow:
                    value -= dot(rows, d * SIZE, memory, x_at + PITCH - even)
                memory[x_at + even + lane] = value
                copies[np.int64(begin + t) * SIZE + lane] = old[d] + value
                change += value * value
                growth += value * (2.0 * old[d] + value)
                previous = t
                step = t - 1
    change = add_lanes(memory, u_at, lane, change)
    growth = add_lanes(memory, u_at, lane, growth)
    if number < count:
        sums[number] = change
        sums[count + number] = growth
