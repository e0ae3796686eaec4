"""The loop that all iterative methods share: defect everywhere, approximate inverse, update, certificate.

Convergence is judged by the residual, per sequence. The steps before the first one whose residual exceeds the tolerance
have converged and are dropped from further work. What is returned has been certified by evaluating the residual of every
step once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pitsolve.methods.problem import Problem
from pitsolve.work import Stage


@dataclass
class Outcome:
    """What an iteration reached: per-sequence counts and norms, histories, and the first step that did not converge."""

    iterations: np.ndarray
    residual: np.ndarray
    first: np.ndarray
    residuals: list[np.ndarray]
    steps: list[np.ndarray]
    stages: list[Stage] = field(default_factory=list)
    levels: int = 1


# correct(defect, jacobian, begin, start, stop, carry) -> (change, carry): the approximate inverse on one slab.
Correction = Callable[..., tuple[np.ndarray, object]]


_HOPE = 10.0  # how far the expected residual may exceed the tolerance for a try: trying costs a third of an iteration


def residual(problem: Problem, states: np.ndarray, tol: float, max_memory: int,
             rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Residual of every sequence, and its first step beyond the tolerance (its length if there is none).

    ``rows`` limits the work to some of the sequences; the others count as converged.
    """
    model, stop = problem.model, problem.stop
    start = np.zeros_like(stop) if rows is None else np.where(rows, 0, stop)
    norms, first = np.zeros(stop.size), stop.copy()
    for begin, end in problem.slabs(model.step_bytes(model.VALUE), max_memory):
        defect, _ = model.linearise(model.VALUE, problem.x, states, problem.previous(states, begin), begin, end, start, stop)
        slab_norms, slab_first = problem.backend.measure(defect, states, tol, begin, start, stop)
        norms, first = np.maximum(norms, slab_norms), np.minimum(first, slab_first)
    return norms, first


class _BySlabs:
    """Iterations that go through time slab by slab, updating ``states`` in place."""

    def __init__(self, problem: Problem, states: np.ndarray, correct: Correction, order: int, max_memory: int):
        self.problem, self.states, self.correct, self.order, self.max_memory = problem, states, correct, order, max_memory

    def sweep(self, tol: float, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One iteration: residual norms and first bad steps, which belong to the iterate before it, and sizes of the update."""
        problem, states, model, stop = self.problem, self.states, self.problem.model, self.problem.stop
        measure, update, arrays = problem.backend.measure, problem.backend.update, problem.backend.arrays
        norms, first, steps = np.zeros(stop.size), stop.copy(), np.zeros(stop.size)
        previous, carry = problem.h0, None
        for begin, end in problem.slabs(model.step_bytes(self.order), self.max_memory):
            defect, jacobian = model.linearise(self.order, problem.x, states, previous, begin, end, start, stop)
            slab_norms, slab_first = measure(defect, states, tol, begin, start, stop)
            previous = arrays.at_step(states, end - 1)  # of this iterate: the update comes before the next slab
            change, carry = self.correct(defect, jacobian, begin, start, stop, carry)
            steps = np.maximum(steps, update(states, change, begin, start, stop))
            norms, first = np.maximum(norms, slab_norms), np.minimum(first, slab_first)
        return norms, first, steps

    def finish(self) -> None:
        """``states`` holds the newest iterate at any time."""


def _expected(residuals: list[np.ndarray], quadratic: bool) -> np.ndarray:
    """Residuals after the last update: those before it, or c r^2 where Newton's method squares them.

    c is what the last two residuals show, at most one. A wrong guess costs one evaluation of the residual, no more.
    """
    last = residuals[-1]
    if not quadratic:
        return last
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if len(residuals) == 1:
            return last**2
        factor = np.nan_to_num(last / residuals[-2]**2, nan=1.0)
        return np.minimum(factor, 1.0) * last**2


def iterate(problem: Problem, states: np.ndarray, correct: Correction, *, order: int, quadratic: bool, tol: float,
            max_iter: int, max_memory: int, observe: Callable[[np.ndarray], None] | None = None, fused=None) -> Outcome:
    """Improve ``states`` in place until every sequence is certified or ``max_iter`` iterations are done.

    ``order`` is the derivative that ``correct`` needs; ``quadratic`` says that the residual squares with each iteration, so
    that the certificate is tried one iteration earlier. ``observe`` sees the residuals of every iterate. ``fused`` does whole
    iterations in place of the work by slabs, if the backend has them.
    """
    stop = problem.stop
    certified = stop == 0
    outcome = Outcome(np.zeros_like(stop), np.zeros(stop.size), np.zeros_like(stop), [], [])
    iteration = fused or _BySlabs(problem, states, correct, order, max_memory)

    def certify(rows: np.ndarray) -> None:
        iteration.finish()
        norms, first = residual(problem, states, tol, max_memory, rows)
        outcome.residual[rows] = norms[rows]
        outcome.first = np.where(rows, first, outcome.first)
        certified[rows] = first[rows] == stop[rows]

    for _ in range(max_iter):
        if certified.all():
            break
        norms, outcome.first, steps = iteration.sweep(tol, outcome.first)
        outcome.residuals.append(np.where(certified, outcome.residual, norms))
        outcome.steps.append(steps)
        outcome.iterations += ~certified
        if observe is not None:
            observe(outcome.residuals[-1])
        hopeful = ~certified & ((outcome.first == stop) | (_expected(outcome.residuals, quadratic) <= _HOPE * tol))
        if hopeful.any():
            certify(hopeful)
    if not certified.all():
        certify(~certified)
    outcome.residuals.append(outcome.residual.copy())
    return outcome
