"""Steps of differential equations du/dt = f(u), and their derivatives.

The implicit schemes solve R(u) = h + dt (c f(u) + (1 - c) f(h)) - u = 0 by Newton's method, with c = 1 (backward Euler) or 1/2
(trapezoid). Their derivatives follow from the implicit function theorem, (I - c dt F) du = dR at fixed u, with F = df/du from
complex steps of the right-hand side.
"""

import functools
import math
from collections.abc import Callable

from numba.extending import register_jitable

from pitsolve.cells.functions import eliminate
from pitsolve.cells.memory import part, scratch
from pitsolve.cells.parameters import Fields, packing

TINY = 1e-100  # far above the 1e-200 of the kernels: a complex step through `step` leaves no trace in the F of its Newton steps
ITERATIONS = 20  # of Newton's method in one step
SCHEMES = {"euler": None, "rk4": None, "backward_euler": 1.0, "trapezoid": 0.5}  # the weight c of the implicit ones


@functools.cache
def explicit(rhs: Callable, scheme: str, n: int) -> Callable:
    """``step`` of forward Euler or of the classical method of Runge and Kutta for states of width n.

    Complex steps through it are cheap enough.
    """
    register_jitable(rhs)

    def euler(p, x, h, new):
        rhs(p, x, h, new)
        for i in range(n):
            new[i] = h[i] + p.dt[0] * new[i]

    def rk4(p, x, h, new):
        rows = scratch(2, n, h[0])
        state, slope = rows[0], rows[1]
        for i in range(n):
            new[i] = h[i]
            state[i] = h[i]
        for stage in range(4):
            rhs(p, x, state, slope)
            weight = p.dt[0] / (6.0 if stage in (0, 3) else 3.0)
            ahead = p.dt[0] * (1.0 if stage == 2 else 0.5)
            for i in range(n):
                new[i] += weight * slope[i]
                state[i] = h[i] + ahead * slope[i]

    return {"euler": euler, "rk4": rk4}[scheme]


@functools.cache
def implicit(rhs: Callable, c: float, fields: Fields, n: int, m: int) -> tuple[Callable, Callable, Callable, Callable]:
    """step, jacobian, diagonal and pullback of the implicit scheme with weight c, for states of width n and m inputs."""
    register_jitable(rhs)
    bundle, gather, _ = map(register_jitable, packing((*fields, ("dt", (1,)))))
    scatter = register_jitable(packing(fields)[2])
    total_size = sum(math.prod(shape) for _, shape in fields)
    width, count = total_size + 1, 2 if c < 1.0 else 1  # of theta with dt; of the states at which f is evaluated

    @register_jitable
    def add_slopes(p, x, u, factor, rows, matrix, transposed):
        """matrix += factor F(u), or its transpose; ``rows`` are two complex rows of scratch."""
        point, out = rows[0], rows[1]
        for i in range(u.size):
            point[i] = u[i].real
        for j in range(u.size):
            point[j] = complex(u[j].real, TINY)
            rhs(p, x, point, out)
            point[j] = u[j].real
            for i in range(u.size):
                slope = factor * (out[i].imag / TINY)
                if transposed:
                    matrix[j, i] += slope
                else:
                    matrix[i, j] += slope

    @register_jitable
    def identity(matrix):
        for i in range(matrix.shape[0]):
            for j in range(matrix.shape[0]):
                matrix[i, j] = 1.0 if i == j else 0.0

    def step(p, x, h, new):
        dt = p.dt[0]
        # Double precision for states of float32 too, so that their rounding does not stop Newton's method.
        rows = scratch(3, n, h[0] + 0.0)
        u, known, slope = rows[0], rows[1], rows[2]
        change = part(slope, 0, (n, 1))
        points, matrix = scratch(2, n, 0j), scratch(n, n, 0.0)
        for i in range(n):
            u[i] = h[i]
            known[i] = h[i]
        if c < 1.0:
            rhs(p, x, u, slope)
            for i in range(n):
                known[i] += dt * (1.0 - c) * slope[i]
        before, settled = math.inf, False
        for _ in range(ITERATIONS):
            rhs(p, x, u, slope)
            for i in range(n):
                slope[i] = known[i] + dt * c * slope[i] - u[i]
            identity(matrix)
            add_slopes(p, x, u, -(c * dt).real, points, matrix, False)
            eliminate(matrix, change)
            size, scale, tangent = 0.0, 0.0, 0.0
            for i in range(n):
                u[i] += slope[i]
                size += abs(slope[i].real)
                scale += abs(u[i].real) + abs(h[i].real)
                tangent += abs(u[i].imag)
            # The error is about the square of the last change; where rounding is larger, changes stop shrinking.
            if size <= 1e-11 * scale or (size <= 1e-8 * scale and size > 0.1 * before):
                if settled or tangent == 0.0:
                    for i in range(n):
                        new[i] = u[i]
                    return
                settled = True  # but the imaginary part of a complex step lags one iteration behind
            if not size < math.inf:
                break
            before = size
        for i in range(n):
            new[i] = math.nan

    def jacobian(p, x, h, new, J):
        dt = p.dt[0]
        points, matrix = scratch(2, n, 0j), scratch(n, n, 0.0)
        identity(matrix)
        add_slopes(p, x, new, -c * dt, points, matrix, False)
        identity(J)
        if c < 1.0:
            add_slopes(p, x, h, (1.0 - c) * dt, points, J, False)
        eliminate(matrix, J)

    write_jacobian = register_jitable(jacobian)

    def diagonal(p, x, h, new, d):
        J = scratch(n, n, 0.0)
        write_jacobian(p, x, h, new, J)
        for i in range(n):
            d[i] = J[i, i]

    @register_jitable
    def along(p, x, states, weights, out):
        """Sum of the derivatives of f at the rows of ``states``, each with its weights, in the direction of Im p and Im x."""
        total = 0.0
        for k in range(states.shape[0]):
            rhs(p, x, states[k], out)
            for i in range(out.size):
                total += weights[k, i] * (out[i].imag / TINY)
        return total

    def pullback(p, x, h, new, v, dp, dx, dh):
        dt = p.dt[0]
        points, matrix, w = scratch(2, n, 0j), scratch(n, n, 0.0), scratch(n, 1, 0.0)
        identity(matrix)
        add_slopes(p, x, new, -c * dt, points, matrix, True)
        for i in range(n):
            w[i, 0] = v[i]
        eliminate(matrix, w)
        states, weights = scratch(count, n, 0j), scratch(count, n, 0.0)
        for i in range(n):
            dh[i] = w[i, 0]
            states[0, i], weights[0, i] = new[i], c * dt * w[i, 0]
        if c < 1.0:
            identity(matrix)
            add_slopes(p, x, h, (1.0 - c) * dt, points, matrix, True)
            for i in range(n):
                total = 0.0
                for j in range(n):
                    total += matrix[i, j] * w[j, 0]
                dh[i] = total
                states[1, i], weights[1, i] = h[i], (1.0 - c) * dt * w[i, 0]
        theta, inputs, slopes = scratch(1, width, 0j)[0], scratch(1, m, 0j)[0], scratch(1, total_size, 0.0)[0]
        gather(p, theta)
        for j in range(m):
            inputs[j] = x[j]
        q = bundle(theta)
        for j in range(total_size):
            value = theta[j]
            theta[j] = complex(value.real, TINY)
            slopes[j] = along(q, inputs, states, weights, points[0])
            theta[j] = value
        scatter(slopes, dp)
        for j in range(m):
            inputs[j] = complex(x[j], TINY)
            dx[j] = along(q, inputs, states, weights, points[0])
            inputs[j] = x[j]

    return step, jacobian, diagonal, pullback
