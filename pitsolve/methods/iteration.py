"""The loop that all iterative methods share: defect everywhere, approximate inverse, update, certificate.

Convergence is judged by the residual, per sequence. The steps before the first one whose residual exceeds the tolerance
have converged and are dropped from further work. What is returned has been certified by evaluating the residual of every
step once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pitsolve.backends.cpu import pointwise
from pitsolve.backends.cpu.simd import register_bytes
from pitsolve.compile import specialise
from pitsolve.methods.problem import Problem


@dataclass
class Outcome:
    """What an iteration reached: per-sequence counts and norms, histories, and the first step that did not converge."""

    iterations: np.ndarray
    residual: np.ndarray
    first: np.ndarray
    residuals: list[np.ndarray]
    steps: list[np.ndarray]


# correct(defect, jacobian, begin, start, stop, carry) -> (change, carry): the approximate inverse on one slab.
Correction = Callable[..., tuple[np.ndarray, object]]


def _chunks(length: int) -> int:
    return max(1, -(-length // pointwise.CHUNK))


def _kernel(function, states):
    return specialise(function, LANES=register_bytes() // states.itemsize)


def _measure(defect, states, tol, begin, start, stop) -> tuple[np.ndarray, np.ndarray]:
    batch, length = defect.shape[:2]
    norms, firsts = np.zeros((batch, _chunks(length))), np.zeros((batch, _chunks(length)), np.int64)
    _kernel(pointwise.measure, states)(defect, states, tol, norms, firsts, begin, start, stop)
    return np.nan_to_num(norms.max(axis=1), nan=np.inf), firsts.min(axis=1)


def _update(states, change, begin, start, stop) -> np.ndarray:
    norms = np.zeros((change.shape[0], _chunks(change.shape[1])))
    _kernel(pointwise.update, states)(states, change, norms, begin, start, stop)
    return norms.max(axis=1)


def residual(problem: Problem, states: np.ndarray, tol: float, max_memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Residual of every sequence, and its first step beyond the tolerance (its length if there is none)."""
    model, stop = problem.model, problem.stop
    norms, first, start = np.zeros(stop.size), stop.copy(), np.zeros_like(stop)
    for begin, end in problem.slabs(model.step_bytes(model.VALUE), max_memory):
        defect, _ = model.linearise(model.VALUE, problem.x, states, problem.previous(states, begin), begin, end, start, stop)
        slab_norms, slab_first = _measure(defect, states, tol, begin, start, stop)
        norms, first = np.maximum(norms, slab_norms), np.minimum(first, slab_first)
    return norms, first


def _sweep(problem, states, correct, order, tol, start, max_memory):
    """One iteration over all slabs; residual and first bad step belong to the iterate before it."""
    model, stop = problem.model, problem.stop
    norms, first, steps = np.zeros(stop.size), stop.copy(), np.zeros(stop.size)
    previous, carry = problem.h0, None
    for begin, end in problem.slabs(model.step_bytes(order), max_memory):
        defect, jacobian = model.linearise(order, problem.x, states, previous, begin, end, start, stop)
        slab_norms, slab_first = _measure(defect, states, tol, begin, start, stop)
        previous = np.ascontiguousarray(states[:, end - 1])
        change, carry = correct(defect, jacobian, begin, start, stop, carry)
        steps = np.maximum(steps, _update(states, change, begin, start, stop))
        norms, first = np.maximum(norms, slab_norms), np.minimum(first, slab_first)
    return norms, first, steps


def iterate(problem: Problem, states: np.ndarray, correct: Correction, *, order: int, quadratic: bool, tol: float,
            max_iter: int, max_memory: int, observe: Callable[[np.ndarray], None] | None = None) -> Outcome:
    """Improve ``states`` in place until every sequence is certified or ``max_iter`` iterations are done.

    ``order`` is the derivative that ``correct`` needs; ``quadratic`` says that the residual squares with each iteration, so
    that the certificate is tried one iteration earlier. ``observe`` sees the residuals of every iterate.
    """
    batch = problem.stop.size
    start = np.zeros_like(problem.stop)
    iterations = np.zeros(batch, np.int64)
    outcome = Outcome(iterations, np.zeros(batch), start, [], [])
    for _ in range(max_iter):
        active = start < problem.stop
        norms, first, steps = _sweep(problem, states, correct, order, tol, start, max_memory)
        if outcome.residuals:
            norms = np.where(active, norms, outcome.residuals[-1])
        outcome.residuals.append(norms)
        outcome.steps.append(steps)
        iterations += active
        start = first
        if observe is not None:
            observe(norms)
        expected = norms**2 if quadratic else norms
        if np.all(~active | (expected <= tol)):
            outcome.residual, start = residual(problem, states, tol, max_memory)
            if np.all(start == problem.stop):
                break
    else:
        outcome.residual, start = residual(problem, states, tol, max_memory)
    outcome.residuals.append(outcome.residual)
    outcome.first = start
    return outcome
