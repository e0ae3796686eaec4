"""The loop of a gated cell through many windows of time, for weights too large for the registers of a multiprocessor.

A block advances ``WINDOWS`` windows in lockstep; a thread computes every ``THREADS``-th unit of all of them. The weights come
from the second-level cache in every step, neighbouring threads reading neighbouring numbers, and each is used for all windows
of the block. The states are in shared memory: h twice, since all threads read it while it changes, other parts once.
"""

import numpy as np

from pitsolve.backends.cuda.intrinsics import load, store
from pitsolve.backends.cuda.launch import WARP, cuda
from pitsolve.cells.base import GatedCell
from pitsolve.compile import constant, inline, kernel

REAL = constant("REAL")
BITS = constant("BITS")
GATES = constant("GATES")
PARTS = constant("PARTS")
UNITS = constant("UNITS")
COLUMNS = constant("COLUMNS")  # units of a head
INPUTS = constant("INPUTS")
THREADS = constant("THREADS")
WINDOWS = constant("WINDOWS")  # windows of a block
PART = constant("PART")  # WINDOWS * UNITS: the numbers of one part of the states
MEMORY = constant("MEMORY")  # (PARTS + 1) * PART
WHOLE = constant("WHOLE")
SOURCE = constant("SOURCE")
MERGE = constant("MERGE")
gates = constant("gates")

_THREADS = 512  # the most in a block
_WINDOWS = 4  # the most of a block, if there are many
_SHARED_BYTES = 48 << 10


def layout(cell: GatedCell, columns: int, itemsize: int, many: bool) -> dict[str, int]:
    """The constants of the kernel: threads of a block and windows that share it."""
    units = cell.hidden_size
    windows = _WINDOWS if many else 1
    while windows > 1 and (cell.PARTS + 1) * windows * units * itemsize > _SHARED_BYTES:
        windows //= 2
    return {"UNITS": units, "COLUMNS": columns, "INPUTS": cell.input_size, "WINDOWS": windows, "PART": windows * units,
            "MEMORY": (cell.PARTS + 1) * windows * units, "THREADS": min(_THREADS, -(-units // WARP) * WARP)}


@inline
def place(buffer, part, i):
    """Where the states of unit i stand in shared memory, window by window: the two buffers of h, then the other parts."""
    return (buffer if part == 0 else part + 1) * PART + i * WINDOWS


@inline
def products(x, at, input_weight, input_bias, hidden_weight, hidden_bias, memory, buffer, i, p, u):
    """p = W_ih x + b_ih and u = W_hh h + b_hh of unit i in all windows."""
    for k in range(GATES):
        for v in range(WINDOWS):
            p[k, v] = load(input_bias, k * UNITS + i)
            u[k, v] = load(hidden_bias, k * UNITS + i)
    for j in range(INPUTS):
        for k in range(GATES):
            factor = load(input_weight, (j * GATES + k) * UNITS + i)
            for v in range(WINDOWS):
                p[k, v] += factor * load(x, at[v] * INPUTS + j)
    own = place(buffer, 0, i // COLUMNS * COLUMNS)
    for j in range(COLUMNS):
        for k in range(GATES):
            factor = load(hidden_weight, (j * GATES + k) * UNITS + i)
            for v in range(WINDOWS):
                u[k, v] += factor * load(memory, own + j * WINDOWS + v)


@kernel
def stream(x, input_weight, input_bias, hidden_weight, hidden_bias, ratio, states, source, starts, ends, windows, count,
           steps, tolerance, done, differences):
    """As :func:`windows.advance`; with MERGE, a block stops at the first step where all its windows agree or have ended."""
    memory = cuda.shared.array(MEMORY, REAL)
    p = cuda.local.array((GATES, WINDOWS), REAL)
    u = cuda.local.array((GATES, WINDOWS), REAL)
    p_unit = cuda.local.array(GATES, REAL)
    u_unit = cuda.local.array(GATES, REAL)
    s = cuda.local.array(PARTS, REAL)
    at = cuda.local.array(WINDOWS, np.int64)
    length = cuda.local.array(WINDOWS, np.int32)
    difference = cuda.local.array(WINDOWS, REAL)
    thread = cuda.threadIdx.x
    leading = cuda.blockIdx.x * WINDOWS
    longest = 0
    for v in range(WINDOWS):
        w = leading + v
        at[v], length[v] = 0, 0
        if w < count:
            at[v] = windows[w] * steps + windows[count + w]
            length[v] = windows[2 * count + w] - windows[count + w]
        longest = max(longest, length[v])
        for i in range(thread, UNITS, THREADS):
            for a in range(PARTS):
                memory[place(0, a, i) + v] = starts[(w * PARTS + a) * UNITS + i] if w < count else 0.0
    cuda.syncthreads()
    t, merged = 0, False
    while t < longest:
        agrees = True
        for v in range(WINDOWS):
            difference[v] = 0.0
        for i in range(thread, UNITS, THREADS):
            products(x, at, input_weight, input_bias, hidden_weight, hidden_bias, memory, t & 1, i, p, u)
            for v in range(WINDOWS):
                for k in range(GATES):
                    p_unit[k], u_unit[k] = p[k, v], u[k, v]
                for a in range(PARTS):
                    s[a] = load(memory, place(t & 1, a, i) + v)
                new = gates(p_unit, u_unit, s, ratio)[0]
                for a in range(PARTS):
                    value = s[a]
                    if t < length[v]:
                        value = new[a]
                        here = (at[v] * PARTS + a) * UNITS + i
                        if SOURCE:
                            value += load(source, here)
                        if MERGE:
                            stored = load(states, here)
                            change = abs(value - stored) / max(1.0, abs(stored))
                            agrees = agrees and change <= tolerance
                            difference[v] = max(difference[v], change)
                    store(memory, place(t + 1 & 1, a, i) + v, value)
        if MERGE:
            merged = cuda.syncthreads_and(1 if agrees else 0) != 0
        else:
            cuda.syncthreads()
        t += 1
        for v in range(WINDOWS):
            if t <= length[v] and not merged:
                if WHOLE or t < length[v]:
                    for i in range(thread, UNITS, THREADS):
                        for a in range(PARTS):
                            store(states, (at[v] * PARTS + a) * UNITS + i, load(memory, place(t & 1, a, i) + v))
                if t < length[v]:
                    at[v] += 1
        if merged:
            longest = t
    for v in range(WINDOWS):
        w = leading + v
        if w < count:
            if not merged or t > length[v]:
                for i in range(thread, UNITS, THREADS):
                    for a in range(PARTS):
                        store(ends, (w * PARTS + a) * UNITS + i, load(memory, place(t & 1, a, i) + v))
            if MERGE:
                if thread == 0:
                    done[w] = min(t, length[v])
                if merged:
                    cuda.atomic.max(differences, w, difference[v].view(BITS))
