"""Least squares in time by overlapping windows that exchange with their neighbours only."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import ModuleType

import numpy as np

from pitsolve.leastsquares import check_schwarz as check
from pitsolve.leastsquares.choice import penalties
from pitsolve.leastsquares.iteration import Options, Schwarz
from pitsolve.leastsquares.krylov import conjugate_gradients
from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.result import SchwarzError, SchwarzSolution, SchwarzStatus
from pitsolve.leastsquares.windows import Chain
from pitsolve.place import placed


def schwarz_lstsq(
    problem: BlockTridiagonal, windows: int | np.ndarray, *, overlap: int = 4, formulation: str = "complement",
    mode: str = "additive", mu: float | str | None = None, transmission: str = "dirichlet", sweeps: int | None = None,
    accel: str | None = None, tol: float | None = None, max_iter: int = 1000, x0: np.ndarray | None = None,
    noise: float = 1.0, on_failure: str = "fallback", backend: str = "auto",
) -> SchwarzSolution:
    r"""Solve a least-squares problem in time by overlapping windows, all at once.

    .. math:: (N_{ii} + \mu P_i)\, x_i^{k+1} = f_i - N_{i,ext}\, x_{ext}^k + \mu \sum_{j = i \pm 1} x_j^k|_{O_{ij}}

    for every window i, with the neighbours' values outside of it and P_i the projection on its overlaps. Copies agree in the
    limit, which is the least-squares solution for every mu, any number of windows and any overlap; the factor by which the
    error shrinks decays exponentially with the overlap. mu = 0 is fastest.

    Parameters
    ----------
    problem : BlockTridiagonal
        N and f.
    windows : int or ndarray of int (p + 1,)
        Number p of windows of equal length, or the boundaries 0, ..., T of their cores, for example from
        :func:`pitsolve.leastsquares.balance`. One window is a direct solution. The result depends on it to rounding, and
        not at all on the number of threads, each of which works on one window.
    overlap : int
        Steps s that two neighbours share; every core must be longer. 4 is enough for short correlations.
    formulation : {"complement", "split"}
        ``"split"`` reads eq. (11) literally: residuals contain both copies on an overlap, which then add up. It needs
        mu > 0 and converges far more slowly.
    mode : {"additive", "multiplicative", "oddeven"}
        Whether a window uses the values of its neighbours of the last iteration (all windows at once), of this one (one after
        the other, the paper's eqs. 15-16), or even windows go first.
    mu : float, "gcv" or "discrepancy", optional
        Weight of the overlap penalty. Default 0, or 0.4 times the median of the diagonal of N for ``"split"``. A word takes the
        median over the windows of :func:`pitsolve.leastsquares.choose_mu` by that rule, from ``x0`` if it is given.
    transmission : {"dirichlet", "schur"}
        ``"schur"`` adds to each end what the neighbour would eliminate, n x n numbers sent once a set-up sweep; with as many
        sweeps as windows the iteration ends after p of them. It needs an overlap.
    sweeps : int, optional
        Set-up sweeps of ``"schur"``, each of which costs about as much as factoring; 1 by default, which is enough unless
        correlations are longer than a window.
    accel : {None, "cg"}
        Conjugate gradients with the windows as preconditioner: fewer iterations for long correlations, but two sums over all
        windows in each.
    tol : float, optional
        Bound on the estimated error of each window relative to the largest one. Default 1e-10, or 1e-5 for float32. The
        estimate is D rho / (1 - rho) with the change D and the factor rho by which changes shrink.
    max_iter : int
        Most iterations.
    x0 : ndarray (T, n), optional
        Start; zero by default.
    noise : float
        Standard deviation of the errors of the rows, for ``mu="discrepancy"``; 1 is right for ``from_state_space``.
    on_failure : {"fallback", "raise", "warn"}
        What happens if the windows do not converge: a direct solution, a ``SchwarzError``, or a warning and what was reached.
    backend : str
        ``"cpu"`` or ``"cuda"`` (docs/gpu.md); ``"auto"`` is the CPU, where the arrays of a problem are.

    Returns
    -------
    SchwarzSolution

    Raises
    ------
    ValueError
        If a window is not longer than its overlaps, a value is out of range or not finite, or N is not positive definite in
        some window; the message names the window and what would be valid.
    TypeError
        If dtypes mix float32 and float64.
    SchwarzError
        With ``on_failure="raise"``.

    References
    ----------
    L. D'Amore (2025), eqs. (12)-(18) and the algorithm after them, with squared norms. M. J. Gander, "Schwarz methods over the
    course of time", ETNA 31 (2008). S. Na, S. Shin, M. Anitescu, V. M. Zavala, arXiv:2005.06674.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> y = np.random.default_rng(0).normal(size=(200, 1))
    >>> problem = ps.leastsquares.BlockTridiagonal.from_state_space(np.eye(1), 0.5 * np.eye(1), np.eye(1), np.eye(1), y)
    >>> sol = ps.schwarz_lstsq(problem, windows=8, overlap=4)
    >>> sol.converged, sol.residual < 1e-9, sol.bytes_per_interface
    (True, True, 8.0)
    """
    check.problem(problem)
    chain = check.chain(windows, overlap, problem.steps)
    tol, max_iter, guess = check.limits(problem, tol, max_iter, x0)
    if isinstance(mu, str):
        rule, noise, _ = check.rule(mu, noise, 1.0, argument="mu")
        mu = float(np.median(penalties(check.with_rows(problem), chain, None if x0 is None else guess, rule, noise)))
    options = check.options(problem, chain, formulation, mode, mu, transmission, sweeps, accel)
    check.choice("on_failure", on_failure, ("fallback", "raise", "warn"))
    with placed(backend) as place:
        if chain.count == 1:
            return _direct(problem, chain, place.backend)
        solve = _by_conjugate_gradients if accel == "cg" else _by_windows
        result = solve(problem, chain, options, guess, tol, max_iter, place.backend)
        if result.converged:
            return result
        if on_failure == "raise":
            raise SchwarzError(result)
        if on_failure == "warn":
            warnings.warn(result.status.value, RuntimeWarning, stacklevel=2)
            return result
        return replace(_direct(problem, chain, place.backend), status=SchwarzStatus.FALLBACK, iterations=result.iterations,
                       rate=result.rate, changes=result.changes, mu=result.mu, bytes_per_interface=result.bytes_per_interface,
                       bytes_total=result.bytes_total)


def _by_windows(problem: BlockTridiagonal, chain: Chain, options: Options, guess: np.ndarray, tol: float, max_iter: int,
                backend: ModuleType) -> SchwarzSolution:
    schwarz = Schwarz(problem, chain, options, backend)
    estimate, status, spent, sent = schwarz.run(guess, tol, max_iter), SchwarzStatus.CONVERGED, 0, 0
    if options.sweeps and estimate.diverging and estimate.iterations < max_iter:
        spent, sent, status = estimate.iterations, schwarz.bytes, SchwarzStatus.SWITCHED
        options = options._replace(sweeps=0)
        schwarz = Schwarz(problem, chain, options, backend)
        estimate = schwarz.run(guess, tol, max_iter - spent)
    solution = schwarz.merge()
    return SchwarzSolution(
        solution, status if estimate.converged else SchwarzStatus.NOT_CONVERGED, estimate.converged,
        spent + estimate.iterations, estimate.rate, float(estimate.errors.max()), schwarz.residual(solution),
        np.nan if options.split else schwarz.mismatch(), np.array(estimate.changes), chain, options.mu, options.transmission,
        schwarz.mail.bytes_per_interface, sent + schwarz.bytes)


def _by_conjugate_gradients(problem: BlockTridiagonal, chain: Chain, options: Options, guess: np.ndarray, tol: float,
                            max_iter: int, backend: ModuleType) -> SchwarzSolution:
    schwarz = Schwarz(problem, chain, options, backend)
    solution, estimate = conjugate_gradients(schwarz, guess, tol, max_iter)
    iterations, converged = len(estimate.decreases), estimate.error <= tol
    message = (1 + chain.overlap) * guess[:1].nbytes  # a boundary block for N p; residual and correction on an overlap
    return SchwarzSolution(
        solution, SchwarzStatus.CONVERGED if converged else SchwarzStatus.NOT_CONVERGED, converged, iterations, np.nan,
        estimate.error, schwarz.residual(solution), 0.0, np.sqrt(np.array(estimate.decreases))[:, None], chain, options.mu,
        options.transmission, float(message), schwarz.transmissions.bytes + 2 * (chain.count - 1) * iterations * message)


def _direct(problem: BlockTridiagonal, chain: Chain, backend: ModuleType) -> SchwarzSolution:
    """One window over all steps."""
    whole = Chain(chain.boundaries[[0, -1]], 0)
    schwarz = Schwarz(problem, whole, Options(), backend)
    schwarz.sweep()
    solution = schwarz.merge()
    return SchwarzSolution(solution, SchwarzStatus.DIRECT, True, 1, np.nan, 0.0, schwarz.residual(solution), 0.0,
                           np.ones((1, 1)), chain, 0.0, "dirichlet", 0.0, 0)
