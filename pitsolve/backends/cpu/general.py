"""Kernels of general cells: scalar functions of the user's (or of LEM), run row by row, parallel over chunks of time.

The parameters travel as one flat array ``theta``; ``bundle(theta)`` is the named tuple of views that the functions receive.
What a cell does not state about its derivatives is computed by complex steps, df/du = Im f(u + i e) / e with e = 1e-200: no
subtraction, so the result is exact to rounding.
"""

import numpy as np
from numba import prange

from pitsolve.compile import constant, inline, kernel

ORDER = constant("ORDER")  # what `linearise` writes: VALUE, DIAGONAL or BLOCKS
SOURCE = constant("SOURCE")  # whether `propagate` adds a source g
GIVEN = constant("GIVEN")  # whether the cell states the derivative at hand, or complex steps compute it
bundle = constant("bundle")
step = constant("step")
derivative = constant("derivative")

VALUE, DIAGONAL, BLOCKS = 0, 1, 2
CHUNK = 64  # time steps of one parallel task; fixed, so that no result depends on the number of threads
TINY = 1e-200


@kernel(parallel=True)
def propagate(theta, x, source, state, states, begin, end, start, stop):
    """h_t = f(h_{t-1}, x_t) + g_t for begin <= t < end, every row of the batch on its own; ``state`` carries the last one."""
    for number in prange(states.shape[0]):
        b = np.int64(number)
        propagate_row(theta, x, source, state[b], states, begin, end, start, stop, b)


@kernel
def propagate_row(theta, x, source, state, states, begin, end, start, stop, b):
    p = bundle(theta)
    for t in range(max(begin, start[b]), min(end, stop[b])):
        step(p, x[b, t], state, states[b, t])
        for i in range(state.size):
            if SOURCE:
                states[b, t, i] += source[b, t, i]
            state[i] = states[b, t, i]


@kernel(parallel=True)
def linearise(theta, complex_theta, x, states, previous, complex_rows, defect, jacobian, begin, start, stop):
    """``defect`` = f(h_{t-1}, x_t) - h_t and, by ``ORDER``, the diagonal or the whole of df/dh at every t of one slab."""
    chunks = (defect.shape[1] + CHUNK - 1) // CHUNK
    for number in prange(states.shape[0] * chunks):
        task = np.int64(number)
        linearise_chunk(theta, complex_theta, x, states, previous, complex_rows[task], defect, jacobian, begin, start, stop,
                        task // chunks, task % chunks)


@kernel
def linearise_chunk(theta, complex_theta, x, states, previous, complex_rows, defect, jacobian, begin, start, stop, b, chunk):
    length, n = defect.shape[1:]
    p = bundle(theta)
    for t in range(max(begin + chunk * CHUNK, start[b]), min(begin + min(length, (chunk + 1) * CHUNK), stop[b])):
        h = previous[b] if t == begin else states[b, t - 1]
        new = defect[b, t - begin]
        step(p, x[b, t], h, new)
        if ORDER != VALUE:
            if GIVEN:
                stated_derivative(p, x[b, t], h, new, jacobian[b, t - begin])
            else:
                stepped_derivative(complex_theta, x[b, t], h, complex_rows, jacobian[b, t - begin])
        for i in range(n):
            new[i] -= states[b, t, i]


@inline
def stated_derivative(p, x, h, new, out):
    if ORDER == DIAGONAL:
        derivative(p, x, h, new, out)
    else:
        derivative(p, x, h, new, out[0])


@inline
def stepped_derivative(complex_theta, x, h, rows, out):
    n = h.size
    m = x.size
    for j in range(m):
        rows[j] = x[j]
    state, new = rows[m:m + n], rows[m + n:m + 2 * n]
    for i in range(n):
        state[i] = h[i]
    p = bundle(complex_theta)
    for j in range(n):
        state[j] = complex(h[j], TINY)
        step(p, rows[:m], state, new)
        state[j] = h[j]
        if ORDER == DIAGONAL:
            out[j] = new[j].imag / TINY
        else:
            for i in range(n):
                out[0, i, j] = new[i].imag / TINY


@kernel(parallel=True)
def accumulate(theta, complex_theta, x, states, previous, adjoint, complex_rows, real_rows, dtheta, dx, begin, start, stop):
    """Add (df/dtheta)^T lambda_t of one slab to each task's row of ``dtheta``; write dL/dx_t = (df/dx)^T lambda_t.

    The number of tasks is fixed and each adds its share in order, so the totals do not depend on threads.
    """
    tasks = dtheta.shape[0]
    rows, length = adjoint.shape[:2]
    chunks = (length + CHUNK - 1) // CHUNK
    for number in prange(tasks):
        task = np.int64(number)
        for unit in range(task * rows * chunks // tasks, (task + 1) * rows * chunks // tasks):
            accumulate_chunk(theta, complex_theta[task], x, states, previous, adjoint, complex_rows[task], real_rows[task],
                             dtheta[task], dx, begin, start, stop, unit // chunks, unit % chunks)


@kernel
def accumulate_chunk(theta, complex_theta, x, states, previous, adjoint, complex_rows, real_rows, dtheta, dx, begin, start,
                     stop, b, chunk):
    length = adjoint.shape[1]
    for t in range(max(begin + chunk * CHUNK, start[b]), min(begin + min(length, (chunk + 1) * CHUNK), stop[b])):
        h = previous[b] if t == begin else states[b, t - 1]
        if GIVEN:
            derivative(bundle(theta), x[b, t], h, states[b, t], adjoint[b, t - begin], bundle(dtheta), dx[b, t], real_rows)
        else:
            stepped_pullback(complex_theta, x[b, t], h, adjoint[b, t - begin], complex_rows, dtheta, dx[b, t])


@inline
def stepped_pullback(theta, x, h, v, rows, dtheta, dx):
    n = h.size
    m = x.size
    inputs, state, new = rows[:m], rows[m:m + n], rows[m + n:m + 2 * n]
    for j in range(m):
        inputs[j] = x[j]
    for i in range(n):
        state[i] = h[i]
    p = bundle(theta)
    for j in range(theta.size):
        value = theta[j].real
        theta[j] = complex(value, TINY)
        step(p, inputs, state, new)
        theta[j] = value
        total = 0.0
        for i in range(n):
            total += v[i] * (new[i].imag / TINY)
        dtheta[j] += total
    for j in range(m):
        inputs[j] = complex(x[j], TINY)
        step(p, inputs, state, new)
        inputs[j] = x[j]
        total = 0.0
        for i in range(n):
            total += v[i] * (new[i].imag / TINY)
        dx[j] = total
