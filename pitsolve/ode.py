"""Ordinary differential equations on a given grid, all steps together, and their exact gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu.exponential import LARGEST, functions
from pitsolve.cells.base import Parameters
from pitsolve.cells.custom import Custom
from pitsolve.compile import user_function
from pitsolve.gradient import gradient
from pitsolve.solution import Gradient, Solution
from pitsolve.solve import solve

METHODS = ("deer", "frozen-deer", "sequential")


def _grid(t: object) -> np.ndarray:
    """The lengths of the steps, formed in the precision of the grid."""
    t = check.float_array("t", t, (1,))
    if t.size == 0:
        raise ValueError("t must hold the initial time at least, got an empty array")
    dt = np.diff(t)
    for i in np.flatnonzero(dt <= 0.0):
        raise ValueError(f"t must increase strictly, got t[{i + 1}] = {t[i + 1]} after t[{i}] = {t[i]}")
    return dt


def _parameters(params: object) -> Parameters:
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise TypeError(f"params must be a dict of arrays, got {type(params).__name__}")
    arrays = {}
    for name, value in params.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"params must have names that are Python identifiers, got {name!r}")
        arrays[name] = array = check.float_array(f"params[{name!r}]", value)
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"params[{name!r}] must have at least one axis and one entry, got shape {array.shape}")
    return arrays


def _inputs(inputs: object, lead: tuple[int, ...], points: int) -> np.ndarray:
    """Inputs (..., T + 1, m) for the leading axes of u0; m = 0 without inputs."""
    if inputs is None:
        return np.zeros((*lead, points, 0))
    array = check.float_array("inputs", inputs, (len(lead) + 2,))
    if array.shape[:-1] != (*lead, points) or array.shape[-1] == 0:
        expected = ", ".join(map(str, (*lead, points)))
        raise ValueError(f"inputs must have shape ({expected}, m) for t and u0, got {array.shape}")
    return array


def _equation(rhs, u0, t, params, inputs, frozen: bool) -> tuple[Custom, Parameters, np.ndarray, np.ndarray]:
    """Check the arguments; the cell of one step, its parameters, its inputs (dt, x_i, x_{i+1}) and u0."""
    rhs = user_function(rhs, "rhs")
    u0 = check.float_array("u0", u0, (1, 2))
    dt, params = _grid(t), _parameters(params)
    inputs = _inputs(inputs, u0.shape[:-1], dt.size + 1)
    n, m = u0.shape[-1], inputs.shape[-1]
    if not 1 <= n <= LARGEST:
        raise ValueError(f"u0 must have 1 to {LARGEST} components in its last axis, got shape {u0.shape}")
    given = {"u0": u0, **{f"params[{name!r}]": array for name, array in params.items()}}
    check.same_dtype({**given, "inputs": inputs} if m else given)
    x = np.empty((*u0.shape[:-1], dt.size, 1 + 2 * m), u0.dtype)
    x[..., 0], x[..., 1:1 + m], x[..., 1 + m:] = dt, inputs[..., :-1, :], inputs[..., 1:, :]
    step, frozen_jacobian = functions(rhs, n, m)
    shapes = tuple((name, array.shape) for name, array in params.items())
    return Custom(1 + 2 * m, n, step, shapes, frozen_jacobian if frozen else None), params, x, u0


def solve_ode(
    rhs: Callable, u0: np.ndarray, t: np.ndarray, params: dict[str, np.ndarray] | None = None,
    inputs: np.ndarray | None = None, *, method: str = "deer", tol: float | None = None, max_iter: int | None = None,
    guess: np.ndarray | None = None, on_failure: str = "fallback",
) -> Solution:
    r"""Integrate a smooth ordinary differential equation over a given grid, in parallel over time.

    :math:`u' = f(u, x(t); \theta)`, :math:`u(t_0) = u_0`, by the exponential Rosenbrock-Euler method

    .. math:: u_{i+1} = u_i + \Delta_i \varphi_1(A_i) f(u_i, x_i)
              + \Delta_i \varphi_2(A_i) [f(u_i, x_{i+1}) - f(u_i, x_i)],
              \qquad A_i = \Delta_i \frac{\partial f}{\partial u}(u_i, x_i).

    It is of second order, exact for linear equations with constant coefficients and piecewise linear inputs, and stable
    however stiff the equation is.

    Parameters
    ----------
    rhs : callable
        ``rhs(p, x, u, out)`` writes f into ``out`` (n,), in plain scalar Python: loops, indexing, arithmetic
        and the analytic functions of ``math``. ``p`` is a named tuple of the parameters, ``x`` (m,) the inputs, ``u`` (n,) the
        state. Functions of yours that it calls must be ``njit`` functions.
    u0 : ndarray (n,) or (B, n)
        Initial state; n is at most 64.
    t : ndarray (T + 1,)
        The grid, strictly increasing; float32 or float64. Everything else has the dtype of ``u0``.
    params : dict of ndarray, optional
        Parameters theta, each with at least one axis.
    inputs : ndarray (T + 1, m) or (B, T + 1, m), optional
        x on the grid. An equation that depends on time takes what it needs of t as an input.
    method : str
        ``"deer"`` (Newton's method over a prefix scan), ``"frozen-deer"`` (the same with :math:`e^{A_i}` for the derivative
        of a step, as in the paper: n^3 in place of n^4 operations a step, but more iterations, and too many where the equation
        is both stiff and far from linear), or ``"sequential"`` (the loop).
    tol : float, optional
        Bound on the residual of each step, as in :func:`pitsolve.solve`. It is not the error of the discretisation, which the
        grid decides.
    max_iter : int, optional
        Most iterations, 100 by default.
    guess : ndarray, the shape of the states, optional
        First iterate; by default u0 everywhere.
    on_failure : str
        ``"fallback"``, ``"raise"`` or ``"warn"``, as in :func:`pitsolve.solve`.

    Returns
    -------
    Solution
        Its states are u at t_1 ... t_T.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or dtype, is not finite, or t does not increase.
    ConvergenceError
        With ``on_failure="raise"``, when the iteration does not converge.

    References
    ----------
    Lim, Zhu, Selfridge and Kasim, "Parallelizing non-linear sequential models over the sequence length", ICLR 2024 (the
    iteration); Hochbruck, Ostermann and Schweitzer, "Exponential Rosenbrock-type methods", SIAM J. Numer. Anal. 47 (2009) (the
    equation).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> def decay(p, x, u, out):
    ...     out[0] = -p.rate[0] * u[0] ** 3
    >>> t = np.linspace(0.0, 1.0, 1001)
    >>> sol = ps.solve_ode(decay, np.array([1.0]), t, {"rate": np.array([10.0])})
    >>> bool(sol.converged), bool(abs(sol.states[-1, 0] - 21.0 ** -0.5) < 1e-5)
    (True, True)
    """
    check.choice("method", method, METHODS)
    cell, params, x, u0 = _equation(rhs, u0, t, params, inputs, frozen=method == "frozen-deer")
    solution = solve(cell, params, x, u0, method=method.removeprefix("frozen-"), tol=tol, max_iter=max_iter, guess=guess,
                     on_failure=on_failure)
    return replace(solution, method=method)


def gradient_ode(
    rhs: Callable, u0: np.ndarray, t: np.ndarray, params: dict[str, np.ndarray] | None, inputs: np.ndarray | None,
    solution: Solution, dstates: np.ndarray,
) -> Gradient:
    r"""Gradient of a loss L(u_1 ... u_T) with respect to parameters, inputs and initial state.

    It is that of the discrete solution, exact to rounding: with :math:`J_i` the derivative of step i, that of A included,

    .. math:: \lambda_i = \frac{\partial L}{\partial u_i} + J_{i+1}^T \lambda_{i+1}.

    Parameters
    ----------
    rhs, u0, t, params, inputs
        As given to :func:`pitsolve.solve_ode`.
    solution : Solution
        What it returned.
    dstates : ndarray, the shape of ``solution.states``
        dL/du_i at t_1 ... t_T, direct dependence only.

    Returns
    -------
    Gradient
        ``x`` is dL/dinputs, of the shape of ``inputs``; ``h0`` is dL/du0.

    Raises
    ------
    TypeError, ValueError
        As :func:`pitsolve.solve_ode`.

    References
    ----------
    Lim, Zhu, Selfridge and Kasim, ICLR 2024, section 3.1 (the adjoint equation).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> def decay(p, x, u, out):
    ...     out[0] = -p.rate[0] * u[0]
    >>> u0, t, params = np.array([1.0]), np.linspace(0.0, 1.0, 11), {"rate": np.array([2.0])}
    >>> sol = ps.solve_ode(decay, u0, t, params)
    >>> gradient = ps.gradient_ode(decay, u0, t, params, None, sol, np.eye(10)[9][:, None])
    >>> bool(abs(gradient.params["rate"][0] + np.exp(-2.0)) < 1e-14)
    True
    """
    cell, params, x, u0 = _equation(rhs, u0, t, params, inputs, frozen=False)
    result = gradient(cell, params, x, solution, dstates, u0)
    dx = None
    if inputs is not None:
        m = x.shape[-1] // 2
        dx = np.zeros(np.shape(inputs), u0.dtype)
        dx[..., :-1, :] += result.x[..., 1:1 + m]
        dx[..., 1:, :] += result.x[..., 1 + m:]
    return Gradient(params=result.params, x=dx, h0=result.h0, method=result.method)
