"""Multiple shooting: windows of time are exact and concurrent, and only their boundaries are iterated.

The unknowns are the starts s_w of the windows. With F_w the map of window w, the equations are s_{w+1} = F_w(s_w), and the
approximate inverse takes F_w' to be nothing, a diagonal or itself:

    s_{w+1} <- F_w(s_w) + D_w (s_w^{new} - s_w).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pitsolve.methods.iteration import Outcome
from pitsolve.methods.problem import Problem
from pitsolve.work import Stage

CORRECTIONS = ("none", "diagonal", "full", "auto")
_PATIENCE = 3  # sweeps without correction that "auto" is ready to expect
_LIMIT = 1e8  # bound on corrected starts, as on iterates of Newton's method
_SMALL = 4  # state sizes up to which exact window Jacobians cost little


@dataclass(frozen=True)
class Windows:
    """Ranges [first, last) of the steps of sequence ``row``, in order; ``follow`` lists those that continue another one."""

    row: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def cut(cls, stop: np.ndarray, length: int) -> Windows:
        """Every sequence in windows of ``length`` steps, the last one shorter."""
        counts = -(-stop // length)
        row = np.repeat(np.arange(stop.size), counts)
        first = (np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)) * length
        return cls(row, first, np.minimum(first + length, stop[row]))

    @property
    def follow(self) -> np.ndarray:
        return np.flatnonzero(self.first > 0)

    def __getitem__(self, chosen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.row[chosen], self.first[chosen], self.last[chosen]


def shooting(problem: Problem, states: np.ndarray, *, tol: float, max_iter: int | None, max_memory: int, guessed: bool = False,
             window: int | None = None, overlap: int = 0, correction: str = "auto") -> Outcome:
    """Sweep all windows at once, then again those whose start has moved, until no start moves.

    Parameters
    ----------
    window : int
        Steps of a window. By default what suits the backend; on the CPU such that there are 64 windows in all, of 33 to 1025
        steps.
    overlap : int
        Steps before its beginning at which a window starts from the guess, to arrive with a better start. This is the
        nonlinear sibling of the overlap in Schwarz methods.
    correction : str
        How a boundary takes the move of the boundary before it into account: ``"none"``, with the ``"diagonal"`` of the
        Jacobian of the window in between, with the ``"full"`` one (Newton's method: one iteration more makes one window more
        exact in any case, and close to the solution the mismatch squares), or ``"auto"``: none as long as the mismatch decays
        fast.
    guessed : bool
        Whether ``states`` holds a first iterate, of which the boundaries are used; otherwise h_0 is the guess.

    Notes
    -----
    Without correction, a new sweep of a window stops where it has merged with the one before: a model that forgets its past
    costs one sweep and a little more. The agreeing states are kept, so the difference there is the residual of that step, and
    the mismatch of a boundary is the residual there; all other steps have none. That is the certificate.

    References
    ----------
    Keller, "Numerical methods for two-point boundary-value problems", 1968 (multiple shooting); Chartier and Philippe,
    "A parallel shooting technique for solving dissipative ODE's", Computing 51 (1993).
    """
    windows = Windows.cut(problem.stop, window or problem.backend.default_window(problem.stop.size, problem.steps))
    return _Shooting(problem, states, windows, guessed, tol).run(overlap, correction, max_iter, max_memory)


class _Shooting:
    """The starts and ends of the windows, and what is known about them."""

    def __init__(self, problem: Problem, states: np.ndarray, windows: Windows, guessed: bool, tol: float):
        self.problem, self.states, self.windows, self.tol = problem, states, windows, tol
        self.verbs, self.arrays = problem.model.windows, problem.backend.arrays
        self.follow, self.leading = windows.follow, windows.follow - 1
        if guessed:
            self.starts = self.arrays.take(states, windows.row, windows.first - 1, problem.h0)
        else:
            self.starts = self.arrays.rows(problem.h0, windows.row)
        self.stages: list[Stage] = []
        self.difference = np.zeros(windows.row.size)  # residual inside a window, where a sweep merged with the one before

    def run(self, overlap: int, correction: str, max_iter: int | None, max_memory: int) -> Outcome:
        stop = self.problem.stop
        if overlap:
            self._warm_up(overlap)
        self.ends = self.verbs.sweep(self.problem.x, self.states, self.starts, *self.windows[:])
        self._count(self.windows.last - self.windows.first)
        self._store_ends()
        moves, mismatch = self._moves()
        outcome = Outcome(np.zeros_like(stop), np.zeros(stop.size), stop, [self._by_sequence(mismatch)], [], self.stages)
        order = {"diagonal": self.problem.model.DIAGONAL, "full": self.problem.model.BLOCKS}.get(correction)
        most = self.windows.row.size if max_iter is None else max_iter
        while (moved := ~(mismatch <= self.tol) & moves).any() and len(outcome.steps) < most:
            outcome.iterations += np.bincount(self.windows.row, moved, stop.size) > 0
            before = mismatch
            if order is None and not self._merge(np.flatnonzero(moved)):
                moves, mismatch = moves & ~moved, np.where(moved, 0.0, mismatch)  # no end has changed
            else:
                if order is not None:
                    self._correct(order, max_memory)
                moves, mismatch = self._moves()
            outcome.steps.append(outcome.residuals[-1])
            outcome.residuals.append(self._by_sequence(np.maximum(mismatch, self.difference)))
            if correction == "auto" and order is None:
                order = self._choose(before, mismatch)
        self._keep_starts(mismatch)
        outcome.residual = outcome.residuals[-1]
        outcome.first = self._first_wrong(moved)
        return outcome

    def _count(self, steps: np.ndarray) -> None:
        """Windows that took so many steps each, as work."""
        self.stages.append(Stage(0, steps.size, int(steps.max(initial=0)), int(steps.sum())))

    def _warm_up(self, overlap: int) -> None:
        """Better starts: the states after ``overlap`` steps from the guess; the sweep that follows writes over them."""
        row, first, _ = self.windows[self.follow]
        begin, arrays = np.maximum(first - overlap, 0), self.arrays
        start, opening = arrays.rows(self.starts, self.follow), np.flatnonzero(begin == 0)
        arrays.put_rows(start, opening, arrays.rows(self.problem.h0, row[opening]))
        arrays.put_rows(self.starts, self.follow, self.verbs.sweep(self.problem.x, self.states, start, row, begin, first))
        self._count(first - begin)

    def _store_ends(self) -> None:
        self.arrays.put(self.states, self.windows.row, self.windows.last - 1, self.ends)

    def _moves(self) -> tuple[np.ndarray, np.ndarray]:
        """Which starts differ from the end before them, and by how much relative to max(1, |end|)."""
        mismatch, moves = np.zeros(self.windows.row.size), np.zeros(self.windows.row.size, bool)
        old, new = self.arrays.rows(self.starts, self.follow), self.arrays.rows(self.ends, self.leading)
        mismatch[self.follow], moves[self.follow] = self.arrays.mismatch(old, new)
        return moves, mismatch

    def _merge(self, moved: np.ndarray) -> bool:
        """Sweep the windows that moved, from the ends before them, until they meet the states of the last sweep.

        Whether a window came to its end first, which may move the next one.
        """
        arrays = self.arrays
        starts, ends = arrays.rows(self.ends, moved - 1), arrays.rows(self.ends, moved)
        arrays.put_rows(self.starts, moved, starts)
        steps, self.difference[moved] = self.verbs.merge(self.problem.x, self.states, starts, *self.windows[moved], self.tol,
                                                         ends)
        self._count(steps)
        ended = bool((steps == (self.windows.last - self.windows.first)[moved]).any())
        if ended:
            arrays.put_rows(self.ends, moved, ends)
            arrays.put(self.states, self.windows.row[moved], self.windows.last[moved] - 1, ends)
        return ended

    def _correct(self, order: int, max_memory: int) -> None:
        """Newton's method on the boundaries: D_w is the Jacobian of window w, or the product of the diagonals of its steps."""
        arrays = self.arrays
        new, ends = self._corrected(self._transfer(order, max_memory)), arrays.rows(self.ends, self.leading)
        # Where the linear model overshoots all bounds, the end itself is the better start.
        wild = np.flatnonzero(~(arrays.largest(new) <= _LIMIT))
        arrays.put_rows(new, wild, arrays.rows(ends, wild))
        _, differs = arrays.mismatch(arrays.rows(self.starts, self.follow), new)
        moved, new = self.follow[differs], arrays.rows(new, np.flatnonzero(differs))
        arrays.put_rows(self.starts, moved, new)
        self.difference[moved] = 0.0
        arrays.put_rows(self.ends, moved, self.verbs.sweep(self.problem.x, self.states, new, *self.windows[moved]))
        self._count((self.windows.last - self.windows.first)[moved])
        self._store_ends()

    def _corrected(self, products: np.ndarray) -> np.ndarray:
        """The new starts F_w(s_w) + D_w delta_w, where delta_{w+1} = D_w delta_w + F_w(s_w) - s_{w+1} is the change of a start.

        delta is an affine scan over windows. The new starts are one step more of it, for every window on its own: as sums of
        the old ones and delta they would be rounded to the size of the old ones.
        """
        arrays, scan, (count, size) = self.arrays, self.problem.backend.scan, self.starts.shape
        follow, leading, blocks = self.follow, self.leading, products.shape[1:]
        ends, products = arrays.rows(self.ends, leading), arrays.rows(products, leading)
        change, matrices = (arrays.zeros((count, *shape), self.starts.dtype) for shape in ((size,), blocks))
        arrays.put_rows(matrices, follow, products)
        arrays.put_rows(change, follow, arrays.combine(1.0, ends, -1.0, arrays.rows(self.starts, follow)))
        row = change.reshape((1, count, size))
        scan(matrices.reshape((1, count, *blocks)), row, arrays.zeros((1, size), change.dtype), row, np.array([0]),
             np.array([count]))
        steps = ends.reshape((follow.size, 1, size))
        scan(products.reshape((follow.size, 1, *blocks)), steps, arrays.rows(change, leading), steps, np.zeros_like(follow),
             np.ones_like(follow))
        return steps.reshape((follow.size, size))

    def _transfer(self, order: int, max_memory: int) -> np.ndarray:
        problem, model, transfer = self.problem, self.problem.model, self.problem.backend.transfer
        products = transfer.identity(model, order, self.windows.row.size)
        start = np.zeros_like(problem.stop)
        # The Jacobian of the first step of a window belongs to its start, not to the end before it.
        row, first, _ = self.windows[self.follow]
        self.arrays.put(self.states, row, first - 1, self.starts, self.follow)
        self.stages.append(Stage(0, int(problem.stop.sum()), 1, int(problem.stop.sum())))
        for begin, end in problem.slabs(model.step_bytes(order), max_memory):
            previous = problem.previous(self.states, begin)
            _, jacobian = model.linearise(order, problem.x, self.states, previous, begin, end, start, problem.stop)
            transfer.extend(model, order, products, jacobian, begin, *self.windows[:])
        return products

    def _choose(self, before: np.ndarray, after: np.ndarray) -> int | None:
        """None while the mismatch decays fast enough to merge within a few sweeps; else a correction of the boundaries."""
        if not (after > self.tol).any():
            return None
        decay = after.max() / max(before.max(), self.tol)
        # after decay^k <= tol within k = _PATIENCE further sweeps
        if decay < 1.0 and after.max() * decay**_PATIENCE <= self.tol:
            return None
        model = self.problem.model
        return model.BLOCKS if model.cell.state_size <= _SMALL else model.DIAGONAL

    def _keep_starts(self, mismatch: np.ndarray) -> None:
        """At a boundary that matches within the tolerance the start is the state, so that its residual is the mismatch."""
        small = np.flatnonzero((mismatch > 0) & (mismatch <= self.tol))
        row, first, _ = self.windows[small]
        self.arrays.put(self.states, row, first - 1, self.starts, small)

    def _by_sequence(self, values: np.ndarray) -> np.ndarray:
        largest = np.zeros(self.problem.stop.size)
        np.maximum.at(largest, self.windows.row, np.where(np.isnan(values), np.inf, values))
        return largest

    def _first_wrong(self, moved: np.ndarray) -> np.ndarray:
        """Per sequence, the first step of the first window whose start is not final; its length if there is none."""
        first = self.problem.stop.copy()
        np.minimum.at(first, self.windows.row[moved], self.windows.first[moved])
        return first
