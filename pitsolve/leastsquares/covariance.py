"""Covariances of the solution of a least-squares problem in time."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu.tridiagonal_covariance import diagonal_of_inverse
from pitsolve.leastsquares import check_choice as check
from pitsolve.leastsquares.iteration import Options, Schwarz
from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.windows import Chain


def solution_and_covariances(problem: BlockTridiagonal) -> tuple[np.ndarray, np.ndarray]:
    """g (T, n) and the diagonal blocks of N^-1, from one factorisation."""
    direct = Schwarz(problem, Chain(np.array([0, problem.steps]), 0), Options())
    direct.sweep()
    return direct.merge(), diagonal_of_inverse(direct.windows.gains, direct.windows.inverses)


def covariances(problem: BlockTridiagonal) -> np.ndarray:
    r"""The diagonal blocks of :math:`N^{-1}`: covariances of every g_t given all observations.

    .. math:: P_T = S_T^{-1}, \qquad P_t = S_t^{-1} + B_{t+1}^T P_{t+1} B_{t+1},

    with the pivots :math:`S_t = N_{tt} - B_t N_{t-1,t}` and gains :math:`B_t = N_{t,t-1} S_{t-1}^{-1}` of the block LDL^T
    factorisation; O(T n^3) operations, one step after the other. For ``from_state_space`` they are the covariances of the
    Rauch-Tung-Striebel smoother.

    Parameters
    ----------
    problem : BlockTridiagonal
        N.

    Returns
    -------
    ndarray (T, n, n)

    Raises
    ------
    ValueError
        If N is not positive definite.

    References
    ----------
    H. E. Rauch, F. Tung, C. T. Striebel, "Maximum likelihood estimates of linear dynamic systems" (1965), AIAA Journal 3.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> problem = ps.leastsquares.BlockTridiagonal.from_state_space(
    ...     F=np.eye(1), Q=np.eye(1), C=np.eye(1), R=np.eye(1), y=np.ones((2, 1)))
    >>> ps.leastsquares.covariances(problem)[:, 0, 0]  # the inverse of [[3, -1], [-1, 2]]
    array([0.4, 0.6])
    """
    check.problem(problem)
    return solution_and_covariances(problem)[1]
