"""Checks of the arguments of schwarz_lstsq."""

from __future__ import annotations

from typing import Any

import numpy as np

from pitsolve import check
from pitsolve.check import choice as choice
from pitsolve.leastsquares.check_choice import problem as problem
from pitsolve.leastsquares.check_choice import rule as rule
from pitsolve.leastsquares.check_choice import with_rows as with_rows
from pitsolve.leastsquares.check_problem import chain as chain
from pitsolve.leastsquares.iteration import Options
from pitsolve.leastsquares.windows import Chain


def options(problem: Any, chain: Chain, formulation: Any, mode: Any, mu: Any, transmission: Any, sweeps: Any, accel: Any
            ) -> Options:
    """The variant of the Schwarz iteration, if it is one that can work."""
    split = choice("formulation", formulation, ("complement", "split")) == "split"
    choice("mode", mode, ("additive", "multiplicative", "oddeven"))
    schur = choice("transmission", transmission, ("dirichlet", "schur")) == "schur"
    if mu is None:
        mu = 0.4 * float(np.median(np.diagonal(problem.diagonal, axis1=1, axis2=2))) if split else 0.0
    elif not (check.is_number(mu) and 0 <= mu < np.inf):
        raise ValueError(f"mu must be a finite number of at least 0, got {mu!r}")
    if split and mu == 0:
        raise ValueError("mu must be positive with formulation='split': without it two copies share an overlap in any way")
    if split and schur:
        raise ValueError("transmission='schur' is for formulation='complement', where a window sees values from beyond its end")
    if schur and chain.overlap == 0:
        raise ValueError("transmission='schur' needs an overlap of at least 1, got 0")
    if sweeps is not None and not schur:
        raise ValueError(f"sweeps is for transmission='schur', got sweeps={sweeps!r} with {transmission!r}")
    if accel is not None:
        choice("accel", accel, ("cg",))
        if split or mu > 0 or mode != "additive":
            raise ValueError("accel='cg' takes formulation='complement', mode='additive' and mu=0: a symmetric preconditioner")
    sweeps = (1 if sweeps is None else check.count("sweeps", sweeps)) if schur else 0
    return Options(split, mode, float(mu), sweeps)


def limits(problem: Any, tol: Any, max_iter: Any, x0: Any) -> tuple[float, int, np.ndarray]:
    """Tolerance, most iterations and start."""
    dtype = problem.rhs.dtype
    tol = (1e-10 if dtype == np.float64 else 1e-5) if tol is None else check.positive("tol", tol)
    if x0 is None:
        return tol, check.count("max_iter", max_iter), np.zeros_like(problem.rhs)
    x0 = check.float_array("x0", x0, (2,))
    check.shape("x0", x0, problem.rhs.shape, "like the right side of the problem")
    check.same_dtype({"x0": x0, "problem.rhs": problem.rhs})
    return tol, check.count("max_iter", max_iter), x0
