"""Checks of what chooses parameters of least-squares problems: mu, the tie, the boundaries of windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from pitsolve import check
from pitsolve.leastsquares.check_problem import chain, weights
from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.windows import Chain

RULES = ("gcv", "discrepancy")


def _vector(name: str, value: Any) -> np.ndarray:
    """A finite vector of numbers, whole ones too, as float64."""
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    return check.float_array(name, array, (1,)).astype(np.float64)


def _cost(value: Any) -> np.ndarray:
    cost = _vector("cost", value)
    for t in np.flatnonzero(cost < 0)[:1]:
        raise ValueError(f"cost must not be negative, got {cost[t]} at step {t}")
    if not cost.any():
        raise ValueError("cost must be positive at one step at least; add a constant for the dynamics")
    return cost


def balance(cost: Any, windows: Any, overlap: Any) -> tuple[np.ndarray, int, int]:
    """Costs of steps that have room for so many windows."""
    cost, windows = _cost(cost), check.count("windows", windows)
    chain(windows, overlap, cost.size)
    return cost, windows, int(overlap)


def loads(cost: Any, windows: Any, overlap: Any) -> tuple[np.ndarray, Chain]:
    """Costs of steps, and windows of them."""
    cost = _cost(cost)
    return cost, chain(windows, overlap, cost.size)


def calibrate(cost: Any, windows: Any, seconds: Any, overlap: Any) -> tuple[np.ndarray, Chain, np.ndarray]:
    """Positive costs, windows and their positive times."""
    cost, windows = loads(cost, windows, overlap)
    seconds = _vector("seconds", seconds)
    check.shape("seconds", seconds, (windows.count,), "for the windows")
    for name, array in (("cost", cost), ("seconds", seconds)):
        for i in np.flatnonzero(array <= 0)[:1]:
            raise ValueError(f"{name} must be positive, got {array[i]} at index {i}")
    return cost, windows, seconds


def loads_of_windows(value: Any) -> np.ndarray:
    """Loads of one window at least."""
    array = _vector("loads", value)
    if array.size == 0:
        raise ValueError("loads must hold one window at least, got none")
    return array


def rule(name: Any, noise: Any, tau: Any, argument: str = "rule") -> tuple[str, float | None, float]:
    """A rule of choice; the discrepancy principle needs the noise."""
    check.choice(argument, name, RULES)
    if noise is not None:
        noise = check.positive("noise", noise)
    elif name == "discrepancy":
        raise ValueError("noise must be given for rule='discrepancy': the standard deviation of the errors of the rows; "
                         "rule='gcv' needs none")
    tau = check.positive("tau", tau)
    if tau < 1:
        raise ValueError(f"tau must be at least 1, got {tau}")
    return name, noise, tau


def problem(value: Any) -> BlockTridiagonal:
    """A problem, not the matrix of one."""
    if not isinstance(value, BlockTridiagonal):
        raise TypeError("problem must be a pitsolve.leastsquares.BlockTridiagonal, for example .from_rows(A, z), "
                        f"got {check.describe(value)}")
    return value


def with_rows(value: Any) -> BlockTridiagonal:
    if problem(value).rows is None:
        raise ValueError("problem must have its rows and targets, the normal equations do not tell the residual; "
                         "BlockTridiagonal.from_rows, from_state_space and from_time_varying_weights keep them")
    return value


def penalty(problem: Any, windows: Any, overlap: Any, start: Any, most: Any) -> tuple[Chain, np.ndarray | None, float]:
    """Windows of a problem with rows, values of its unknowns, and a bound on mu that may be infinite."""
    windows = chain(windows, overlap, with_rows(problem).steps)
    if start is not None:
        start = check.float_array("start", start, (2,))
        check.shape("start", start, problem.rhs.shape, "for problem")
    return windows, start, most if most == np.inf else check.positive("most", most)


def tie(a: Any, z: Any, unbiased: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Features and targets, as float64, more steps than features; a flag."""
    a, z, _ = weights(a, z, 1.0)
    if a.shape[0] <= a.shape[1]:
        raise ValueError(f"a must have more steps than features, got shape {a.shape}: without a tie the residual is zero")
    return a.astype(np.float64), z.astype(np.float64), check.flag("unbiased", unbiased)
