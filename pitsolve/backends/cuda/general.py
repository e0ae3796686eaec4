"""Kernels of general cells, forward: scalar functions of the user's (or of LEM), one sequence, window or time step a thread.

The parameters travel as one flat array ``theta``; ``bundle(theta)`` is the named tuple of views that the functions receive.
States and inputs of a step are arrays of the thread whose sizes are compile-time constants: where the loops of a cell over
them are short, the compiler unrolls these and keeps the numbers in registers; otherwise they lie in local memory (stack).
"""

from pitsolve.backends.cuda.launch import cuda
from pitsolve.cells.memory import scratch
from pitsolve.compile import constant, inline, kernel

ORDER = constant("ORDER")  # what `linearise` writes: VALUE, DIAGONAL or BLOCKS
SOURCE = constant("SOURCE")  # whether a source g is added after each step
LAST = constant("LAST")  # whether `sweep` writes the last state of a window among the others too
GIVEN = constant("GIVEN")  # whether the cell states the derivative at hand
STATE = constant("STATE")
INPUT = constant("INPUT")
KEPT = constant("KEPT")  # the number of parameters that a thread copies to itself; 0 if they are too many
bundle = constant("bundle")
step = constant("step")
derivative = constant("derivative")

VALUE, DIAGONAL, BLOCKS = 0, 1, 2


# Loops over sizes that are not constants would be made into calls that keep arrays out of registers.
@inline
def copy_state(values, out):
    """``out`` <- ``values``."""
    for i in range(STATE):
        out[i] = values[i]


@inline
def copy_inputs(values, out):
    """``out`` <- ``values``."""
    for j in range(INPUT):
        out[j] = values[j]


@kernel
def sweep(theta, x, source, starts, states, ends, row, first, last):
    """h = f(h, x_t) + g_t through every window, from ``starts`` to ``ends``; the states between go into ``states``.

    A thread is a window (a whole sequence, for the loop over time). The state, the parameters if they are few, and the inputs
    of this step and of the next, on their way from memory while this one is computed, belong to the thread.
    """
    w = cuda.grid(1)
    if w < row.size:
        b, begin, end = row[w], first[w], last[w]
        rows, inputs = scratch(2, STATE, starts[w, 0]), scratch(2, INPUT, starts[w, 0])
        h, new, here, ahead = rows[0], rows[1], inputs[0], inputs[1]
        p = bundle(theta)
        if KEPT:
            own = scratch(1, KEPT, theta[0])[0]
            for k in range(KEPT):
                own[k] = theta[k]
            p = bundle(own)
        copy_state(starts[w], h)
        if begin < end:
            copy_inputs(x[b, begin], here)
        for t in range(begin, end):
            copy_inputs(x[b, min(t + 1, end - 1)], ahead)
            step(p, here, h, new)
            for i in range(STATE):
                h[i] = new[i] + source[b, t, i] if SOURCE else new[i]
            if LAST or t < end - 1:
                copy_state(h, states[b, t])
            copy_inputs(ahead, here)
        copy_state(h, ends[w])


@kernel
def merge(theta, x, tolerance, starts, states, ends, row, first, last, steps, differences):
    """Every window again, until a new state agrees with the stored one; the mapping is that of :func:`sweep`."""
    w = cuda.grid(1)
    if w < row.size:
        b, begin, end = row[w], first[w], last[w]
        rows, here = scratch(2, STATE, starts[w, 0]), scratch(1, INPUT, starts[w, 0])[0]
        h, new = rows[0], rows[1]
        p = bundle(theta)
        if KEPT:
            own = scratch(1, KEPT, theta[0])[0]
            for k in range(KEPT):
                own[k] = theta[k]
            p = bundle(own)
        copy_state(starts[w], h)
        done, largest, agreed = end - begin, 0.0, False
        for t in range(begin, end):
            copy_inputs(x[b, t], here)
            step(p, here, h, new)
            difference = 0.0
            for i in range(STATE):
                stored = states[b, t, i]
                change = abs(new[i] - stored) / max(1.0, abs(stored))
                if difference == difference and not change <= difference:
                    difference = change
            if difference <= tolerance:
                done, largest, agreed = t + 1 - begin, difference, True
                break
            copy_state(new, h)
            if t < end - 1:
                copy_state(h, states[b, t])
        if agreed:
            copy_state(states[b, end - 1], ends[w])
        elif begin < end:
            copy_state(h, ends[w])
        steps[w] = done
        differences[w] = largest


@kernel
def linearise(theta, x, states, previous, defect, jacobian, begin, start, stop):
    """``defect`` = f(h_{t-1}, x_t) - h_t and, by ``ORDER``, the diagonal or the whole of df/dh if the cell states it.

    A thread is a step of time (blocks along x) of every sequence (blocks along y, in turns).
    """
    at = cuda.grid(1)
    if at < defect.shape[1]:
        rows, here = scratch(2, STATE, states[0, 0, 0]), scratch(1, INPUT, states[0, 0, 0])[0]
        h, new = rows[0], rows[1]
        p = bundle(theta)
        t = begin + at
        for b in range(cuda.blockIdx.y, defect.shape[0], cuda.gridDim.y):
            if start[b] <= t and t < stop[b]:
                copy_inputs(x[b, t], here)
                copy_state(previous[b] if at == 0 else states[b, t - 1], h)
                step(p, here, h, new)
                if GIVEN:
                    if ORDER == DIAGONAL:
                        derivative(p, here, h, new, jacobian[b, at])
                    else:
                        derivative(p, here, h, new, jacobian[b, at, 0])
                for i in range(STATE):
                    defect[b, at, i] = new[i] - states[b, t, i]
            else:
                for i in range(STATE):
                    defect[b, at, i] = 0.0
