"""One step of the exponential Rosenbrock-Euler method for u' = f(u, x(t)), as the step of a general cell.

    u_{i+1} = u_i + dt phi_1(A) f(u_i, x_i) + dt phi_2(A) (f(u_i, x_{i+1}) - f(u_i, x_i)),    A = dt df/du (u_i, x_i).

df/du comes from dual numbers, so it is exact, and it remains so when the states or parameters take a complex step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from pitsolve.backends.cpu import phi
from pitsolve.backends.cpu.dual import dual_row, stack
from pitsolve.backends.cpu.phi import MATRICES, VECTORS
from pitsolve.compile import bound, constant, inline, kernel, specialise

flow = constant("flow")  # phi.flow, compiled once for all right-hand sides
rhs = constant("rhs")
SIZE = constant("SIZE")  # of u
INPUTS = constant("INPUTS")  # of x
ROWS = constant("ROWS")  # MATRICES * SIZE

LARGEST = 64  # size of u that fits on the stack


@inline
def evaluate(p, x, rows):
    """rows[2], rows[3] = f and df/du v at u = rows[0], v = rows[1]."""
    for i in range(SIZE):
        rows[2, i] = 0.0  # a right-hand side that leaves an entry out means zero, not what the memory held
        rows[3, i] = 0.0
    rhs(p, x, dual_row(rows[0], rows[1]), dual_row(rows[2], rows[3]))


@kernel
def integrate(p, x, h, matrices, vectors, rows, exponential):
    """vectors[0] = u_{i+1} - u_i and, with ``exponential``, matrices[1] = e^A - I. ``x`` is (dt, x_i, x_{i+1})."""
    A, dt = matrices[0], x[0]
    for i in range(SIZE):
        rows[0, i] = h[i]
        rows[1, i] = 0.0
    for j in range(SIZE):
        rows[1, j] = 1.0
        evaluate(p, x[1:1 + INPUTS], rows)
        rows[1, j] = 0.0
        for i in range(SIZE):
            A[i, j] = dt * rows[3, i]
    for i in range(SIZE):
        vectors[0, i] = dt * rows[2, i]
        vectors[1, i] = 0.0
    if INPUTS:
        evaluate(p, x[1 + INPUTS:], rows)
        for i in range(SIZE):
            vectors[1, i] = dt * rows[2, i] - vectors[0, i]
    flow(matrices, vectors, INPUTS > 0, exponential)


@inline
def step(p, x, h, new):
    """u_{i+1} from u_i, as the step of a cell."""
    matrices = stack(h[0], ROWS, SIZE).reshape((MATRICES, SIZE, SIZE))
    vectors, rows = stack(h[0], VECTORS, SIZE), stack(h[0], 4, SIZE)
    integrate(p, x, h, matrices, vectors, rows, False)
    for i in range(SIZE):
        new[i] = h[i] + vectors[0, i]


@inline
def frozen_jacobian(p, x, h, new, J):
    """e^A, the derivative of the step with A held fixed: the matrix of the paper's iteration."""
    matrices = stack(h[0], ROWS, SIZE).reshape((MATRICES, SIZE, SIZE))
    vectors, rows = stack(h[0], VECTORS, SIZE), stack(h[0], 4, SIZE)
    integrate(p, x, h, matrices, vectors, rows, True)
    for i in range(SIZE):
        for j in range(SIZE):
            J[i, j] = matrices[1, i, j]
        J[i, i] += 1.0


@functools.cache
def functions(right_hand_side: Callable, size: int, inputs: int) -> tuple[Callable, Callable]:
    """``step`` and ``frozen_jacobian`` for one right-hand side; the same objects for equal arguments."""
    names = {"rhs": right_hand_side, "SIZE": size, "INPUTS": inputs, "ROWS": MATRICES * size, "flow": specialise(phi.flow)}
    return bound(step, frozen_jacobian, **names)
