"""The Picard iteration: h_t <- f(h_{t-1}, x_t) at all t at once; the approximate inverse is the identity."""

from __future__ import annotations

import numpy as np

from pitsolve.methods.iteration import Outcome, iterate
from pitsolve.methods.problem import Problem


def picard(problem: Problem, states: np.ndarray, **controls) -> Outcome:
    """Fixed-point iteration, improving ``states`` in place.

    Each iteration makes one more step exact; a model that forgets its past within k steps converges in about k.

    References
    ----------
    Kasim (2024), DEER slides, "Multi-shoot algorithm with Picard iteration"; elsewhere called Jacobi iteration.
    """

    def correct(defect, jacobian, begin, start, stop, carry):
        return defect, None

    return iterate(problem, states, correct, order=problem.model.VALUE, quadratic=False, **controls)
