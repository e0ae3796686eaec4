"""The choice of the overlap penalty mu from the data alone: cross-validation and the discrepancy principle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from pitsolve.leastsquares import check_choice as check
from pitsolve.leastsquares.penalty import PenaltySpectrum, local_solutions, penalty_spectrum
from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.windows import Chain

_BEYOND = 1e6  # a mu so far below or above all eigenvalues does what 0 or infinity would
_PER_DECADE = 8  # points of the grid that brackets a minimum or a root


def log_grid(lower: float, upper: float, per_decade: int) -> np.ndarray:
    return np.geomspace(lower, upper, 2 + int(per_decade * np.log10(upper / lower)))


def minimiser(function: Callable[[float], float], grid: np.ndarray, values: np.ndarray) -> float:
    """The minimiser near the best point of a grid, by golden section in log; an end of the grid if it is best."""
    k = int(np.argmin(values))
    if k in (0, grid.size - 1):
        return float(grid[k])
    found = minimize_scalar(lambda logarithm: function(np.exp(logarithm)), bounds=tuple(np.log(grid[[k - 1, k + 1]])),
                            method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x) if found.fun < values[k] else grid[k])


def largest_root(excess: Callable[[float], float], grid: np.ndarray, values: np.ndarray) -> float:
    """Where ``excess`` becomes positive for good; the first point of a grid if it always is, the last one if it never is."""
    below = np.flatnonzero(values <= 0)
    if below.size == 0 or below[-1] == grid.size - 1:
        return float(grid[0 if below.size == 0 else -1])
    bracket = np.log(grid[below[-1]:below[-1] + 2])
    return float(np.exp(brentq(lambda logarithm: excess(np.exp(logarithm)), *bracket)))


def _mu(spectrum: PenaltySpectrum, rule: str, noise: float | None, tau: float, most: float) -> float:
    least, largest = spectrum.eigenvalues[[0, -1]]
    grid = log_grid(min(least, most * least) / _BEYOND, min(most * least, largest * _BEYOND), _PER_DECADE)
    if rule == "gcv":
        mu = minimiser(spectrum.gcv, grid, spectrum.gcv(grid[:, None]))
        return 0.0 if spectrum.gcv(0.0) <= spectrum.gcv(mu) else mu
    target = spectrum.rows * (tau * noise) ** 2
    mu = largest_root(lambda mu: spectrum.rss(mu) - target, grid, spectrum.rss(grid[:, None]) - target)
    return 0.0 if mu == grid[0] else mu


def penalties(problem: BlockTridiagonal, chain: Chain, start: np.ndarray | None, rule: str, noise: float | None,
              tau: float = 1.0, most: float = 1.0) -> np.ndarray:
    """What :func:`choose_mu` returns, of arguments that have been checked."""
    if chain.count == 1 or chain.overlap == 0:
        return np.zeros(chain.count)
    if start is None:
        copies = local_solutions(problem, chain)
    else:
        copies = [start[first:last] for first, last in zip(chain.first, chain.last)]
    return np.array([_mu(penalty_spectrum(problem, chain, i, copies), rule, noise, tau, most)
                     for i in range(chain.count)])


def choose_mu(problem: BlockTridiagonal, windows: int | np.ndarray, *, overlap: int = 4, rule: str = "gcv",
              noise: float | None = None, tau: float = 1.0, start: np.ndarray | None = None, most: float = 1.0) -> np.ndarray:
    r"""The weight mu by which each window should trust its neighbours' values y on the overlaps O, in one local solve.

    .. math:: x(\mu) = \arg\min_x |A_i x - c|^2 + \mu |x_O - y|^2, \qquad
              \mathrm{RSS}(\mu) = |A_i x(\mu) - c|^2, \qquad A_i x(\mu) = H(\mu) c + \mathrm{const}

    Generalised cross-validation minimises :math:`m_i \mathrm{RSS} / (m_i - \mathrm{tr} H)^2`, with m_i rows; Morozov's
    discrepancy principle solves :math:`\mathrm{RSS} = \tau^2 m_i \sigma^2`. Both are closed forms in the eigenvalues
    :math:`s_j` of the Schur complement of the overlaps, at a cost of O(L n^3 + (s n)^3) for a window of L steps.

    The limit of the Schwarz iteration does not depend on mu, and mu = 0 is fastest. Both rules judge a single local solve:
    where neighbours have good values they ask for a large mu, which would freeze an iteration; hence ``most``.

    Parameters
    ----------
    problem : BlockTridiagonal
        With its rows.
    windows : int or ndarray of int (p + 1,)
        Number of windows, or their boundaries.
    overlap : int
        Steps s that two neighbours share.
    rule : str
        ``"gcv"`` or ``"discrepancy"``.
    noise : float, optional
        Standard deviation sigma of the errors of the rows, the same for all, for ``"discrepancy"``; 1 for ``from_state_space``,
        which scales rows by their covariances.
    tau : float
        At least 1; larger values trust the neighbours more.
    start : ndarray (T, n), optional
        Values that windows see of their neighbours. By default each neighbour's own solution with zeros around it: what the
        first sweep with mu = 0 exchanges.
    most : float
        Bound on mu, as a multiple of the smallest s_j; may be infinite. Along the eigenvector of s_j a window takes the share
        mu / (s_j + mu) from its neighbours: at most half of it with 1.

    Returns
    -------
    ndarray (p,)
        mu of every window. 0 where there is no overlap, where cross-validation is best without penalty, or where the residual
        at mu = 0 exceeds the target already; the bound where no residual reaches the target. It is at most a million times
        the largest s_j, beyond which nothing changes.

    Raises
    ------
    ValueError
        If the problem has not kept its rows, they do not determine the unknowns of a window, windows do not fit, or noise is
        missing.

    References
    ----------
    L. D'Amore, "A model decomposition-in-time of recurrent neural networks: a feasibility analysis" (2025), eq. (17), squared.
    G. H. Golub, M. Heath, G. Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter" (1979).
    V. A. Morozov, "On the solution of functional equations by the method of regularization" (1966).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> y = np.sin(np.arange(40.0))[:, None]
    >>> problem = ps.leastsquares.BlockTridiagonal.from_state_space(
    ...     F=np.eye(1), Q=np.eye(1), C=np.eye(1), R=np.eye(1), y=y)
    >>> ps.leastsquares.choose_mu(problem, 2, overlap=2, rule="discrepancy", noise=0.2)
    array([0., 0.])
    """
    rule, noise, tau = check.rule(rule, noise, tau)
    chain, start, most = check.penalty(problem, windows, overlap, start, most)
    return penalties(problem, chain, start, rule, noise, tau, most)
