"""The choice of the tie between the weights of neighbouring steps, from the data alone."""

from __future__ import annotations

import numpy as np

from pitsolve.leastsquares import check_choice as check
from pitsolve.leastsquares.choice import largest_root, log_grid, minimiser
from pitsolve.leastsquares.covariance import solution_and_covariances
from pitsolve.leastsquares.problem import BlockTridiagonal

_LEAST, _MOST = 1e-4, 1e10  # times the mean square of the features; beyond, rounding would decide
_PER_DECADE = 2


class TieFit:
    """Weights that drift, as a function of their tie lam: N = Phi^T Phi + lam D^T D."""

    def __init__(self, a: np.ndarray, z: np.ndarray):
        tied = BlockTridiagonal.from_time_varying_weights(a, z, 1.0)
        self.a, self.z, self._rhs = a, z, tied.rhs
        self._features = a[:, :, None] * a[:, None, :]
        self._ties, self._off_diagonal = tied.diagonal - self._features, tied.off_diagonal

    def __call__(self, lam: float) -> tuple[float, float]:
        """RSS and tr H."""
        problem = BlockTridiagonal(self._features + lam * self._ties, lam * self._off_diagonal, self._rhs)
        weights, covariances = solution_and_covariances(problem)
        rss = (((self.a * weights).sum(axis=1) - self.z) ** 2).sum()
        return float(rss), float(((covariances @ self.a[:, :, None])[:, :, 0] * self.a).sum())

    def gcv(self, lam: float) -> float:
        """T RSS / (T - tr H)^2."""
        rss, trace = self(lam)
        return self.z.size * rss / (self.z.size - trace) ** 2


def choose_tie(a: np.ndarray, z: np.ndarray, *, rule: str = "gcv", noise: float | None = None, tau: float = 1.0,
               unbiased: bool = False) -> float:
    r"""The tie lam between neighbouring weights of :meth:`BlockTridiagonal.from_time_varying_weights`.

    .. math:: V(\lambda) = \frac{T \, \mathrm{RSS}(\lambda)}{(T - \mathrm{tr} H(\lambda))^2}, \qquad
              \mathrm{RSS} = \sum_t (a_t^T w_t - z_t)^2, \qquad \mathrm{tr} H = \sum_t a_t^T P_t a_t

    is minimised by cross-validation; P_t are the :func:`covariances` of the problem. Morozov's discrepancy principle solves
    :math:`\mathrm{RSS} = \tau^2 T \sigma^2`. Weights that drift take up part of the noise, tr H of its T degrees of freedom, so
    this target asks for too much smoothing; ``unbiased`` solves :math:`\mathrm{RSS} = \tau^2 (T - \mathrm{tr} H) \sigma^2`.

    Parameters
    ----------
    a : ndarray (T, d)
        Features.
    z : ndarray (T,)
        Targets.
    rule : str
        ``"gcv"`` or ``"discrepancy"``.
    noise : float, optional
        Standard deviation sigma of the errors of z, for ``"discrepancy"``.
    tau : float
        At least 1.
    unbiased : bool
        Whether the target of ``"discrepancy"`` leaves out the degrees of freedom of the weights.

    Returns
    -------
    float
        lam, between 1e-4 and the lesser of 100 T^2 and 1e10 times the mean square of the features. At the upper end the
        weights hardly drift, and one set of shared weights describes the data as well.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, the features do not span all dimensions, or noise is missing.

    References
    ----------
    G. H. Golub, M. Heath, G. Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter" (1979).
    V. A. Morozov, "On the solution of functional equations by the method of regularization" (1966).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> rng = np.random.default_rng(0)
    >>> drift = np.cumsum(0.1 * rng.normal(size=(200, 2)), axis=0)
    >>> a = rng.normal(size=(200, 2))
    >>> z = (a * drift).sum(axis=1) + 0.3 * rng.normal(size=200)
    >>> lam = ps.leastsquares.choose_tie(a, z)  # noise over drift: 0.3^2 / 0.1^2 = 9
    """
    rule, noise, tau = check.rule(rule, noise, tau)
    a, z, unbiased = check.tie(a, z, unbiased)
    fit, scale = TieFit(a, z), float((a ** 2).mean())
    grid = log_grid(_LEAST * scale, min(100.0 * z.size ** 2, _MOST) * scale, _PER_DECADE)
    if rule == "gcv":
        return minimiser(fit.gcv, grid, np.array([fit.gcv(lam) for lam in grid]))

    def excess(lam: float) -> float:
        rss, trace = fit(lam)
        return rss - (tau * noise) ** 2 * (z.size - trace * unbiased)

    return largest_root(excess, grid, np.array([excess(lam) for lam in grid]))
