"""Checks of what the smoother takes beside a cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from pitsolve import check
from pitsolve.leastsquares import check_problem
from pitsolve.methods.problem import Problem


def one_sequence(name: str, batched: bool) -> None:
    """A single sequence, not a batch."""
    if batched:
        raise ValueError(f"{name} must be one sequence (T, m), a batch is smoothed sequence by sequence")


def noise(problem: Problem, C: Any, Q: Any, R: Any, y: Any, observed: Any) -> tuple[np.ndarray, ...]:
    """C, Q, R, y and where y was observed; matrices are one or one a step, missing observations zero."""
    n, dtype = problem.h0.shape[1], problem.h0.dtype
    y = check.float_array("y", y, (2,), finite=False)
    check.same_dtype({"params and x": problem.h0, "y": y})
    check.shape("y", y, (problem.steps, y.shape[1]), "for the steps of x")
    _, Q, C, R, y, _, observed = check_problem.state_space(np.zeros((n, n), dtype), Q, C, R, y, None, observed)
    for name, covariances in (("Q", Q), ("R", R)):
        bad = np.flatnonzero(np.linalg.eigvalsh(covariances)[:, 0] <= 0)
        check_problem.positive_definite({name: bad[0] if bad.size else -1})
    return C, Q, R, np.where(observed, y, 0), observed
