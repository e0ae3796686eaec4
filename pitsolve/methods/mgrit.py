"""Multigrid reduction in time (MGRIT): the full approximation scheme on a hierarchy of time grids.

On every level the equation is A_l(u)_i = u_i - Phi_l(u_{i-1}) = g_i. One cycle: relax, restrict, solve on the coarser grid by
the same cycle, correct, relax. The forward and the adjoint equation differ in Phi alone (methods/hierarchy.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pitsolve.methods.hierarchy import Level, adjoint_hierarchy, coarsenings, forward_hierarchy
from pitsolve.methods.iteration import Outcome
from pitsolve.methods.problem import Problem
from pitsolve.work import Stage

MAX_CYCLES = 100
_SLOWEST = 0.99  # reduction factors above are not told from stagnation


def _relax(level: Level, sweeps: int, weight: float) -> None:
    """(FC)^k F relaxation of a level whose F-points have been relaxed."""
    for _ in range(sweeps):
        level.relax_c(weight)
        level.relax_f()


def _restrict(fine: Level, coarse: Level) -> None:
    """Injection v of the C-points, and the source of the full approximation scheme.

    g_k = r_k + v_k - Phi_c(v_{k-1}) with the residual r_k = (fine step into C-point k) - v_k, so that v_k cancels.
    """
    arrays = fine.arrays
    fine.inject(coarse)
    if coarse.g is None:
        coarse.g = arrays.zeros(coarse.u.shape, coarse.u.dtype)
    arrays.put(coarse.g, coarse.every.row, coarse.every.exit, fine.ends, fine.windows.whole, coarse.each_step())


def _cycle(levels: list[Level], number: int, kind: str, sweeps: tuple[int, ...], weight: float, relaxed: bool) -> None:
    """One V- or F-cycle from a level downwards; it leaves the F-points relaxed."""
    level = levels[number]
    if number == len(levels) - 1:
        level.solve()
        return
    coarse = levels[number + 1]
    if not relaxed:
        level.relax_f()
    _relax(level, sweeps[number], weight)
    _restrict(level, coarse)
    _cycle(levels, number + 1, kind, sweeps, weight, relaxed=False)
    level.receive(coarse)  # v_k + (u_k - v_k): as C-points are injected, these are the values of the coarse grid
    level.relax_f()
    if kind == "F" and number > 0:
        _cycle(levels, number, "V", sweeps, weight, relaxed=True)


def _from_coarsest(levels: list[Level], sweeps: tuple[int, ...], weight: float, cycles: bool) -> None:
    """Solve on the coarsest grid and walk up, with one V-cycle on each level between (nested iteration) or without."""
    for level in levels[1:]:
        level.forcing()
    levels[-1].solve()
    for number in reversed(range(len(levels) - 1)):
        levels[number].receive(levels[number + 1])
        if cycles and number > 0:
            _cycle(levels, number, "V", sweeps, weight, relaxed=False)
        else:
            levels[number].relax_f()


@dataclass
class _History:
    """Residual norms and changes of each cycle, per sequence, and which sequences are being worked on."""

    residuals: list[np.ndarray]
    changes: list[np.ndarray]
    sizes: list[np.ndarray]
    cycles: np.ndarray
    active: np.ndarray

    def add(self, residual: np.ndarray, change: np.ndarray, size: np.ndarray) -> None:
        """The norms after one more cycle; a sequence that has been dropped keeps its last ones."""
        self.cycles += self.active
        self.residuals.append(np.where(self.active, residual, self.residuals[-1]))
        self.changes.append(np.where(self.active, change, 0.0))
        self.sizes.append(np.where(self.active, size, self.sizes[-1] if self.sizes else 0.0))


def _iterate(levels: list[Level], *, cycle: str, sweeps: tuple[int, ...], weight: float, nested: bool, skip_first: bool,
             max_iter: int, done: Callable[[_History], np.ndarray],
             leave: Callable[[_History, np.ndarray], None]) -> _History:
    """Cycles until ``done(history)``, each sequence for itself, has them all; finite termination at the latest.

    ``leave(history, rows)`` sees which sequences are about to be dropped, while the levels still hold their residuals.
    """
    top, batch = levels[0], levels[0].stop.size
    history = _History([], [], [], np.zeros(batch, np.int64), np.ones(batch, bool))
    if len(levels) == 1:
        top.solve()
        history.residuals.append(np.zeros(batch))
        history.active[:] = False
        return history
    if nested:
        _from_coarsest(levels, sweeps, weight, cycles=True)
    elif skip_first:
        history.residuals.append(np.full(batch, np.nan))
    else:
        top.relax_f()
    if not skip_first:
        history.residuals.append(top.norms(top.squared_residual()))
    # Beyond the exact ones, the correction of a cycle makes one more C-point exact, and so does each full C-relaxation.
    exact = sweeps[0] + 1 if weight == 1.0 else 1
    most = np.minimum(max_iter, -(-(top.stop // top.coarsening) // exact) + skip_first)

    def drop() -> None:
        still = history.active & ~done(history) & (history.cycles < most)
        if history.cycles.any() or not skip_first:
            still &= np.isfinite(history.residuals[-1])
        if (still != history.active).any():
            leave(history, history.active & ~still)
            history.active = still
            kept = top.ends, top.windows
            for level in levels:
                level.restrict_to(still)
            if kept[0] is not None:
                top.ends = top.arrays.rows(kept[0], np.flatnonzero(still[kept[1].row]))

    drop()
    while history.active.any():
        before = top.c_points
        if skip_first and not history.cycles.any():
            _from_coarsest(levels, sweeps, weight, cycles=False)
        else:
            _cycle(levels, 0, cycle, sweeps, weight, relaxed=True)
        points, squares = top.c_points, top.arrays.squares
        history.add(top.norms(top.squared_residual()), top.norms(squares(points, before)), top.norms(squares(points)))
        drop()
    return history


def mgrit(problem: Problem, states: np.ndarray, *, levels: int = 3, coarsening: int | tuple[int, ...] = 4, cycle: str = "V",
          relaxation: tuple[int, ...] | int = 1, nested: bool = True, weight: float = 1.0, skip_first: bool = False,
          relative: bool = False, tol: float, max_iter: int) -> Outcome:
    """MGRIT in FAS form, improving ``states`` in place.

    Parameters
    ----------
    levels, coarsening : int
        Time grids, and how many steps of one make a step of the next (one number, or one for each pair of levels).
    cycle : str
        "V" or "F".
    relaxation : int
        k of (FC)^k F relaxation, one number or one for each level but the last.
    nested : bool
        Start from the coarsest grid, with a V-cycle on every level on the way up.
    weight : float
        Of the C-relaxation.
    skip_first : bool
        The first cycle has no way down: it solves on the coarsest grid and relaxes F-points on the way up.
    relative : bool
        Whether ``tol`` is relative to the first residual.

    References
    ----------
    Falgout, Friedhoff, Kolev, MacLachlan and Schroder, "Parallel time integration with multigrid", SIAM J. Sci. Comput. 36
    (2014), and, for GRUs, Moon and Cyr, ICLR 2022. Cycles and residual norms are those of PyMGRIT.
    """
    factors = coarsenings(levels, coarsening)
    hierarchy = forward_hierarchy(problem, states, levels, factors)
    top, first = hierarchy[0], problem.stop.copy()

    def limits(history: _History) -> np.ndarray:
        start = history.residuals[1 if skip_first and len(history.residuals) > 1 else 0]
        return tol * start if relative else np.full_like(start, tol)

    def done(history: _History) -> np.ndarray:
        return history.residuals[-1] <= limits(history)

    def leave(history: _History, rows: np.ndarray) -> None:
        first[rows] = _first_beyond(top, limits(history))[rows]

    history = _iterate(hierarchy, cycle=cycle, sweeps=_sweeps(relaxation, levels), weight=weight, nested=nested,
                       skip_first=skip_first, max_iter=max_iter, done=done, leave=leave)
    converged = done(history)
    first[converged] = problem.stop[converged]
    return Outcome(history.cycles, history.residuals[-1], first, history.residuals, history.changes, top.stages, len(hierarchy))


def _first_beyond(level: Level, limits: np.ndarray) -> np.ndarray:
    """For every sequence, the step into its first C-point with more than half its share of a residual norm of ``limits``."""
    first, windows = level.stop.copy(), level.windows
    shares = 0.5 * limits / np.sqrt(np.maximum(1, level.stop // level.coarsening))
    small = np.sqrt(level.squared_residual()) <= shares[windows.c_row]
    np.minimum.at(first, windows.c_row[~small], windows.c_point[~small])
    return first


def _sweeps(relaxation: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    return (relaxation,) * (levels - 1) if isinstance(relaxation, int) else relaxation


def _error(history: _History, eps: float) -> np.ndarray:
    """Relative error of the C-points after the last cycle, estimated.

    A cycle that multiplies the error by q changes the unknowns by about (1 - q) times it, so that q / (1 - q) times the
    change is left. q is the factor of the residual. A change of the size of rounding ends the iteration, whatever q.
    """
    residual = history.residuals[-1]
    if not history.changes:
        return np.where(residual == 0, 0.0, np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = np.where(residual == 0, 0.0, history.changes[-1] / history.sizes[-1])
        factor = np.minimum(np.nan_to_num(residual / history.residuals[-2], nan=0.5), _SLOWEST)
        return np.where(change <= 8 * eps, change, change * factor / (1.0 - factor))


def adjoint_mgrit(problem: Problem, states: np.ndarray, dstates: np.ndarray, *, levels: int = 3,
                  coarsening: int | tuple[int, ...] = 4, cycle: str = "V", relaxation: tuple[int, ...] | int = 1,
                  nested: bool = True, weight: float = 1.0, skip_first: bool = False, cycles: int | None = None,
                  tol: float) -> tuple[np.ndarray, np.ndarray, list[Stage], int]:
    """c_t = J_t^T (dL/dh_t + c_{t+1}) for all t by MGRIT in reversed time.

    Returns c, its estimated relative errors, the stages of the work and the number of levels. The options are those of
    :func:`mgrit`; ``cycles`` truncates, otherwise the estimated relative error falls below ``tol``.
    A sequence that does not get there is solved by the reverse loop.

    References
    ----------
    Moon and Cyr, ICLR 2022; XBraid's BackwardBraidApp. Coarse steps are linearised at the states of level 0.
    """
    factors = coarsenings(levels, coarsening)
    hierarchy = adjoint_hierarchy(problem, states, dstates, levels, factors)
    top, eps = hierarchy[0], float(np.finfo(states.dtype).eps)

    errors = np.zeros(top.stop.size)

    def done(history: _History) -> np.ndarray:
        return history.residuals[-1] == 0 if cycles else _error(history, eps) <= tol

    def leave(history: _History, rows: np.ndarray) -> None:
        errors[rows] = _error(history, eps)[rows]

    history = _iterate(hierarchy, cycle=cycle, sweeps=_sweeps(relaxation, levels), weight=weight, nested=nested,
                       skip_first=skip_first, max_iter=cycles or MAX_CYCLES, done=done, leave=leave)
    failed = ~np.isfinite(history.residuals[-1]) if cycles else ~(errors <= tol)
    if failed.any():
        top.restrict_to(failed)
        top.solve()
        errors[failed] = 0.0
    return top.u, errors, top.stages, len(hierarchy)
