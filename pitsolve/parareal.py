"""Parareal for any two propagators: a fine one, evaluated for all windows at once, and a coarse one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu.propagators import evaluate
from pitsolve.compile import specialise
from pitsolve.work import Stage, Work


@dataclass(frozen=True, eq=False)
class PararealSolution:
    """The states at the ends of all windows and how they were found.

    Attributes
    ----------
    states : ndarray (N, n)
        U_1 ... U_N.
    converged : bool
        Whether the last residual is within the tolerance.
    iterations : int
        Corrections made; after N of them every state is exact.
    residuals : ndarray (iterations + 1,)
        2-norm over all windows of F(U_n) - U_{n+1}, of the coarse start and after each iteration.
    tol : float
        The tolerance on it.
    work : Work
        Calls of the fine propagator (level 0) and of the coarse one (level 1).
    """

    states: np.ndarray = field(repr=False)
    converged: bool
    iterations: int
    residuals: np.ndarray = field(repr=False)
    tol: float
    work: Work


def _propagators(fine: Callable, coarse: Callable, u0: np.ndarray) -> tuple[Callable, Callable]:
    """``all_fine(states, results, first)`` and ``one_coarse(u, n)``, which check what the user's functions return."""
    for name, function in (("fine", fine), ("coarse", coarse)):
        if not callable(function):
            raise TypeError(f"{name} must be a function u_next = {name}(u, n), got {type(function).__name__}")

    def one(name: str, function: Callable, u: np.ndarray, n: int) -> np.ndarray:
        result = np.asarray(function(u.copy(), n))
        if result.shape != u0.shape or result.dtype != u0.dtype:
            raise ValueError(f"{name}(u, n) must return an array like u0, {u0.dtype} of shape {u0.shape}, got {result.dtype} "
                             f"of shape {result.shape} for n = {n}")
        return result

    def in_a_loop(states: np.ndarray, results: np.ndarray, first: int) -> None:
        for n in range(first, results.shape[0]):
            results[n] = one("fine", fine, states[n], n)

    def in_threads(states: np.ndarray, results: np.ndarray, first: int) -> None:
        if first < results.shape[0]:
            one("fine", fine, states[first], first)
            specialise(evaluate, propagator=fine)(states, results, first)

    return in_threads if hasattr(fine, "py_func") else in_a_loop, lambda u, n: one("coarse", coarse, u, n)


def parareal(
    fine: Callable, coarse: Callable, u0: np.ndarray, windows: int = 20, *, max_iter: int | None = None,
    tol: float | None = None,
) -> PararealSolution:
    r"""Parareal iteration for two propagators.

    .. math:: U_{n+1}^{k+1} = G_n(U_n^{k+1}) + F_n(U_n^k) - G_n(U_n^k), \qquad U_{n+1}^0 = G_n(U_n^0)

    with the fine propagator F, evaluated for all windows at once, and the coarse one G, one window after the other. After k
    iterations the first k states are those of F alone, to the last bit, whatever F and G are.

    Parameters
    ----------
    fine, coarse : callable
        ``u_next = fine(u, n)`` propagates the state ``u`` (n,) through window ``n`` = 0 ... N - 1 and returns a new array. A
        function compiled by ``numba.njit`` runs in threads; it must not write to ``u`` or to shared memory. A plain function
        runs in a loop.
    u0 : ndarray (n,)
        Initial state, float32 or float64.
    windows : int
        N.
    max_iter : int, optional
        Most iterations; N by default, where the iteration ends at the latest.
    tol : float, optional
        Bound on the 2-norm over all windows of F(U_n) - U_{n+1}. Default 16 units of rounding for each number in it.

    Returns
    -------
    PararealSolution

    Raises
    ------
    TypeError, ValueError
        Arguments that do not fit, or a propagator that returns something other than a state.

    References
    ----------
    Lions, Maday and Turinici, "A parareal in time discretization of PDEs", C. R. Acad. Sci. 332 (2001); Algorithm 1 of Lee,
    Park and Lee, "Parareal neural networks emulating a parallel-in-time algorithm", TNNLS 2022.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> def fine(u, n):
    ...     for _ in range(100):
    ...         u = u - 0.001 * u
    ...     return u
    >>> def coarse(u, n):
    ...     return u - 0.1 * u
    >>> res = ps.parareal(fine, coarse, np.ones(1), windows=10)
    >>> bool(res.converged), res.states.shape, bool(abs(res.states[-1, 0] - 0.999**1000) < 1e-12)
    (True, (10, 1), True)
    """
    u0 = check.float_array("u0", u0, (1,))
    windows = check.count("windows", windows)
    most = windows if max_iter is None else min(windows, check.count("max_iter", max_iter))
    floor = 16.0 * float(np.finfo(u0.dtype).eps) * float(np.sqrt(windows * max(1, u0.size)))
    tol = floor if tol is None else check.positive("tol", tol)
    all_fine, one_coarse = _propagators(fine, coarse, u0)

    u = np.empty((windows + 1, u0.size), u0.dtype)
    f, g = np.empty_like(u[1:]), np.empty_like(u[1:])
    u[0] = u0
    for n in range(windows):
        u[n + 1] = g[n] = one_coarse(u[n], n)
    residuals, stages = [], [Stage(1, 1, windows, windows)]
    for k in range(most + 1):
        all_fine(u[:-1], f, k)  # the windows before are exact
        if k < windows:
            stages.append(Stage(0, windows - k, 1, windows - k))
        with np.errstate(over="ignore", invalid="ignore"):
            residuals.append(float(np.sqrt(np.square(f - u[1:], dtype=np.float64).sum())))
        if residuals[-1] <= tol or not np.isfinite(residuals[-1]) or k == most:
            break
        for n in range(k, windows):
            new = one_coarse(u[n], n)
            with np.errstate(over="ignore", invalid="ignore"):
                u[n + 1] = f[n] + (new - g[n])  # in this order the first window is exactly F
            g[n] = new
        stages.append(Stage(1, 1, windows - k, windows - k))
    converged = residuals[-1] <= tol
    if not converged:
        warnings.warn(f"parareal did not converge: residual {residuals[-1]:.1e} after {k} iterations (tol {tol:.1e}); raise "
                      "max_iter, or take a coarse propagator that is closer to the fine one or more stable", RuntimeWarning,
                      stacklevel=2)
    work = Work(tuple(stages), Stage(0, 1, windows, windows), 2)
    return PararealSolution(u[1:].copy(), converged, k, np.array(residuals), tol, work)
