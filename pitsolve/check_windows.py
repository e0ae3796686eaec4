"""Checks of the options of ``shooting``, ``mgrit`` and ``parareal``, and what they default to."""

from __future__ import annotations

import functools
import re

import numpy as np

from pitsolve import check
from pitsolve.methods.problem import Problem
from pitsolve.methods.shooting import CORRECTIONS


def _ratio(name: str, value: object) -> int:
    """A coarsening factor."""
    if check.count(name, value) < 2:
        raise ValueError(f"{name} must be at least 2 (one step for one step is no coarsening), got {value}")
    return int(value)


def _coarsening(name: str, value: object) -> int | tuple[int, ...]:
    """One factor, or one for each pair of levels."""
    if isinstance(value, (tuple, list)):
        return tuple(_ratio(f"{name}[{i}]", item) for i, item in enumerate(value))
    return _ratio(name, value)


def _sweeps(name: str, value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch("F(CF)*", value):
        raise ValueError(f"{name} must be 'F', 'FCF', 'FCFCF' and so on, got {value!r}")
    return value.count("C")


def _relaxation(name: str, value: object) -> int | tuple[int, ...]:
    """The k of (FC)^k F, or one for each level but the coarsest."""
    if isinstance(value, (tuple, list)):
        return tuple(_sweeps(f"{name}[{i}]", item) for i, item in enumerate(value))
    return _sweeps(name, value)


def _cycle(name: str, value: object) -> str:
    return check.choice(name, value, ("V", "F"))


def _weight(name: str, value: object) -> float:
    """Between 0 and 2, where weighted relaxation can converge."""
    if not check.positive(name, value) < 2:
        raise ValueError(f"{name} must be below 2, got {value!r}")
    return float(value)


GRIDS = {"levels": check.count, "coarsening": _coarsening, "cycle": _cycle, "relaxation": _relaxation, "nested": check.flag,
         "weight": _weight, "skip_first": check.flag}
MGRIT = {**GRIDS, "relative": check.flag}
ADJOINT = {**GRIDS, "cycles": check.count, "tol": check.positive}
PARAREAL = {"window": _ratio}
GRADIENT = {"mgrit": ADJOINT, "shooting": {"window": check.count, "tol": check.positive}}
SHOOTING = {"window": check.count, "overlap": check.length, "correction": functools.partial(check.choice, valid=CORRECTIONS)}


def settle_shooting(problem: Problem, options: dict, guess: object) -> dict:
    """Whether the states hold a guess, beside the options."""
    return {**options, "guessed": guess is not None}


def coarsens(problem: Problem) -> None:
    """A TypeError, from the cell, unless it has a coarse form."""
    problem.model.cell.coarsened(problem.params, 2)


def settle_mgrit(problem: Problem, options: dict, guess: object = None) -> dict:
    """Options that fit each other and the cell; ``nested`` is on unless there is another start."""
    coarsens(problem)
    levels = options.get("levels", 3)
    for name in ("coarsening", "relaxation"):
        if isinstance(options.get(name), tuple) and len(options[name]) != levels - 1:
            raise ValueError(f"{name} must have one entry for each level but the coarsest, {levels - 1} for levels = {levels}, "
                             f"got {len(options[name])}")
    skip_first = options.get("skip_first", False)
    if guess is not None and (options.get("nested") or skip_first):
        raise ValueError("guess is not used with nested=True or skip_first=True, which start from the coarsest grid")
    if skip_first and options.get("nested"):
        raise ValueError("nested=True and skip_first=True are two ways to start; choose one")
    return {**options, "nested": options.get("nested", guess is None and not skip_first)}


def settle_parareal(problem: Problem, options: dict, guess: object) -> dict:
    """The same for parareal; the window is by default the square root of the length, as many windows as steps in each."""
    coarsens(problem)
    if guess is not None:
        raise ValueError("guess is not used by method 'parareal', which starts from its coarse propagator")
    return {"window": max(2, int(np.ceil(np.sqrt(problem.stop.max(initial=0))))), **options}


def settle_adjoint(problem: Problem, options: dict) -> dict:
    """Options of the adjoint: a tolerance or a number of cycles."""
    if "tol" in options and "cycles" in options:
        raise ValueError("tol and cycles are two ways to end the adjoint iteration; choose one")
    tol = 16.0 * float(np.finfo(problem.h0.dtype).eps)
    return {"tol": tol, **settle_mgrit(problem, options)}


def _per_entry(problem: Problem, window: int) -> float:
    """16 units of rounding for each number at the C-points of the longest sequence, in the 2-norm."""
    points = max(1, int(problem.stop.max(initial=0)) // window)
    return 16.0 * float(np.finfo(problem.h0.dtype).eps) * float(np.sqrt(points * problem.h0.shape[1]))


def mgrit_tolerance(problem: Problem, options: dict) -> float:
    """Per number at a C-point of level 0; with ``relative`` one unit of that."""
    if options.get("relative"):
        return _per_entry(problem, problem.steps or 1)
    coarsening = options.get("coarsening", 4)
    return _per_entry(problem, coarsening if isinstance(coarsening, int) else min(coarsening, default=1))


def parareal_tolerance(problem: Problem, options: dict) -> float:
    """Per number at the boundary of a window."""
    return _per_entry(problem, options["window"])
