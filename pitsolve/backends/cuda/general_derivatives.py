"""Kernels of general cells, derivatives: complex steps, df/du = Im f(u + i e) / e with e = 1e-200, and stated pullbacks.

Complex steps compute in float64 whatever the dtype of the states: e = 1e-200 and the literals of a cell must not be narrowed,
so these kernels are specialised for float64. Every perturbed number is a thread of its own.
"""

import numba

from pitsolve.backends.cuda.general import copy_inputs, copy_state
from pitsolve.backends.cuda.launch import cuda
from pitsolve.cells.memory import scratch
from pitsolve.compile import constant, inline, kernel

ORDER = constant("ORDER")
STATE = constant("STATE")
INPUT = constant("INPUT")
THREADS = constant("THREADS")
bundle = constant("bundle")
step = constant("step")
derivative = constant("derivative")

DIAGONAL = 1
TINY = 1e-200
DOUBLE = numba.float64


# Where a number is perturbed, the index of the loop chooses it: an array with a variable index would not be in registers.
@inline
def perturb_state(values, j, h):
    """``h`` <- ``values`` + i e in entry j."""
    for i in range(STATE):
        h[i] = complex(values[i], TINY if i == j else 0.0)


@inline
def perturb_inputs(values, j, inputs):
    """``inputs`` <- ``values`` + i e in entry j."""
    for i in range(INPUT):
        inputs[i] = complex(values[i], TINY if i == j else 0.0)


@kernel
def differentiate(theta, x, states, previous, jacobian, begin, start, stop):
    """The diagonal or the whole of df/dh at every t of one slab. A thread is one column of one Jacobian (blocks along x)."""
    column = cuda.grid(1)
    at, j = column // STATE, column % STATE
    if at < jacobian.shape[1]:
        rows, inputs = scratch(2, STATE, 0j), scratch(1, INPUT, 0j)[0]
        h, new = rows[0], rows[1]
        p = bundle(theta)
        t = begin + at
        for b in range(cuda.blockIdx.y, jacobian.shape[0], cuda.gridDim.y):
            if start[b] <= t and t < stop[b]:
                copy_inputs(x[b, t], inputs)
                perturb_state(previous[b] if at == 0 else states[b, t - 1], j, h)
                step(p, inputs, h, new)
                if ORDER == DIAGONAL:
                    jacobian[b, at, j] = new[j].imag / TINY
                else:
                    for i in range(STATE):
                        jacobian[b, at, 0, i, j] = new[i].imag / TINY


@inline
def slope(new, v):
    """v times the derivative of f."""
    total = 0.0
    for i in range(STATE):
        total += v[i] * (new[i].imag / TINY)
    return total


@kernel
def pull_inputs(theta, x, states, previous, adjoint, dx, begin, start, stop):
    """dL/dx_t = (df/dx)^T lambda_t. A thread is one input of one step (blocks along x)."""
    number = cuda.grid(1)
    at, j = number // INPUT, number % INPUT
    if at < adjoint.shape[1]:
        rows, inputs = scratch(2, STATE, 0j), scratch(1, INPUT, 0j)[0]
        h, new = rows[0], rows[1]
        p = bundle(theta)
        t = begin + at
        for b in range(cuda.blockIdx.y, adjoint.shape[0], cuda.gridDim.y):
            if start[b] <= t and t < stop[b]:
                perturb_inputs(x[b, t], j, inputs)
                copy_state(previous[b] if at == 0 else states[b, t - 1], h)
                step(p, inputs, h, new)
                dx[b, t, j] = slope(new, adjoint[b, at])


@kernel
def pull_parameters(theta, copies, x, states, previous, adjoint, dtheta, begin, start, stop):
    """Add (df/dtheta)^T lambda_t of one slab to ``dtheta`` (parameters, parts).

    A block takes one parameter after the other (blocks along y) in a copy of theta of its own, through every
    ``dtheta.shape[1]``-th group of steps (blocks along x). A thread is a step of such a group; all threads of a block read the
    same parameters. Threads are added up in shared memory in a fixed order.
    """
    thread, part = cuda.threadIdx.x, cuda.blockIdx.x
    sums = cuda.shared.array(THREADS, DOUBLE)
    own = copies[cuda.blockIdx.y * cuda.gridDim.x + part]
    for j in range(thread, theta.size, THREADS):
        own[j] = theta[j]
    rows, inputs = scratch(2, STATE, 0j), scratch(1, INPUT, 0j)[0]
    h, new = rows[0], rows[1]
    p = bundle(own)
    length, steps = adjoint.shape[1], adjoint.shape[0] * adjoint.shape[1]
    for j in range(cuda.blockIdx.y, theta.size, cuda.gridDim.y):
        cuda.syncthreads()
        if thread == 0:
            own[j] = complex(theta[j].real, TINY)
        cuda.syncthreads()
        total = 0.0
        for number in range(part * THREADS + thread, steps, cuda.gridDim.x * THREADS):
            b, at = number // length, number % length
            t = begin + at
            if start[b] <= t and t < stop[b]:
                copy_inputs(x[b, t], inputs)
                copy_state(previous[b] if at == 0 else states[b, t - 1], h)
                step(p, inputs, h, new)
                total += slope(new, adjoint[b, at])
        sums[thread] = total
        width = THREADS // 2
        while width > 0:
            cuda.syncthreads()
            if thread < width:
                sums[thread] += sums[thread + width]
            width //= 2
        if thread == 0:
            dtheta[j, part] += sums[0]
            own[j] = theta[j]


@kernel
def accumulate(theta, x, states, previous, adjoint, dtheta, dx, begin, start, stop):
    """The pullback that the cell states: add (df/dtheta)^T lambda_t to ``dtheta`` (parameters, parts), write dL/dx_t.

    A thread is a part and takes every ``dtheta.shape[1]``-th step. Parts lie side by side, so that the threads of a warp, which
    add to the same parameter at a time, write to neighbours.
    """
    part = cuda.grid(1)
    if part < dtheta.shape[1]:
        dh = scratch(1, STATE, states[0, 0, 0])[0]
        p, dp = bundle(theta), bundle(dtheta[:, part])
        length = adjoint.shape[1]
        for number in range(part, adjoint.shape[0] * length, dtheta.shape[1]):
            b, at = number // length, number % length
            t = begin + at
            if start[b] <= t and t < stop[b]:
                h = previous[b] if at == 0 else states[b, t - 1]
                derivative(p, x[b, t], h, states[b, t], adjoint[b, at], dp, dx[b, t], dh)


@kernel
def total(dtheta, out):
    """The sum over all parts in a fixed order. A block is a parameter, a thread every ``THREADS``-th part."""
    thread, j = cuda.threadIdx.x, cuda.blockIdx.x
    sums = cuda.shared.array(THREADS, DOUBLE)
    value = DOUBLE(0.0)
    for part in range(thread, dtheta.shape[1], THREADS):
        value += dtheta[j, part]
    sums[thread] = value
    width = THREADS // 2
    while width > 0:
        cuda.syncthreads()
        if thread < width:
            sums[thread] += sums[thread + width]
        width //= 2
    if thread == 0:
        out[j] = sums[0]
