"""Time grids: windows of a grid, levels of a hierarchy, and the step that a level takes, forward or transposed backward.

Level l has N_l = N_{l-1} // m steps, each of which stands for m steps of the level above it (the next finer one). A window
holds the m steps from one C-point to the next; the points inside are F-points. Steps that do not fill a window at the end
of a march belong to a shorter one, which has no C-point at its end. All grids are integers, sequence by sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from pitsolve.methods.problem import Problem
from pitsolve.work import Stage


class Windows:
    """All windows of ``size`` steps of sequences of ``stop`` steps, in the order of sequences and, within one, of the march.

    ``row``, ``first``, ``last`` are what the window verbs take. ``entry`` and ``exit`` are where the value before a window
    and the value after it stand in the array of unknowns; ``entry`` is -1 where that is the initial one. ``whole`` lists the
    windows that end in a C-point, ``broken`` the others, and ``coarse`` is where the C-point stands on the next coarser grid.
    """

    def __init__(self, stop: np.ndarray, size: int, reverse: bool):
        counts = -(-stop // size)
        self.row = np.repeat(np.arange(stop.size), counts)
        number = np.arange(self.row.size) - np.repeat(np.cumsum(counts) - counts, counts)
        begin, end = number * size, np.minimum(number * size + size, stop[self.row])
        self.whole, self.broken = np.flatnonzero(end - begin == size), np.flatnonzero(end - begin != size)
        if reverse:
            self.first, self.last = stop[self.row] - end, stop[self.row] - begin
            self.entry, self.exit = np.where(number > 0, self.last, -1), self.first
            coarse = (stop // size)[self.row] - 1 - number
        else:
            self.first, self.last = begin, end
            self.entry, self.exit = begin - 1, end - 1
            coarse = number
        self.coarse = coarse[self.whole]
        self.c_row, self.c_point = self.row[self.whole], self.exit[self.whole]
        self.broken_row, self.broken_exit = self.row[self.broken], self.exit[self.broken]
        self.length = int((end - begin).max(initial=0))
        self.steps = int((end - begin).sum())

    def stage(self, level: int) -> Stage:
        """This many independent windows, as work."""
        return Stage(level, self.row.size, self.length, self.steps)


@dataclass
class ForwardStep:
    """h -> f(h, x_t) + g_t on one level: the unknown of step t is h_{t+1}, known before the first step."""

    model: object
    arrays: ModuleType
    x: np.ndarray
    reverse = False

    def sweep(self, u, starts, windows, source):
        return self.model.windows.sweep(self.x, u, starts, windows.row, windows.first, windows.last, source)

    def solve(self, u, initial, stop, source):
        steps = self.x.shape[1]
        self.model.propagate(self.x, self.model.carry(initial), u, 0, steps, np.zeros_like(stop), stop, source)

    def forcing(self, u, stop):
        """The source of the equation restricted to this grid: none, the inputs are in the step."""
        return None


@dataclass
class AdjointStep:
    """c -> J_t^T (c + b_t) + g_t on one level: the unknown of step t is c_t, known after the last step.

    On level 0, b is dL/dh. On coarse levels b is used for a first guess only, as their corrections have other sources.
    """

    model: object
    arrays: ModuleType
    x: np.ndarray
    states: np.ndarray
    previous: np.ndarray
    before: np.ndarray
    number: int
    reverse = True

    def sweep(self, u, starts, windows, source):
        before = self.before if self.number == 0 else None
        return self._pull(u, starts, windows, before, source)

    def _pull(self, u, starts, windows, before, after):
        return self.model.windows.pull(self.x, self.states, self.previous, u, starts, windows.row, windows.first,
                                       windows.last, before, after)

    def solve(self, u, initial, stop, source):
        whole = Windows(stop, max(1, int(stop.max(initial=0))), reverse=True)
        ends = self.sweep(u, self.arrays.rows(initial, whole.row), whole, source)
        self.arrays.put(u, whole.row, whole.exit, ends)

    def forcing(self, u, stop):
        """J_t^T b_t at every t, b being the sum of dL/dh over the steps that a coarse step stands for."""
        every = Windows(stop, 1, reverse=True)
        source = self.arrays.zeros(u.shape, u.dtype)
        zeros = self.arrays.zeros((every.row.size, u.shape[2]), u.dtype)
        self.arrays.put(source, every.row, every.exit, self._pull(u, zeros, every, self.before, None))
        return source


@dataclass
class Level:
    """One time grid: its step, its unknowns u (B, N, S), the value before the first step, and the FAS source g."""

    number: int
    coarsening: int
    step: ForwardStep | AdjointStep
    u: np.ndarray
    initial: np.ndarray
    stop: np.ndarray
    stages: list[Stage]
    g: np.ndarray | None = None
    windows: Windows = field(init=False)
    every: Windows = field(init=False)
    ends: np.ndarray = field(init=False)

    def __post_init__(self):
        self.arrays = self.step.arrays
        self.restrict_to(np.ones(self.stop.size, bool))

    def restrict_to(self, active: np.ndarray) -> None:
        """Work on some of the sequences from now on."""
        self.active_stop = np.where(active, self.stop, 0)
        self.windows = Windows(self.active_stop, self.coarsening, self.step.reverse)
        self.every = Windows(self.active_stop, 1, self.step.reverse) if self.number else None
        self.ends = None

    def _starts(self, windows: Windows) -> np.ndarray:
        return self.arrays.take(self.u, windows.row, windows.entry, self.initial)

    def relax_f(self) -> None:
        """Every F-point from the C-point before it; ``ends`` keeps what the last step of each window leads to."""
        windows = self.windows
        self.ends = self.step.sweep(self.u, self._starts(windows), windows, self.g)
        self.arrays.put(self.u, windows.broken_row, windows.broken_exit, self.ends, windows.broken)
        self.stages.append(windows.stage(self.number))

    def relax_c(self, weight: float) -> None:
        """Every C-point from the F-point before it, which F-relaxation has already evaluated."""
        new, index = self.ends, self.windows.whole
        if weight != 1.0:
            new, index = self.arrays.combine(weight, self.arrays.rows(new, index), 1.0 - weight, self.c_points), None
        self.arrays.put(self.u, self.windows.c_row, self.windows.c_point, new, index)

    @property
    def c_points(self) -> np.ndarray:
        """The unknowns at the C-points, (C, S)."""
        return self.arrays.take(self.u, self.windows.c_row, self.windows.c_point)

    def inject(self, coarse: Level) -> None:
        """The unknowns at the C-points, to the coarser grid."""
        windows = self.windows
        self.arrays.put(coarse.u, windows.c_row, windows.coarse, *self._rows(windows.c_row, windows.c_point))

    def receive(self, coarse: Level) -> None:
        """The C-points, from the coarser grid."""
        windows = self.windows
        self.arrays.put(self.u, windows.c_row, windows.c_point, *coarse._rows(windows.c_row, windows.coarse))

    def _rows(self, row: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The unknowns of all sequences and steps as rows, and which of them are u[row, at]."""
        batch, steps, size = self.u.shape
        return self.u.reshape((batch * steps, size)), row * steps + at

    def each_step(self) -> np.ndarray:
        """What every step alone leads to from the unknown before it, without a source."""
        self.stages.append(self.every.stage(self.number))
        return self.step.sweep(self.u, self._starts(self.every), self.every, None)

    def forcing(self) -> None:
        """Take for g what the equation itself, restricted to this grid, has for a source."""
        self.g = self.step.forcing(self.u, self.active_stop)
        if self.g is not None:
            self.stages.append(self.every.stage(self.number))

    def solve(self) -> None:
        """All steps one after the other."""
        self.step.solve(self.u, self.initial, self.active_stop, self.g)
        alive = self.active_stop > 0
        longest, total = int(self.active_stop.max(initial=0)), int(self.active_stop.sum())
        self.stages.append(Stage(self.number, int(alive.sum()), longest, total))

    def norms(self, squares: np.ndarray) -> np.ndarray:
        """2-norm of each sequence, from the sums of squares of its C-points; the order of the sum is fixed."""
        return np.sqrt(np.bincount(self.windows.c_row, squares, self.stop.size))

    def squared_residual(self) -> np.ndarray:
        """The square of what each C-point would change by, in the 2-norm; F-points have no residual after F-relaxation."""
        return self.arrays.squares(self.arrays.rows(self.ends, self.windows.whole), self.c_points)


def ratios(steps: int, levels: int, coarsening: tuple[int, ...]) -> list[int]:
    """Steps of level 0 that one step of each level stands for; as many levels as have a step at all."""
    spans = [1]
    for m in coarsening[:levels - 1]:
        if steps // (spans[-1] * m) < 1:
            break
        spans.append(spans[-1] * m)
    return spans


def forward_hierarchy(problem: Problem, states: np.ndarray, levels: int, coarsening: tuple[int, ...]) -> list[Level]:
    """The levels of h_t = f(h_{t-1}, x_t); a coarse step sees the input of the first step that it stands for."""
    spans, stages, hierarchy = ratios(int(problem.stop.max(initial=0)), levels, coarsening), [], []
    arrays, batch = problem.backend.arrays, problem.stop.size
    for number, span in enumerate(spans):
        length = problem.steps // span
        if number == 0:
            model, x, u = problem.model, problem.x, states
        else:
            model = _coarse_model(problem, span)
            row, at = np.repeat(np.arange(batch), length), np.tile(np.arange(length) * span, batch)
            x = arrays.take(problem.x, row, at).reshape((batch, length, problem.x.shape[2]))
            u = arrays.zeros((batch, length, states.shape[2]), states.dtype)
        m = coarsening[number] if number + 1 < len(spans) else max(1, length)
        hierarchy.append(Level(number, m, ForwardStep(model, arrays, x), u, problem.h0, problem.stop // span, stages))
    return hierarchy


def _coarse_model(problem: Problem, span: int):
    """The model of a grid whose steps stand for ``span`` steps each."""
    return problem.backend.bind(*problem.model.cell.coarsened(problem.params, span), problem.h0.dtype)


def adjoint_hierarchy(problem: Problem, states: np.ndarray, dstates: np.ndarray, levels: int,
                      coarsening: tuple[int, ...]) -> list[Level]:
    """The levels of c_t = J_t^T (dL/dh_t + c_{t+1}), coarse steps linearised at the states of level 0.

    Time runs backward, so the points of a coarse grid are counted from the end of each sequence: n_j = N - (N_l - j) M.
    """
    spans, stages, hierarchy = ratios(int(problem.stop.max(initial=0)), levels, coarsening), [], []
    arrays = problem.backend.arrays
    zero = arrays.zeros(problem.h0.shape, problem.h0.dtype)
    for number, span in enumerate(spans):
        length = problem.steps // span
        m = coarsening[number] if number + 1 < len(spans) else max(1, length)
        u = arrays.zeros((states.shape[0], length, states.shape[2]), states.dtype)
        if number == 0:
            step = AdjointStep(problem.model, arrays, problem.x, states, problem.h0, dstates, 0)
        else:
            points = _at_points(problem, states, dstates, span, length)
            step = AdjointStep(_coarse_model(problem, span), arrays, *points, number)
        hierarchy.append(Level(number, m, step, u, zero, problem.stop // span, stages))
    return hierarchy


def _at_points(problem: Problem, states: np.ndarray, dstates: np.ndarray, span: int, length: int):
    """Inputs, states and the state before them at the points of a coarse grid, and dL/dh summed between the points."""
    arrays, first = problem.backend.arrays, problem.stop % span  # the point n_0
    row, j = np.nonzero(np.arange(length) < (problem.stop // span)[:, None])
    point = first[row] + j * span  # where step j starts

    def on_grid(values: np.ndarray) -> np.ndarray:
        grid = arrays.zeros((problem.stop.size, length, values.shape[1]), values.dtype)
        arrays.put(grid, row, j, values)
        return grid

    previous = arrays.take(states, np.arange(problem.stop.size), first - 1, problem.h0)
    between = arrays.take(dstates, row, point)
    for shift in range(1, span):  # a fixed order of additions
        between = arrays.combine(1.0, between, 1.0, arrays.take(dstates, row, point + shift))
    x, states = arrays.take(problem.x, row, point), arrays.take(states, row, point + span - 1)
    return on_grid(x), on_grid(states), previous, on_grid(between)


def coarsenings(levels: int, coarsening: int | tuple[int, ...]) -> tuple[int, ...]:
    """One coarsening factor for each pair of levels."""
    return (coarsening,) * (levels - 1) if isinstance(coarsening, int) else tuple(coarsening)
