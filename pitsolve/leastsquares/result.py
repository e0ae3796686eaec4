"""What schwarz_lstsq returns."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from pitsolve.leastsquares.windows import Chain


class SchwarzStatus(enum.Enum):
    """How a least-squares solution came about; the value is the sentence."""

    DIRECT = "Computed by one sweep of block elimination; one window needs no iteration."
    CONVERGED = "Converged: the estimated error is within the tolerance."
    SWITCHED = (
        "Converged with transmission='dirichlet': with 'schur' and so few set-up sweeps the windows did not contract. "
        "Try as many sweeps as windows.")
    FALLBACK = (
        "The windows did not converge; the solution was computed by one sweep of block elimination, so it is right. "
        "Correlations are long against the windows: try transmission='schur', a larger overlap, or fewer windows.")
    NOT_CONVERGED = (
        "Not converged: the estimated error exceeds the tolerance. Try on_failure='fallback', transmission='schur', "
        "accel='cg', a larger overlap or max_iter, or a tolerance that the dtype can reach.")


@dataclass(frozen=True, eq=False)
class SchwarzSolution:
    """The solution of a least-squares problem in time and how it was found.

    Attributes
    ----------
    solution : ndarray (T, n)
        g, merged from all windows.
    status : SchwarzStatus
        What happened, in a sentence.
    converged : bool
        Whether the estimated error is within the tolerance, or the solution is a direct one.
    iterations : int
        Sweeps over all windows, or steps of conjugate gradients.
    rate : float
        Factor by which the changes shrank in each of the last two sweeps; NaN where there were too few.
    error_estimate : float
        Estimated norm of the error of a window, relative to the norm of the largest one; for ``accel="cg"`` of the whole
        solution in the norm of N.
    residual : float
        Largest |f - N g|, of the normal equations.
    mismatch : float
        Largest norm of what two copies of an overlap differ by; NaN for ``formulation="split"``, whose copies need not
        agree.
    changes : ndarray (K, p)
        Norm of the change of each window in each iteration, relative to the norm of the largest one.
    chain : Chain
        Boundaries and overlap of the windows.
    mu : float
        Weight of the overlap penalty.
    transmission : str
        What neighbours exchanged in the end: ``"dirichlet"`` or ``"schur"``.
    bytes_per_interface : float
        Bytes that crossed one interface in one direction in one iteration, as counted.
    bytes_total : int
        All bytes sent, set-up and merging included.
    """

    solution: np.ndarray = field(repr=False)
    status: SchwarzStatus
    converged: bool
    iterations: int
    rate: float
    error_estimate: float
    residual: float
    mismatch: float
    changes: np.ndarray = field(repr=False)
    chain: Chain = field(repr=False)
    mu: float
    transmission: str
    bytes_per_interface: float
    bytes_total: int

    def __repr__(self) -> str:
        steps, n = self.solution.shape
        rate = "" if np.isnan(self.rate) else f"rate {self.rate:.3f}, "
        return "\n".join([
            f"SchwarzSolution: {steps} steps of {n} unknowns in {self.chain.count} windows with overlap {self.chain.overlap}",
            f"  {'converged  ' if self.converged else 'not reached'} {self.iterations} iterations, {rate}"
            f"estimated error {self.error_estimate:.1e}",
            f"  residual    {self.residual:.1e}; copies differ by {self.mismatch:.1e}",
            f"  sent        {self.bytes_per_interface:g} bytes an interface and iteration, {self.bytes_total} in all",
            f"  {self.status.value}",
        ])


class SchwarzError(RuntimeError):
    """Raised with ``on_failure="raise"`` when the windows do not converge; ``solution`` holds what they reached."""

    def __init__(self, solution: SchwarzSolution):
        super().__init__(f"{solution.status.value}\n{solution}")
        self.solution = solution
