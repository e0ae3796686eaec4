"""Least-squares problems whose rows touch at most two consecutive time steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pitsolve.backends.cpu.row_equations import normal_equations, state_space_rows
from pitsolve.leastsquares import check_problem as check


@dataclass(frozen=True, eq=False)
class BlockTridiagonal:
    r"""The normal equations of a least-squares problem in time, :math:`N g = f` with g = (g_1, ..., g_T).

    .. math:: \min_g \tfrac12 \|A g - z\|^2, \qquad N = A^T A, \quad f = A^T z

    Every row of A touches at most two consecutive blocks g_{t-1}, g_t of n unknowns, so N is block tridiagonal.

    Parameters
    ----------
    diagonal : ndarray (T, n, n)
        N_tt, symmetric; float32 or float64.
    off_diagonal : ndarray (T - 1, n, n)
        N_{t,t+1}.
    rhs : ndarray (T, n)
        f_t.
    rows : ndarray (T, r, 2, n), optional
        The rows that end at time t: their coefficients on g_{t-1} and on g_t. Those on g_0 are not read. Rows of zeros do not
        count. The choices of mu need them, the solvers do not.
    targets : ndarray (T, r), optional
        z, row by row.

    Raises
    ------
    ValueError
        If shapes do not fit, a diagonal block is not symmetric, or a value is not finite.

    References
    ----------
    L. D'Amore, "A model decomposition-in-time of recurrent neural networks: a feasibility analysis" (2025), eqs. (5)-(6),
    squared.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> problem = ps.leastsquares.BlockTridiagonal.from_state_space(
    ...     F=np.eye(1), Q=np.eye(1), C=np.eye(1), R=np.eye(1), y=np.ones((4, 1)))
    >>> problem.diagonal[:, 0, 0]
    array([3., 3., 3., 2.])
    """

    diagonal: np.ndarray = field(repr=False)
    off_diagonal: np.ndarray = field(repr=False)
    rhs: np.ndarray = field(repr=False)
    rows: np.ndarray | None = field(default=None, repr=False)
    targets: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value in check.block_tridiagonal(self).items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"BlockTridiagonal: {self.steps} steps of {self.size} unknowns, {self.rhs.dtype}"

    @property
    def steps(self) -> int:
        """T."""
        return self.rhs.shape[0]

    @property
    def size(self) -> int:
        """n."""
        return self.rhs.shape[1]

    @classmethod
    def from_rows(cls, A: object, z: np.ndarray, *, size: int | None = None) -> BlockTridiagonal:
        """The problem min |A g - z|^2.

        Parameters
        ----------
        A : ndarray (T, r, 2, n), or 2-D array or SciPy sparse matrix (q, T n)
            Rows grouped by the time at which they end: coefficients on g_{t-1} and g_t. Or the matrix itself, with ``size``.
        z : ndarray (T, r) or (q,)
            Targets.
        size : int, optional
            n, for a matrix; each of its rows may touch two consecutive blocks of so many columns.

        Returns
        -------
        BlockTridiagonal

        Raises
        ------
        ValueError
            If a row touches more than two consecutive blocks, or there are fewer rows than unknowns.

        Examples
        --------
        >>> import numpy as np, pitsolve as ps
        >>> A = np.array([[2.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
        >>> ps.leastsquares.BlockTridiagonal.from_rows(A, np.ones(3), size=1)
        BlockTridiagonal: 3 steps of 1 unknowns, float64
        """
        rows, targets = check.rows(A, z, size)
        return cls(*normal_equations(rows, targets), rows, targets)

    @classmethod
    def from_state_space(cls, F: np.ndarray, Q: np.ndarray, C: np.ndarray, R: np.ndarray, y: np.ndarray,
                         b: np.ndarray | None = None, *, observed: np.ndarray | None = None) -> BlockTridiagonal:
        r"""The smoother of a linear state-space model with noise in its dynamics (weak-constraint 4D-Var).

        .. math:: g_1 \sim N(b_1, Q_1), \qquad g_t = F_t g_{t-1} + b_t + N(0, Q_t), \qquad y_t = C_t g_t + N(0, R_t)

        Parameters
        ----------
        F : ndarray (n, n) or (T, n, n)
            Dynamics; the first of T is not read.
        Q : ndarray (n, n) or (T, n, n)
            Covariance of g_1 and, after it, of the noise of the dynamics; symmetric positive definite.
        C : ndarray (k, n) or (T, k, n)
            Observation.
        R : ndarray (k, k) or (T, k, k)
            Covariance of the noise of the observations; symmetric positive definite.
        y : ndarray (T, k)
            Observations.
        b : ndarray (n,) or (T, n), optional
            Mean of g_1 and, after it, drift; zero by default.
        observed : ndarray of bool (T,) or (T, k), optional
            Where y was observed. What was not may be anything, NaN too.

        Returns
        -------
        BlockTridiagonal
            Its solution is the mean of the states given all observations.

        Raises
        ------
        ValueError
            If shapes do not fit, a value is not finite, or a covariance is not positive definite; the message names the step.

        Examples
        --------
        >>> import numpy as np, pitsolve as ps
        >>> y = np.array([[1.0], [np.nan], [2.0]])
        >>> ps.leastsquares.BlockTridiagonal.from_state_space(
        ...     np.eye(1), np.eye(1), np.eye(1), np.eye(1), y, observed=~np.isnan(y))
        BlockTridiagonal: 3 steps of 1 unknowns, float64
        """
        rows, targets, failed = state_space_rows(*check.state_space(F, Q, C, R, y, b, observed))
        check.positive_definite({"Q": failed[0], "R": failed[1]})
        return cls(*normal_equations(rows, targets), rows, targets)

    @classmethod
    def from_time_varying_weights(cls, a: np.ndarray, z: np.ndarray, lam: float) -> BlockTridiagonal:
        r"""A linear readout whose weights drift in time, the reading of D'Amore's eq. (4) in which g has one block a step.

        .. math:: \min_w \sum_t (a_t^T w_t - z_t)^2 + \lambda \sum_{t>1} |w_t - w_{t-1}|^2

        Parameters
        ----------
        a : ndarray (T, d)
            Features, for example (x_t, h_{t-1}, 1); together they must span all d dimensions.
        z : ndarray (T,)
            Targets.
        lam : float
            Tie between neighbouring weights, positive; large values share the weights over all time, and windows then
            need many iterations. :func:`pitsolve.leastsquares.choose_tie` chooses it.

        Returns
        -------
        BlockTridiagonal

        Raises
        ------
        ValueError
            If shapes do not fit, a value is not finite, lam is not positive, or the features do not span all dimensions.

        Examples
        --------
        >>> import numpy as np, pitsolve as ps
        >>> a = np.random.default_rng(0).normal(size=(50, 3))
        >>> ps.leastsquares.BlockTridiagonal.from_time_varying_weights(a, a[:, 0], lam=10.0)
        BlockTridiagonal: 50 steps of 3 unknowns, float64
        """
        a, z, lam = check.weights(a, z, lam)
        steps, d = a.shape
        rows, targets = np.zeros((steps, 1 + d, 2, d), a.dtype), np.zeros((steps, 1 + d), a.dtype)
        rows[:, 0, 1], targets[:, 0] = a, z
        tie = np.sqrt(lam) * np.eye(d, dtype=a.dtype)
        rows[1:, 1:, 0], rows[1:, 1:, 1] = -tie, tie
        return cls.from_rows(rows, targets)

    def residual(self, g: np.ndarray) -> np.ndarray:
        """f - N g (T, n), zero at the solution."""
        r = self.rhs - (self.diagonal @ g[:, :, None])[:, :, 0]
        r[:-1] -= (self.off_diagonal @ g[1:, :, None])[:, :, 0]
        r[1:] -= (self.off_diagonal.transpose(0, 2, 1) @ g[:-1, :, None])[:, :, 0]
        return r
