"""The local problem of one window as a function of the penalty on its overlaps, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, eigh, solveh_banded

from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.windows import Chain


@dataclass(frozen=True, eq=False)
class PenaltySpectrum:
    r"""One window's :math:`\min |A_i x - c|^2 + \mu |x_O - y|^2` for every mu, O its overlaps.

    With the interior eliminated, :math:`S = N_{OO} - N_{OI} N_{II}^{-1} N_{IO} = V \mathrm{diag}(s) V^T` and
    :math:`\beta = V^T ((A_i^T c)_O - N_{OI} N_{II}^{-1} (A_i^T c)_I - S y)`, x_O = y + V diag(1 / (s + mu)) beta.

    Attributes
    ----------
    rows : int
        m_i, rows that touch the window.
    unknowns : int
        Of the window, at most ``rows``.
    least : float
        min |A_i x - c|^2, reached at mu = 0.
    eigenvalues, coefficients : ndarray (q,)
        s and beta.
    """

    rows: int
    unknowns: int
    least: float
    eigenvalues: np.ndarray
    coefficients: np.ndarray

    def rss(self, mu: np.ndarray) -> np.ndarray:
        r"""|A_i x(mu) - c|^2 = least + sum_j beta_j^2 / s_j (mu / (s_j + mu))^2, increasing."""
        return self.least + self._misfit(mu / (self.eigenvalues + mu))

    def trace(self, mu: np.ndarray) -> np.ndarray:
        """tr H(mu) = unknowns - sum_j mu / (s_j + mu), H the matrix from c to A_i x(mu)."""
        return self.unknowns - (mu / (self.eigenvalues + mu)).sum(axis=-1)

    def gcv(self, mu: np.ndarray) -> np.ndarray:
        """m RSS / (m - tr H)^2; as many rows as unknowns leave a common factor mu^2, which is cancelled."""
        free = self.rows - self.unknowns
        filters = (mu if free else 1.0) / (self.eigenvalues + mu)
        return self.rows * (self.least + self._misfit(filters)) / (free + filters.sum(axis=-1)) ** 2

    def _misfit(self, filters: np.ndarray) -> np.ndarray:
        return (self.coefficients ** 2 / self.eigenvalues * filters ** 2).sum(axis=-1)


def _banded(diagonal: np.ndarray, off_diagonal: np.ndarray) -> np.ndarray:
    """A block-tridiagonal matrix in the upper form of LAPACK's band storage, 2 n diagonals."""
    steps, n, _ = diagonal.shape
    band = np.zeros((2 * n, steps, n))
    for i in range(n):
        for j in range(n):
            if i <= j:
                band[2 * n - 1 + i - j, :, j] = diagonal[:, i, j]
            band[n - 1 + i - j, 1:, j] = off_diagonal[:, i, j]
    return band.reshape(2 * n, steps * n)


def _dense(diagonal: np.ndarray, off_diagonal: np.ndarray) -> np.ndarray:
    steps, n, _ = diagonal.shape
    matrix = np.zeros((steps, n, steps, n))
    for t in range(steps):
        matrix[t, :, t] = diagonal[t]
    for t in range(steps - 1):
        matrix[t, :, t + 1], matrix[t + 1, :, t] = off_diagonal[t], off_diagonal[t].T
    return matrix.reshape(steps * n, steps * n)


def local_solutions(problem: BlockTridiagonal, chain: Chain) -> list[np.ndarray]:
    """The solutions of all windows whose neighbours are zero: one sweep with mu = 0."""
    return [_solve(i, problem.diagonal[first:last], problem.off_diagonal[first:last - 1],
                   problem.rhs[first:last].reshape(-1, 1)).reshape(last - first, problem.size)
            for i, (first, last) in enumerate(zip(chain.first, chain.last))]


def _solve(window: int, diagonal: np.ndarray, off_diagonal: np.ndarray, columns: np.ndarray) -> np.ndarray:
    try:
        return solveh_banded(_banded(diagonal, off_diagonal), columns, check_finite=False)
    except LinAlgError:
        raise _deficient(window) from None


def _deficient(window: int) -> ValueError:
    return ValueError(f"window {window} has rows that do not determine its unknowns: the columns of A must be independent")


def penalty_spectrum(problem: BlockTridiagonal, chain: Chain, i: int, copies: list[np.ndarray]) -> PenaltySpectrum:
    """The spectrum of window i, given the values that its neighbours have for their windows."""
    first, last, n, s = chain.first[i], chain.last[i], problem.size, chain.overlap
    left, right = s if i > 0 else 0, s if i < chain.count - 1 else 0
    diagonal, off_diagonal = problem.diagonal[first:last], problem.off_diagonal[first:last - 1]
    begin, end = left, last - first - right  # of the interior
    before = copies[i - 1][-s - 1:] if left else np.zeros((1, n))
    after = copies[i + 1][:s + 1] if right else np.zeros((1, n))

    moments = problem.rhs[first:last].astype(np.float64)  # A_i^T c
    if left:
        moments[0] -= problem.off_diagonal[first - 1].T @ before[0]
    if right:
        moments[-1] -= problem.off_diagonal[last - 1] @ after[-1]

    # Only the block beside the interior couples to it, on either side.
    coupling = np.zeros((end - begin, n, bool(left) + bool(right), n))
    if left:
        coupling[0, :, 0] = off_diagonal[begin - 1].T
    if right:
        coupling[-1, :, -1] = off_diagonal[end - 1]
    coupling = coupling.reshape((end - begin) * n, -1)
    beside = np.arange((left - bool(left)) * n, (left + bool(right)) * n)  # where those blocks stand in x_O

    solved = _solve(i, diagonal[begin:end], off_diagonal[begin:end - 1],
                    np.column_stack([coupling, moments[begin:end].ravel()]))
    outside = np.r_[0:begin, end:last - first]
    schur = _dense(diagonal[outside], _within(off_diagonal, left, right, n))
    schur[np.ix_(beside, beside)] -= coupling.T @ solved[:, :-1]
    values = np.concatenate([before[1:], after[:-1]]).ravel()
    gradient = moments[outside].ravel() - schur @ values
    gradient[beside] -= coupling.T @ solved[:, -1]
    eigenvalues, vectors = eigh(schur, check_finite=False)
    if eigenvalues[0] <= eigenvalues[-1] * eigenvalues.size * np.finfo(float).eps:
        raise _deficient(i)
    coefficients = vectors.T @ gradient

    x = np.empty((last - first, n))
    overlaps = values + vectors @ (coefficients / eigenvalues)
    x[outside] = overlaps.reshape(-1, n)
    x[begin:end] = (solved[:, -1] - solved[:, :-1] @ overlaps[beside]).reshape(-1, n)
    rows, least = _residual(problem, first, last, np.concatenate([before[:1], x, after[-1:]]))
    if rows < x.size:
        raise _deficient(i)
    return PenaltySpectrum(rows, x.size, least, eigenvalues, coefficients)


def _within(off_diagonal: np.ndarray, left: int, right: int, n: int) -> np.ndarray:
    """Couplings inside the two overlaps; the interior parts them."""
    parts = [off_diagonal[:max(left - 1, 0)], np.zeros((1 if left and right else 0, n, n))]
    return np.concatenate([*parts, off_diagonal[off_diagonal.shape[0] - max(right - 1, 0):]])


def _residual(problem: BlockTridiagonal, first: int, last: int, x: np.ndarray) -> tuple[int, float]:
    """How many rows touch the steps [first, last), and the sum of their squared residuals; x has one step more at each end."""
    stop = min(last + 1, problem.steps)
    rows, targets = problem.rows[first:stop].astype(np.float64), problem.targets[first:stop]
    touches = rows.any(axis=3)
    touches[0, :, 0] = False
    if stop > last:
        touches[-1, :, 1] = False
    touching = touches.any(axis=2)
    residual = targets - np.einsum("trn,tn->tr", rows[:, :, 0], x[:stop - first]) \
        - np.einsum("trn,tn->tr", rows[:, :, 1], x[1:stop - first + 1])
    return int(touching.sum()), float((residual[touching] ** 2).sum())
