"""Differential equations as cells: one step of a scheme from one state to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pitsolve.cells.base import Cell, GeneralCell, Parameters
from pitsolve.cells.parameters import Fields, checked_fields
from pitsolve.cells.schemes import SCHEMES, explicit, implicit
from pitsolve.compile import user_function


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
    def precise(self) -> bool:
        return SCHEMES[self.scheme] is not None

    @property
    def _functions(self) -> tuple[Callable | None, ...]:
        weight = SCHEMES[self.scheme]
        if weight is None:
            return explicit(self.rhs, self.scheme, self.state_size), None, None, None
        return implicit(self.rhs, weight, self.parameters, self.state_size, self.input_size)

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
