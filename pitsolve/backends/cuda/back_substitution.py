"""The adjoint recurrence, backward through many windows of time at once: a slab of every sequence, or windows of a sweep.

    lambda_t = c + g_t,    c <- J_t^T lambda_t = W_hh^T (du_t lambda_t) + ds_t lambda_t + a_t

with du, ds the derivatives of the gates at step t, which are evaluated again from the pre-activations, g the source ``before``
and a the source ``after``.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load4
from pitsolve.backends.cuda.launch import cuda
from pitsolve.backends.cuda.preactivations import GATES, PARTS, REAL, ROWS, gates, pulled, read_gates, state_before
from pitsolve.compile import constant, inline, kernel

BEFORE = constant("BEFORE")  # whether there is a source g, and a source a
AFTER = constant("AFTER")
KEEP = constant("KEEP")  # what ``out`` receives: LAMBDA, CHANGE (lambda is added to it) or CARRY
STOPPING = constant("STOPPING")  # whether the windows of a block end where c of all of them has fallen below a tolerance
SIZE = constant("SIZE")  # units of the cell, n
COLUMNS = constant("COLUMNS")  # units of a head
SLICES = constant("SLICES")  # threads of a unit
SEATS = constant("SEATS")  # windows of a block
WARP_ONLY = constant("WARP_ONLY")  # whether the block is one warp
SHARE = constant("SHARE")  # weights of a thread and gate
RUN = constant("RUN")  # consecutive ones among them: four, or one
PADDED = constant("PADDED")  # SHARE SLICES, numbers of a head and gate in shared memory
WIDTH = constant("WIDTH")  # those of all heads
OWN = constant("OWN")  # GATES SHARE: weights of a thread
BOARD = constant("BOARD")  # 2 SEATS GATES WIDTH
INCOMING = constant("INCOMING")  # ROWS + PARTS, and PARTS more for each source

LAMBDA, CHANGE, CARRY = 0, 1, 2
PATIENCE = 16  # steps between two looks at the size of c
FULL = 0xffffffff


@inline
def fetch(rows, states, previous, before, after, b, t, i, row_origin, origin, begin, length, steps, here, incoming):
    """What a thread needs from memory for step t: pre-activations of its unit, the state before, and the sources."""
    if here:
        at = (np.int64(b - row_origin) * length + t - begin - origin) * (ROWS * SIZE) + i
        for r in range(ROWS):
            incoming[r] = rows[at + r * SIZE]
        flat = (np.int64(b) * steps + t) * (PARTS * SIZE) + i
        for a in range(PARTS):
            incoming[ROWS + a] = state_before(states, previous, b, t, begin, steps, PARTS * SIZE, a * SIZE + i)
            if BEFORE:
                incoming[ROWS + PARTS + a] = before[flat + a * SIZE]
            if AFTER:
                incoming[INCOMING - PARTS + a] = after[flat + a * SIZE]


@inline
def without_weights(ds, total, incoming, a):
    """Part ``a`` of ds lambda + a_t: all of c but the product with W_hh^T."""
    own = REAL(0)
    for d in range(PARTS):
        own += ds[d * PARTS + a] * total[d]
    if AFTER:
        own += incoming[INCOMING - PARTS + a]
    return own


@inline
def transpose_product(weights, board, at):
    """The share of this thread in (W_hh^T v)[i]."""
    total = REAL(0)
    for k in range(GATES):
        for j in range(0, SHARE, RUN):
            if RUN == 4:
                v = load4(board, at + k * WIDTH + j * SLICES)
                total += weights[k * SHARE + j] * v[0]
                total += weights[k * SHARE + j + 1] * v[1]
                total += weights[k * SHARE + j + 2] * v[2]
                total += weights[k * SHARE + j + 3] * v[3]
            else:
                total += weights[k * SHARE + j] * board[at + k * WIDTH + j * SLICES]
    return total


@kernel
def pull(rows, states, previous, weight, ratio, before, after, row_origin, origin, begin, length, steps, row, first, last,
         number, windows, starts, out, ends, tolerance):
    """From ``starts``, c after every window, to ``ends``, c before its first step; ``number`` says which rows of them.

    A window has a seat in a block of SEATS; a thread is one unit of a window and one of its SLICES, with its share of a row of
    every W_hh^T in registers for all windows that the block takes in turn. All slices of a unit evaluate its gates, the
    first one puts v = du lambda on a board in shared memory; after one barrier each multiplies its share, and shuffles
    add the shares. The board has two sides, used in turn, so that one barrier a step is enough. The numbers of the next
    step are on their way from memory during the product.
    """
    board = cuda.shared.array(BOARD, REAL, 16)
    weights = cuda.local.array(OWN, REAL)
    c = cuda.local.array(PARTS, REAL)
    total = cuda.local.array(PARTS, REAL)
    incoming = cuda.local.array(INCOMING, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)
    s = cuda.local.array(PARTS, REAL)
    thread = cuda.threadIdx.x
    part = thread % SLICES
    i = thread // SLICES % SIZE
    seated = thread < SEATS * SIZE * SLICES
    seat = min(thread // SLICES // SIZE, SEATS - 1)
    head = i // COLUMNS * PADDED
    for k in range(INCOMING):
        incoming[k] = REAL(0)
    for k in range(OWN):
        weights[k] = weight[k * (SIZE * SLICES) + i * SLICES + part]
    for e in range(thread, BOARD, cuda.blockDim.x):
        board[e] = REAL(0)
    turn = 0
    for group in range(cuda.blockIdx.x, (windows + SEATS - 1) // SEATS, cuda.gridDim.x):
        longest = 0
        for q in range(group * SEATS, min(group * SEATS + SEATS, windows)):
            longest = max(longest, last[q] - first[q])
        w = min(group * SEATS + seat, windows - 1)
        b, stop = row[w], first[w]
        t = last[w] - 1
        at_ends = np.int64(number[w]) * (PARTS * SIZE) + i
        here = seated and group * SEATS + seat < windows
        for a in range(PARTS):
            c[a] = starts[at_ends + a * SIZE]
        fetch(rows, states, previous, before, after, b, t, i, row_origin, origin, begin, length, steps, here and t >= stop,
              incoming)
        cuda.syncthreads()
        for step in range(longest):
            active = here and t >= stop
            side = (turn * SEATS + seat) * (GATES * WIDTH) + head
            turn = 1 - turn
            read_gates(incoming, 0, 1, p, u)
            for a in range(PARTS):
                s[a] = incoming[ROWS + a]
                total[a] = c[a]
                if BEFORE:
                    total[a] += incoming[ROWS + PARTS + a]
            _, _, du, ds = gates(p, u, s, ratio)
            for k in range(GATES):
                v = pulled(du, total, k)
                if active and part == 0:
                    board[side + k * WIDTH + i % COLUMNS] = v
            for a in range(PARTS):
                own = without_weights(ds, total, incoming, a)
                c[a] = own if active else c[a]
            at = (np.int64(b) * length + t - begin) * (PARTS * SIZE) + i
            if active and part == 0:
                for a in range(PARTS):
                    if KEEP == LAMBDA:
                        out[at + a * SIZE] = total[a]
                    if KEEP == CHANGE:
                        out[at + a * SIZE] += total[a]
            fetch(rows, states, previous, before, after, b, t - 1, i, row_origin, origin, begin, length, steps,
                  here and t > stop, incoming)
            if WARP_ONLY:
                cuda.syncwarp()
            else:
                cuda.syncthreads()
            share = transpose_product(weights, board, side + part * RUN)
            distance = SLICES // 2
            while distance > 0:
                share += cuda.shfl_xor_sync(FULL, share, distance)
                distance //= 2
            if active:
                c[0] += share
                if KEEP == CARRY and part == 0 and t > stop:
                    for a in range(PARTS):
                        out[at + a * SIZE] = c[a]
            t -= 1
            if STOPPING and step % PATIENCE == PATIENCE - 1:
                unfinished = here and t >= stop
                small = True
                for a in range(PARTS):
                    small = small and abs(c[a]) <= tolerance
                if not cuda.syncthreads_or(np.int32(1 if unfinished and not small else 0)):
                    for a in range(PARTS):
                        c[a] = REAL(0) if unfinished else c[a]
                    break
        if here and part == 0:
            for a in range(PARTS):
                ends[at_ends + a * SIZE] = c[a]
