"""Differential equations as cells: one step of a scheme from one time to the next.

The implicit schemes solve R(u) = h + dt (c f(u) + (1 - c) f(h)) - u = 0 by Newton's method, with c = 1 (backward Euler) or 1/2
(trapezoid). Their derivatives follow from the implicit function theorem, (I - c dt F) du = dR at fixed u, with F = df/du from
complex steps of the right-hand side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba.extending import register_jitable

from pitsolve.cells.base import Cell, GeneralCell, Parameters
from pitsolve.cells.functions import eliminate
from pitsolve.cells.parameters import Fields, checked_fields, packing
from pitsolve.compile import user_function

TINY = 1e-100  # far above the 1e-200 of the kernels: a complex step through `step` leaves no trace in the F of its Newton steps
ITERATIONS = 20  # of Newton's method in one step
SCHEMES = {"euler": None, "rk4": None, "backward_euler": 1.0, "trapezoid": 0.5}  # the weight c of the implicit ones


@functools.cache
def explicit(rhs: Callable, scheme: str) -> Callable:
    """``step`` of forward Euler or of the classical method of Runge and Kutta; complex steps through it are cheap enough."""
    register_jitable(rhs)

    def euler(p, x, h, new):
        rhs(p, x, h, new)
        for i in range(h.size):
            new[i] = h[i] + p.dt[0] * new[i]

    def rk4(p, x, h, new):
        rows = np.empty((2, h.size), new.dtype)
        state, slope = rows[0], rows[1]
        for i in range(h.size):
            new[i] = h[i]
            state[i] = h[i]
        for stage in range(4):
            rhs(p, x, state, slope)
            weight = p.dt[0] / (6.0 if stage in (0, 3) else 3.0)
            ahead = p.dt[0] * (1.0 if stage == 2 else 0.5)
            for i in range(h.size):
                new[i] += weight * slope[i]
                state[i] = h[i] + ahead * slope[i]

    return {"euler": euler, "rk4": rk4}[scheme]


@functools.cache
def implicit(rhs: Callable, c: float, fields: Fields) -> tuple[Callable, Callable, Callable, Callable]:
    """step, jacobian, diagonal and pullback of the implicit scheme with weight c."""
    register_jitable(rhs)
    bundle, gather, _ = map(register_jitable, packing((*fields, ("dt", (1,)))))
    scatter = register_jitable(packing(fields)[2])
    total_size = sum(math.prod(shape) for _, shape in fields)

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
        n = h.size
        dt = p.dt[0]
        rows = h + np.zeros((3, n))  # float64 for float32 states, so that rounding of theirs does not stop Newton's method
        u, known, change = rows[0], rows[1], rows[2].reshape((n, 1))
        scratch, matrix = np.empty((2, n), np.complex128), np.empty((n, n))
        if c < 1.0:
            rhs(p, x, rows[2], rows[0])
            for i in range(n):
                known[i] = h[i] + dt * (1.0 - c) * u[i]
                u[i] = h[i]
        before = math.inf
        for _ in range(ITERATIONS):
            rhs(p, x, u, rows[2])
            for i in range(n):
                change[i, 0] = known[i] + dt * c * change[i, 0] - u[i]
            identity(matrix)
            add_slopes(p, x, u, -(c * dt).real, scratch, matrix, False)
            eliminate(matrix, change)
            size, scale = 0.0, 0.0
            for i in range(n):
                u[i] += change[i, 0]
                size += abs(change[i, 0].real)
                scale += abs(u[i].real) + abs(h[i].real)
            # The error is about the square of the last change; where rounding is larger, changes stop shrinking.
            if size <= 1e-11 * scale or (size <= 1e-8 * scale and size > 0.1 * before):
                for i in range(n):
                    new[i] = u[i]
                return
            if not size < math.inf:
                break
            before = size
        for i in range(n):
            new[i] = math.nan

    def jacobian(p, x, h, new, J):
        n = h.size
        dt = p.dt[0]
        scratch, matrix = np.empty((2, n), np.complex128), np.empty((n, n))
        identity(matrix)
        add_slopes(p, x, new, -c * dt, scratch, matrix, False)
        identity(J)
        if c < 1.0:
            add_slopes(p, x, h, (1.0 - c) * dt, scratch, J, False)
        eliminate(matrix, J)

    write_jacobian = register_jitable(jacobian)

    def diagonal(p, x, h, new, d):
        J = np.empty((h.size, h.size))
        write_jacobian(p, x, h, new, J)
        for i in range(h.size):
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
        n, m, count = h.size, x.size, 2 if c < 1.0 else 1
        dt = p.dt[0]
        scratch, matrix, w = np.empty((2, n), np.complex128), np.empty((n, n)), np.empty((n, 1))
        identity(matrix)
        add_slopes(p, x, new, -c * dt, scratch, matrix, True)
        for i in range(n):
            w[i, 0] = v[i]
        eliminate(matrix, w)
        states, weights = np.empty((count, n), np.complex128), np.empty((count, n))
        for i in range(n):
            dh[i] = w[i, 0]
            states[0, i], weights[0, i] = new[i], c * dt * w[i, 0]
        if c < 1.0:
            identity(matrix)
            add_slopes(p, x, h, (1.0 - c) * dt, scratch, matrix, True)
            for i in range(n):
                total = 0.0
                for j in range(n):
                    total += matrix[i, j] * w[j, 0]
                dh[i] = total
                states[1, i], weights[1, i] = h[i], (1.0 - c) * dt * w[i, 0]
        theta, inputs, slopes = np.empty(total_size + 1, np.complex128), np.empty(m, np.complex128), np.empty(total_size)
        gather(p, theta)
        for j in range(m):
            inputs[j] = x[j]
        q = bundle(theta)
        for j in range(total_size):
            value = theta[j]
            theta[j] = complex(value.real, TINY)
            slopes[j] = along(q, inputs, states, weights, scratch[0])
            theta[j] = value
        scatter(slopes, dp)
        for j in range(m):
            inputs[j] = complex(x[j], TINY)
            dx[j] = along(q, inputs, states, weights, scratch[0])
            inputs[j] = x[j]

    return step, jacobian, diagonal, pullback


@dataclass(frozen=True, init=False)
class ODE(GeneralCell):
    r"""A differential equation du/dt = f(u, x; p), one step of ``dt`` from one state to the next.

    .. math::
        \text{euler} \quad & u_t = u_{t-1} + dt\, f(u_{t-1}) \\
        \text{backward_euler} \quad & u_t = u_{t-1} + dt\, f(u_t) \\
        \text{trapezoid} \quad & u_t = u_{t-1} + \tfrac{dt}{2} (f(u_{t-1}) + f(u_t)) \\
        \text{rk4} \quad & \text{the classical method of order 4}

    all with the input x_t, constant over the step. On coarse grids ``dt`` is longer. The implicit schemes solve for u_t by
    Newton's method from u_{t-1}; where it does not converge, the state is NaN, and ``solve`` says so.

    Parameters
    ----------
    rhs : callable
        ``rhs(p, x, u, out)`` writes f into ``out`` (n,), in plain scalar Python as in :func:`custom`, and analytic: its
        derivatives are computed by complex steps. ``p`` holds the parameters and the step as ``p.dt[0]``.
    state_size : int
        Width n of u.
    dt : float
        Time step.
    scheme : str
        ``"euler"``, ``"backward_euler"``, ``"trapezoid"`` or ``"rk4"``.
    input_size : int
        Width m of x_t. A cell without inputs takes the number of steps in place of ``x``.
    parameters : dict of tuple, optional
        Name and shape, of at least one axis, of every parameter.
    coarse_scheme : str, optional
        The scheme of coarse grids; by default the same.

    Raises
    ------
    TypeError, ValueError
        If ``rhs`` is not a function, the scheme is unknown, or a size, a shape or ``dt`` is not positive.

    References
    ----------
    Hairer, Norsett and Wanner, "Solving ordinary differential equations I", 2nd ed., table II.1.2; Hairer and Wanner, "II",
    eqs. IV.3.10 and IV.3.11.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> def decay(p, x, u, out):
    ...     out[0] = -p.rate[0] * u[0]
    >>> cell = ps.cells.ODE(decay, state_size=1, dt=0.1, scheme="rk4", parameters={"rate": (1,)})
    >>> sol = ps.solve(cell, {"rate": np.ones(1)}, 10, h0=np.ones(1))
    >>> bool(abs(sol.states[-1, 0] - np.exp(-1.0)) < 1e-6)
    True
    """

    state_size: int
    rhs: Callable
    dt: float
    scheme: str
    coarse_scheme: str | None
    parameters: Fields

    def __init__(self, rhs: Callable, state_size: int, dt: float, scheme: str = "euler", input_size: int = 0,
                 parameters: dict[str, tuple[int, ...]] | None = None, coarse_scheme: str | None = None) -> None:
        values = {"input_size": input_size, "state_size": state_size, "rhs": user_function(rhs, "rhs"), "dt": dt,
                  "scheme": scheme, "coarse_scheme": coarse_scheme,
                  "parameters": checked_fields(dict(parameters or ()), "dt")}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self.__post_init__()
        if isinstance(dt, bool) or not isinstance(dt, (int, float, np.number)) or not 0 < dt < math.inf:
            raise ValueError(f"dt must be positive and finite, got {dt!r}")
        for name, least in (("scheme", ()), ("coarse_scheme", (None,))):
            if values[name] not in (*SCHEMES, *least):
                raise ValueError(f"{name} must be one of {', '.join(map(repr, SCHEMES))}, got {values[name]!r}")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parameters)

    @property
    def constants(self) -> tuple[tuple[str, float], ...]:
        return (("dt", float(self.dt)),)

    def coarsened(self, params: Parameters, ratio: int) -> tuple[Cell, Parameters]:
        return replace(self, dt=self.dt * ratio, scheme=self.coarse_scheme or self.scheme), params

    @property
    def _functions(self) -> tuple[Callable | None, ...]:
        weight = SCHEMES[self.scheme]
        if weight is None:
            return explicit(self.rhs, self.scheme), None, None, None
        return implicit(self.rhs, weight, self.parameters)

    @property
    def step(self) -> Callable:
        return self._functions[0]

    @property
    def jacobian(self) -> Callable | None:
        return self._functions[1]

    @property
    def diagonal(self) -> Callable | None:
        return self._functions[2]

    @property
    def pullback(self) -> Callable | None:
        return self._functions[3]
