"""What fit_schwarz returns."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.leastsquares.windows import Chain


class FitStatus(enum.Enum):
    """How a fit ended; the value is the sentence."""

    CONVERGED = "Converged: the gradient of the loss of the single network vanishes to the tolerance."
    CONSENSUS = (
        "The windows agree to the tolerance, so the single network is stationary to that extent; polish= steps would make "
        "sure of it.")
    NOT_CONVERGED = (
        "Not converged: the loss can still fall. Try more iterations or polish steps; if the gaps are large, a larger penalty "
        "or fewer windows.")
    STALLED = (
        "Not converged: no damped step lowers the loss any further. Another start may do better.")


@dataclass(frozen=True, eq=False)
class SchwarzFit:
    """A network trained by local networks on overlapping windows of time, and how.

    Losses are those of one network, rolled out over all steps of all sequences with the mean of the windows' parameters:
    half the sum of squared errors, and the regularisation. Histories have an entry for every iteration of the windows; that
    of the losses begins with the start.

    Attributes
    ----------
    params : dict of ndarray
        Parameters of the cell, ``weight_hy`` and ``bias_hy``, after polishing, in the dtype of the input.
    loss : float
        Their loss.
    status : FitStatus
        What happened, in a sentence.
    converged : bool
        Whether the status is ``CONVERGED`` or ``CONSENSUS``.
    iterations : int
        Iterations of the windows.
    losses : ndarray (iterations + 1,)
        Losses of the mean parameters.
    state_gaps, parameter_gaps : ndarray (iterations,)
        Largest difference of the states of two neighbours on their overlap, and of their parameters; with minibatches, over
        the sequences of that iteration.
    penalties : ndarray (iterations, 2)
        Penalties of states and of parameters.
    polish_losses : ndarray
        Loss of the best mean parameters, and after every step of polishing.
    gradient : float
        Largest cosine between the residuals and a column of their Jacobian, where polishing ended; NaN without polishing.
    chain : Chain
        Boundaries and overlap of the windows.
    bytes_per_interface : float
        Bytes that crossed one interface in one direction in one iteration, as counted: 8 (s n B + q) for overlaps of s steps,
        n states, B sequences of an iteration and q parameters.
    """

    params: Parameters = field(repr=False)
    loss: float
    status: FitStatus
    converged: bool
    iterations: int
    losses: np.ndarray = field(repr=False)
    state_gaps: np.ndarray = field(repr=False)
    parameter_gaps: np.ndarray = field(repr=False)
    penalties: np.ndarray = field(repr=False)
    polish_losses: np.ndarray = field(repr=False)
    gradient: float
    chain: Chain = field(repr=False)
    bytes_per_interface: float

    def __repr__(self) -> str:
        size = sum(value.size for value in self.params.values())
        gaps = "" if not self.iterations else (
            f", gaps {self.state_gaps[-1]:.1e} of states, {self.parameter_gaps[-1]:.1e} of parameters")
        return "\n".join([
            f"SchwarzFit: {size} parameters, {self.chain.count} windows on {self.chain.boundaries[-1]} steps, overlap "
            f"{self.chain.overlap}",
            f"  loss        {self.losses[0]:.6g} at the start, {self.losses.min():.6g} by windows, {self.loss:.6g} polished",
            f"  iterations  {self.iterations}{gaps}; {self.polish_losses.size - 1} of polishing, gradient {self.gradient:.1e}",
            f"  sent        {self.bytes_per_interface:g} bytes an interface and iteration",
            f"  {self.status.value}",
        ])
