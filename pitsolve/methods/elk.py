"""ELK: Newton's method in a trust region, as a Kalman filter over time (evaluating Levenberg-Marquardt via Kalman).

The iteration minimises sum_t |s_t - (J_t s_{t-1} + b_t)|^2 + |s - h|^2 / sigma^2 forwards in time: the current states h are
pseudo-observations of the linearised dynamics with variance sigma^2. sigma^2 -> infinity is Newton's method.
"""

from __future__ import annotations

import numpy as np

from pitsolve.methods.iteration import Outcome, iterate
from pitsolve.methods.problem import Problem

_GROWTH = 10.0  # of sigma^2 after an iteration that lowered the residual; its inverse after one that did not
_LEAST = 1e-2


def _filtered(problem: Problem, states: np.ndarray, order: int, trust: float, **controls) -> Outcome:
    model, backend = problem.model, problem.backend
    arrays = backend.arrays
    batch, (heads, m) = problem.h0.shape[0], model.cell.blocks
    shape = problem.h0.shape if order == model.DIAGONAL else (batch, heads, m, m)
    sigma_squared = np.full(batch, trust, problem.h0.dtype)
    most = 1.0 / np.finfo(problem.h0.dtype).eps
    last_norms = np.full(batch, np.inf)

    def adapt(norms: np.ndarray) -> None:
        nonlocal sigma_squared, last_norms
        changed = np.where(norms < last_norms, sigma_squared * _GROWTH, sigma_squared / _GROWTH)
        sigma_squared, last_norms = np.clip(changed, _LEAST, most), norms

    def correct(defect, jacobian, begin, start, stop, carry):
        length = defect.shape[1]
        change, covariance = carry or tuple(arrays.zeros(size, problem.h0.dtype) for size in (problem.h0.shape, shape))
        first, last = np.clip(start - begin, 0, length), np.clip(stop - begin, 0, length)
        backend.gains(jacobian, defect, covariance, sigma_squared, first, last)
        backend.scan(jacobian, defect, change, defect, first, last)
        return defect, (arrays.at_step(defect, length - 1), covariance)

    return iterate(problem, states, correct, order=order, quadratic=False, observe=adapt, **controls)


def elk(problem: Problem, states: np.ndarray, *, trust: float = 1e4, **controls) -> Outcome:
    """Newton's method with a trust region, improving ``states`` in place.

    Parameters
    ----------
    trust : float
        First sigma^2. Each sequence multiplies its own by 10 after an iteration that lowered its residual and divides it
        by 10 after one that did not, so that a good start ends in Newton's method.

    References
    ----------
    Gonzalez, Warrington, Smith and Linderman, "Towards scalable and stable parallelization of nonlinear RNNs",
    NeurIPS 2024, section 4.2; like the authors' code it uses the filter, not the smoother. The adaptation is ours.
    """
    return _filtered(problem, states, problem.model.BLOCKS, trust, **controls)


def quasi_elk(problem: Problem, states: np.ndarray, *, trust: float = 1e4, **controls) -> Outcome:
    """The same with the diagonal of J_t only: one scalar filter a component.

    References
    ----------
    As :func:`elk`, section 4.3.
    """
    return _filtered(problem, states, problem.model.DIAGONAL, trust, **controls)
