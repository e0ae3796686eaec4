"""What the smoother returns."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from pitsolve.leastsquares.problem import BlockTridiagonal


class SmoothingStatus(enum.Enum):
    """How a smoothing ended; the value is the sentence."""

    CONVERGED = "Converged: the last Gauss-Newton step changed no state by more than the tolerance."
    NOT_CONVERGED = (
        "Not converged: Gauss-Newton needs more iterations. Try a larger max_iter, a closer guess=, or a larger tol.")
    STALLED = (
        "Not converged: no step along the Gauss-Newton direction lowers the cost by more than rounding. The tolerance may be "
        "below what the dtype can reach; otherwise try a larger tol, float64, or a closer guess=.")


@dataclass(frozen=True, eq=False)
class Smoothing:
    """The smoothed states of a noisy nonlinear model and how they were found.

    Attributes
    ----------
    states : ndarray (T, n)
        h_1 ... h_T, a stationary point of the cost if converged.
    method : str
        How the linear problems were solved.
    status : SmoothingStatus
        What happened, in a sentence.
    converged : bool
        Whether the last step was within the tolerance.
    iterations : int
        Gauss-Newton iterations K.
    inner_iterations : ndarray of int (K,)
        Schwarz iterations of each; 1 for ``"sequential"``.
    cost : float
        The cost of ``states``.
    costs : ndarray (K + 1,)
        The cost of the start and after each iteration; it falls until differences are rounding.
    steps : ndarray (K,)
        Largest change of a state by the full Gauss-Newton step, max abs(d)_i / max(1, abs(h)_i).
    lengths : ndarray (K,)
        Part of that step taken, halved from 1 until the cost falls.
    gradient : float
        Largest entry of the gradient of the cost at ``states``.
    tol : float
        The tolerance on ``steps``.
    linearised : BlockTridiagonal
        The normal equations of the next Gauss-Newton step; the inverse of their matrix approximates the covariance of the
        states given all observations.
    """

    states: np.ndarray = field(repr=False)
    method: str
    status: SmoothingStatus
    converged: bool
    iterations: int
    inner_iterations: np.ndarray = field(repr=False)
    cost: float
    costs: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    gradient: float
    tol: float
    linearised: BlockTridiagonal = field(repr=False)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.states.shape))
        return "\n".join([
            f"Smoothing: {shape} {self.states.dtype}, linear problems by {self.method}",
            f"  converged   {self.converged}, last step {self.steps[-1]:.1e} (tol {self.tol:.1e})",
            f"  iterations  {self.iterations}, inner {self.inner_iterations.sum()}",
            f"  cost        {self.costs[0]:.6g} to {self.cost:.6g}, gradient {self.gradient:.1e}",
            f"  {self.status.value}"])
