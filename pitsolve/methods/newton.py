"""DEER: Newton's method whose linear systems are prefix scans, and its quasi-Newton form with the diagonal of the Jacobian.

One iteration, at all t at once, with r_t = h_t - f(h_{t-1}, x_t) and J_t = df/dh (h_{t-1}, x_t):

    change_t = J_t change_{t-1} - r_t,   change_0 = 0;      h_t <- h_t + change_t.

This is the paper's h_t = J_t h_{t-1} + (f - J_t h_{t-1}) written for the correction, which loses no digits to the size of h.
"""

from __future__ import annotations

import numpy as np

from pitsolve.methods.iteration import Outcome, iterate
from pitsolve.methods.problem import Problem


def _newton(problem: Problem, states: np.ndarray, order: int, damping: float, **controls) -> Outcome:
    backend = problem.backend
    arrays = backend.arrays

    def correct(defect, jacobian, begin, start, stop, carry):
        length = defect.shape[1]
        if carry is None:
            carry = arrays.zeros(problem.h0.shape, problem.h0.dtype)
        if damping:
            arrays.scale(jacobian, 1.0 - damping)
        backend.scan(jacobian, defect, carry, defect, np.clip(start - begin, 0, length), np.clip(stop - begin, 0, length))
        return defect, arrays.at_step(defect, length - 1)

    fused = backend.fused_newton(problem.model, order, damping, problem.x, problem.h0, states, problem.stop,
                                 controls["max_memory"])
    return iterate(problem, states, correct, order=order, fused=fused, **controls)


def deer(problem: Problem, states: np.ndarray, *, damping: float = 0.0, **controls) -> Outcome:
    """Newton's method over the prefix scan, improving ``states`` in place.

    Parameters
    ----------
    damping : float in [0, 1]
        Multiplies the Jacobian by 1 - damping: 0 is Newton's method, 1 is the Picard iteration.

    References
    ----------
    Lim, Zhu, Selfridge and Kasim, "Parallelizing non-linear sequential models over the sequence length", ICLR 2024, eqs. 3-6;
    the repair of NaN and infinity is that of the slides (Kasim 2024, "Handling drawback #1").
    """
    return _newton(problem, states, problem.model.BLOCKS, damping, quadratic=not damping, **controls)


def quasi_deer(problem: Problem, states: np.ndarray, *, damping: float = 0.0, **controls) -> Outcome:
    """The same with the diagonal of J_t only: elementwise scans, linear convergence, memory O(T n).

    References
    ----------
    Gonzalez, Warrington, Smith and Linderman, "Towards scalable and stable parallelization of nonlinear RNNs",
    NeurIPS 2024, section 4.1 and Proposition 1.
    """
    return _newton(problem, states, problem.model.DIAGONAL, damping, quadratic=False, **controls)
