"""The loop of a gated cell through many windows of time at once, all weights in registers.

A sequence is a window too. Thread (unit, slice) of a window keeps its part of the rows of W_hh, one a gate, in registers for
the whole launch. A step is: read the state from shared memory as broadcasts, multiply, add up over the slices by shuffles,
evaluate the gates in the threads of the unit, write the new state to the other of two buffers, and one barrier, which is one
of a warp where a window takes a warp or less. Windows smaller than a warp share one.

The products with the inputs do not wait for anything, so they are done for ``AHEAD`` steps at once: the numbers of x come
into registers while the steps before are running, then into shared memory, and each slice multiplies some of the steps.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load, load4, store
from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
BITS = constant("BITS")
GATES = constant("GATES")
PARTS = constant("PARTS")
SUMMED = constant("SUMMED")  # of the first gates only p + u is needed: b_ih contains b_hh
UNITS = constant("UNITS")
COLUMNS = constant("COLUMNS")  # units of a head
INPUTS = constant("INPUTS")
SLICES = constant("SLICES")
LEVELS = constant("LEVELS")  # log2(SLICES)
VECTOR = constant("VECTOR")  # numbers of one load from the state
VECTORS = constant("VECTORS")  # loads of a thread
ROOM = constant("ROOM")  # numbers of a head in shared memory
LANES = constant("LANES")  # units of a window, the idle ones included
GROUP = constant("GROUP")  # threads of a window
WINDOWS = constant("WINDOWS")  # windows of a block
WARPS = constant("WARPS")
WEIGHTS = constant("WEIGHTS")
AHEAD = constant("AHEAD")
STAGED = constant("STAGED")  # numbers of x in AHEAD steps, and how many of them a thread holds
HELD = constant("HELD")
ROUNDS = constant("ROUNDS")  # steps whose input products a slice does
BUFFER = constant("BUFFER")
BUFFERS = constant("BUFFERS")
INPUT_ROOM = constant("INPUT_ROOM")
DRIVE = constant("DRIVE")
DRIVES = constant("DRIVES")
WHOLE = constant("WHOLE")  # whether the last state of a window goes to `states` too
SOURCE = constant("SOURCE")  # whether there is one
MERGE = constant("MERGE")  # whether a window stops where it meets the stored states
gates = constant("gates")

ALL = 0xffffffff


@inline
def barrier():
    """All threads of the block have come here."""
    if WARPS == 1:
        cuda.syncwarp()
    else:
        cuda.syncthreads()


@inline
def agreed(agrees, group):
    """Whether ``agrees`` holds for all threads of the window; a barrier."""
    if WARPS > 1:
        return cuda.syncthreads_and(1 if agrees else 0) != 0
    cuda.syncwarp()  # threads meet in a vote, but it orders no memory
    if WINDOWS == 1:
        return cuda.all_sync(ALL, agrees) != 0
    disagreeing = cuda.ballot_sync(ALL, not agrees)
    return (disagreeing >> (group * GROUP)) & ((1 << GROUP) - 1) == 0


@inline
def finished(done):
    """Whether every window of the block is; the threads of one window say the same."""
    if WINDOWS > 1:
        return cuda.all_sync(ALL, done) != 0
    return done


@inline
def longest_of(count):
    """The most steps of a window in this block."""
    if WINDOWS > 1:
        for level in range(5):
            count = max(count, cuda.shfl_xor_sync(ALL, count, 1 << level))
    return count


@inline
def hold(x, base, begin, count, member, held):
    """The inputs of the steps from ``begin`` on into registers, zeros beyond the window."""
    available = np.int32(min(count - begin, AHEAD) * INPUTS)
    at = (base + begin) * INPUTS + member
    for q in range(HELD):
        held[q] = load(x, at + q * GROUP) if member + q * GROUP < available else 0.0


@inline
def multiply_inputs(staged, group, unit, part, weight, bias, drive):
    """W_ih x_t + b_ih of the staged steps for one unit, a slice every SLICES-th step."""
    sums = cuda.local.array((ROUNDS, GATES), REAL)
    for r in range(ROUNDS):
        for k in range(GATES):
            sums[r, k] = load(bias, k * LANES + unit)
    for j in range(INPUTS):
        for k in range(GATES):
            factor = load(weight, (j * GATES + k) * LANES + unit)
            for r in range(ROUNDS):
                step = r * SLICES + part
                if SLICES > AHEAD:
                    step = min(step, AHEAD - 1)
                sums[r, k] += factor * load(staged, group * STAGED + step * INPUTS + j)
    for r in range(ROUNDS):
        step = r * SLICES + part
        if step < AHEAD:
            for k in range(GATES):
                store(drive, group * DRIVE + (step * GATES + k) * LANES + unit, sums[r, k])


@inline
def multiply_state(hidden, at, weights, sums):
    """Add this slice of W_hh h to the sums of the gates."""
    for v in range(VECTORS):
        if VECTOR == 4:
            first, second, third, fourth = load4(hidden, at + v * 4 * SLICES)
            for k in range(GATES):
                sums[k] += weights[(k * VECTORS + v) * 4] * first
                sums[k] += weights[(k * VECTORS + v) * 4 + 1] * second
                sums[k] += weights[(k * VECTORS + v) * 4 + 2] * third
                sums[k] += weights[(k * VECTORS + v) * 4 + 3] * fourth
        else:
            value = load(hidden, at + v * SLICES)
            for k in range(GATES):
                sums[k] += weights[k * VECTORS + v] * value
    for level in range(LEVELS):
        for k in range(GATES):
            sums[k] += cuda.shfl_xor_sync(ALL, sums[k], 1 << level)


@inline
def fetch(array, at, active, values):
    """The numbers of one unit, a part each; zero if the unit or the step does not exist."""
    for a in range(PARTS):
        values[a] = 0.0
        if active:
            values[a] = load(array, at + a * UNITS)


@kernel
def advance(x, input_weight, input_bias, hidden_weight, hidden_bias, ratio, states, source, starts, ends, windows, count,
            steps, tolerance, done, differences):
    """h_t = f(h_{t-1}, x_t) + g_t through every window [first, last) of sequence row, from its row of ``starts``.

    ``windows`` holds row, first and last of all windows. States go to ``states`` (B, steps, S), the last of each window to
    ``ends`` (W, S). With MERGE, a window stops at the first step where every part of its new state agrees with the stored one
    within ``tolerance``; that state is kept. ``done`` receives the steps of each window, ``differences`` the bits of the
    largest difference where it stopped.
    """
    hidden = cuda.shared.array(BUFFERS, REAL, 16)
    staged = cuda.shared.array(INPUT_ROOM, REAL)
    drive = cuda.shared.array(DRIVES, REAL)
    weights = cuda.local.array(WEIGHTS, REAL)
    offsets = cuda.local.array(GATES, REAL)
    held = cuda.local.array(HELD, REAL)
    state = cuda.local.array(PARTS, REAL)
    stored = cuda.local.array(PARTS, REAL)
    added = cuda.local.array(PARTS, REAL)
    p = cuda.local.array(GATES, REAL)
    u = cuda.local.array(GATES, REAL)

    thread = cuda.threadIdx.x
    # Unsigned numbers of 32 bits: a signed one is kept in a second form of 64 bits, for addresses.
    group = np.uint32(thread // GROUP if WINDOWS > 1 else 0)
    member = np.uint32(thread - group * GROUP)
    unit, part = np.uint32(member // SLICES), np.uint32(member % SLICES)
    real, writes = unit < UNITS, unit < UNITS and part == 0
    home = group * (UNITS // COLUMNS) * ROOM
    own = np.uint32(home + unit // COLUMNS * ROOM + unit % COLUMNS)  # where this unit stands in a buffer, and what it reads
    seen = np.uint32(home + min(unit, UNITS - 1) // COLUMNS * ROOM + part * VECTOR)
    for j in range(WEIGHTS):
        weights[j] = load(hidden_weight, j * GROUP + member)
    for k in range(GATES):
        offsets[k] = load(hidden_bias, k * GROUP + member) if k >= SUMMED else 0.0
    for at in range(thread, BUFFERS, WARPS * 32):
        hidden[at] = 0.0
    barrier()

    leading = np.int32(cuda.blockIdx.x * WINDOWS)
    while leading < count:
        w = np.int32(leading + group)
        base, length = np.int64(0), np.int32(0)
        if w < count:
            first = load(windows, count + w)
            base = np.int64(load(windows, w)) * steps + first
            length = np.int32(load(windows, 2 * count + w) - first)
        fetch(starts, w * UNITS * PARTS + unit, real and w < count, state)
        hold(x, base, 0, length, member, held)
        if SOURCE:
            fetch(source, base * UNITS * PARTS + unit, real and length > 0, added)
        if MERGE:
            fetch(states, base * UNITS * PARTS + unit, real and length > 0, stored)
        if writes:
            store(hidden, own, state[0])
        barrier()
        longest = longest_of(length)
        t, merged, difference = np.int32(0), False, REAL(0)
        while t < longest:
            if t & (AHEAD - 1) == 0:
                for q in range(HELD):
                    if member + q * GROUP < STAGED:
                        store(staged, group * STAGED + member + q * GROUP, held[q])
                barrier()
                hold(x, base, t + AHEAD, length, member, held)
                multiply_inputs(staged, group, unit, part, input_weight, input_bias, drive)
                if SLICES > 1:
                    cuda.syncwarp()
            for k in range(GATES):
                u[k] = offsets[k]
            multiply_state(hidden, (t & 1) * BUFFER + seen, weights, u)
            for k in range(GATES):
                p[k] = load(drive, group * DRIVE + ((t & (AHEAD - 1)) * GATES + k) * LANES + unit)
            new = gates(p, u, state, ratio)[0]
            live = t < length and not merged
            agrees = True
            for a in range(PARTS):
                value = new[a]
                if SOURCE:
                    value += added[a]
                if live:
                    state[a] = value
                if MERGE and live and real:
                    change = abs(value - stored[a]) / max(1.0, abs(stored[a]))
                    agrees = agrees and change <= tolerance
                    difference = change if a == 0 else max(difference, change)
            if writes:
                store(hidden, (t + 1 & 1) * BUFFER + own, state[0])
            if MERGE:
                merged = (agreed(agrees, group) and live) or merged
            else:
                barrier()
            at = (base + t) * (UNITS * PARTS) + unit
            if live and not merged and writes and (WHOLE or t < length - 1):
                for a in range(PARTS):
                    store(states, at + a * UNITS, state[a])
            t = np.int32(t + 1)
            if SOURCE:
                fetch(source, at + UNITS * PARTS, real and t < length, added)
            if MERGE:
                fetch(states, at + UNITS * PARTS, real and t < length, stored)
                if live and member == 0 and (merged or t == length):
                    done[w] = t
                if finished(merged or t >= length):
                    longest = t
        if w < count and not merged and writes:
            for a in range(PARTS):
                store(ends, (w * PARTS + a) * UNITS + unit, state[a])
        if MERGE and merged and writes:
            cuda.atomic.max(differences, w, difference.view(BITS))
        leading = np.int32(leading + cuda.gridDim.x * WINDOWS)
