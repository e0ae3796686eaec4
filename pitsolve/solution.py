"""What the solvers return: frozen results that print themselves, and statuses that say what happened and what to try."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from pitsolve.work import Work


class Status(enum.Enum):
    """How a solution came about; the value is the sentence."""

    SEQUENTIAL = "Computed by forward substitution, one step after the other; there was nothing to iterate."
    CONVERGED = "Converged: the residual of every step of every sequence is within the tolerance."
    FALLBACK = (
        "The iteration did not converge; from the first step that had not converged on, the states were computed "
        "sequentially, so they are right. The model may be chaotic or have a long memory: try method='sequential', "
        "a closer guess=, or a larger max_iter.")
    OVERFLOW = (
        "The states are not finite from some step on, also when computed sequentially: the model itself overflows. "
        "Check the parameters and the scale of the inputs.")
    NOT_CONVERGED = (
        "Not converged: the residual exceeds the tolerance. Try on_failure='fallback', a larger max_iter, a closer "
        "guess=, or a tolerance that the dtype can reach.")


class ConvergenceError(RuntimeError):
    """Raised with ``on_failure="raise"`` when a method does not converge; ``solution`` holds what it reached."""

    def __init__(self, solution: Solution):
        super().__init__(f"{solution.status.value}\n{solution}")
        self.solution = solution


def _span(values: np.ndarray, form: str) -> str:
    """One number, or the range of several."""
    values = np.atleast_1d(values)
    if values.size == 0:
        return "-"
    low, high = format(values.min(), form), format(values.max(), form)
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True, eq=False)
class Solution:
    """The states of a sequential model and how they were found.

    For a batch, the fields marked (B) have one entry a sequence; for a single sequence they are scalars.

    Attributes
    ----------
    states : ndarray (B, T, n) or (T, n)
        h_1 ... h_T; zero past the end of a shorter sequence.
    method, backend : str
        What ran, after ``"auto"`` was resolved.
    status : Status
        What happened, in a sentence.
    converged : (B) bool
        Whether the final residual is within the tolerance, or the states were computed sequentially to the end.
    iterations : (B) int
        Iterations of the method; 0 for ``sequential``.
    residual : (B) float
        Final residual, max over t and i of abs(h_t - f(h_{t-1}, x_t))_i / max(1, abs(h_t)_i).
    residuals : ndarray (K + 1, B) or (K + 1,)
        The residual of the guess and after each iteration; a sequence that has converged keeps its last value.
    steps : ndarray (K, B) or (K,)
        Largest change of a state in each iteration, relative in the same way.
    resumed_at : (B) int
        Step from which the sequential fallback took over (counted from 0); T, or the sequence's length, if it did not.
    tol : float
        The tolerance on ``residual``.
    lengths : ndarray (B,) or None
        Lengths of a ragged batch, as given.
    work : Work
        Steps evaluated, on which grids, and the critical path; see :func:`pitsolve.speedup_model`.
    """

    states: np.ndarray = field(repr=False)
    method: str
    backend: str
    status: Status
    converged: np.ndarray
    iterations: np.ndarray
    residual: np.ndarray
    residuals: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)
    resumed_at: np.ndarray
    tol: float
    lengths: np.ndarray | None = field(repr=False)
    work: Work = field(repr=False)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.states.shape))
        converged = np.atleast_1d(self.converged)
        lines = [
            f"Solution: {shape} {self.states.dtype} by {self.method} on {self.backend}",
            f"  converged   {converged.sum()} of {converged.size}, residual {_span(self.residual, '.1e')} (tol {self.tol:.1e})",
            f"  iterations  {_span(self.iterations, 'd')}",
        ]
        if self.status is Status.FALLBACK:
            lines.append(f"  sequential  from step {_span(self.resumed_at, 'd')}")
        if self.work.levels > 1:
            lines.append(f"  levels      {self.work.levels}")
        lines.append(f"  {self.status.value}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Gradient:
    """Gradient of a scalar loss L with respect to everything a solution depends on.

    Attributes
    ----------
    params : dict of ndarray
        dL/dtheta, with the keys and shapes of the parameters; summed over the batch.
    x : ndarray, the shape of the inputs, or None
        dL/dx_t; zero past the end of a shorter sequence; None for a cell without inputs.
    h0 : ndarray (B, n) or (n,)
        dL/dh_0.
    method : str
        How the adjoint recurrence was solved, after ``"auto"`` was resolved.
    error_estimate : (B,) or scalar float, or None
        Estimated relative error of the adjoint states of each sequence; None for methods that are exact.
    """

    params: dict[str, np.ndarray]
    x: np.ndarray | None = field(repr=False)
    h0: np.ndarray = field(repr=False)
    method: str
    error_estimate: np.ndarray | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {np.linalg.norm(value):.3g}" for name, value in self.params.items())
        error = "" if self.error_estimate is None else f"; estimated relative error {_span(self.error_estimate, '.1e')}"
        return f"Gradient by {self.method}: 2-norms {sizes}, h0 {np.linalg.norm(self.h0):.3g}{error}"
