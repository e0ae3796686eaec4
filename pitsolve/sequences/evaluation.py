"""One evaluation of a model on a batch: what recurrent layers need beside parameters and inputs, and what they report."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

import pitsolve
from pitsolve.cells.base import Cell, Parameters
from pitsolve.sequences.solver import Solver
from pitsolve.solution import Gradient, Solution, Status


class Health:
    """Counts over the solves of an evaluation; each sequence of each recurrent layer is one."""

    COUNTS = ("sequences", "iterations", "fallbacks", "loops")

    def __init__(self) -> None:
        self.counts = np.zeros(len(self.COUNTS))

    def add(self, solution: Solution) -> None:
        """Iterations; sequences that the loop finished after an iteration gave up; sequences solved by the loop alone."""
        iterations, batch = np.atleast_1d(solution.iterations), len(solution.states)
        lengths = np.full(batch, solution.states.shape[1]) if solution.lengths is None else solution.lengths
        fallbacks = (solution.resumed_at < lengths).sum() if solution.status is Status.FALLBACK else 0
        self.counts += batch, iterations.sum(), fallbacks, batch if solution.method == "sequential" else 0


class Evaluation:
    """The third argument of ``forward`` in layers on sequences; true in training.

    Recurrent layers call :meth:`solve` and :meth:`gradient` in the order in which they stand in the model, so that the number
    of a call says which layer it comes from.

    Parameters
    ----------
    solver : Solver
        Methods.
    lengths : int ndarray (B,), optional
        Lengths of the sequences.
    number : callable, optional
        ``seed = number(call)``, different for every call in every step of training; without it this is no training.
    guesses : callable, optional
        ``guess = guesses(call)``, states near those of that solve, or None.
    """

    def __init__(self, solver: Solver, lengths: np.ndarray | None = None, number: Callable[[int], int] | None = None,
                 guesses: Callable[[int], np.ndarray | None] | None = None):
        self.solver, self.lengths, self.health = solver, lengths, Health()
        self.solutions: list[Solution] = []
        self._number, self._guesses, self._seeds = number, guesses, 0

    def __bool__(self) -> bool:
        return self._number is not None

    def dropout_seed(self) -> int:
        """64 bits that no other call in the training run gets."""
        self._seeds += 1
        return self._number(self._seeds)

    def solve(self, cell: Cell, params: Parameters, x: np.ndarray, lengths: np.ndarray | None) -> Solution:
        """States of a recurrent layer."""
        guess = self._guesses(len(self.solutions)) if self._guesses and self.solver.method != "sequential" else None
        with warnings.catch_warnings():
            if self.solver.truncated:
                warnings.filterwarnings("ignore", f"{Status.NOT_CONVERGED.value[:13]}", RuntimeWarning)
            try:
                solution = pitsolve.solve(cell, params, x, lengths=lengths, method=self.solver.method, guess=guess,
                                          backend=self.solver.backend, **self.solver.options)
            except ValueError:
                _still_finite("the inputs of a recurrent layer are", x)
                raise
        self.solutions.append(solution)
        self.health.add(solution)
        return solution

    def gradient(self, cell: Cell, params: Parameters, x: np.ndarray, solution: Solution, dstates: np.ndarray) -> Gradient:
        """Gradient of a recurrent layer."""
        try:
            return pitsolve.gradient(cell, params, x, solution, dstates, method=self.solver.gradient,
                                     backend=self.solver.backend, **self.solver.gradient_options)
        except ValueError:
            _still_finite("the gradients of a recurrent layer's outputs are", dstates)
            raise


def _still_finite(what: str, array: np.ndarray) -> None:
    """Tell numbers that grew too large on their way through a model from arguments that do not fit."""
    if not np.isfinite(array).all():
        raise FloatingPointError(f"{what} no longer finite") from None
