"""Overlapping Schwarz iteration on the windows of a block-tridiagonal problem (D'Amore 2025, eqs. 12-18, made consistent)."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from pitsolve.backends import select
from pitsolve.leastsquares.mailbox import Mailboxes
from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.stopping import ErrorEstimate
from pitsolve.leastsquares.windows import Chain


class Options(NamedTuple):
    """The variant of the iteration: formulation, order of the windows, overlap penalty, sweeps of Schur complements."""

    split: bool = False
    mode: str = "additive"
    mu: float = 0.0
    sweeps: int = 0

    @property
    def transmission(self) -> str:
        return "schur" if self.sweeps else "dirichlet"


class Schwarz:
    """Windows with their factors, their copies x_i and their mail. Guesses, solutions and mail are arrays of the host.

    Complement: (N_ii + mu P_i) x_i = f_i - N_{i,ext} x_ext + mu sum_j x_j|O, every unknown outside of I_i from a neighbour.
    Split: (N_ii + mu P_i) x_i = f_i - sum_j N_ij x_j + mu sum_j x_j|O, the copies on an overlap add up.
    """

    def __init__(self, problem: BlockTridiagonal, chain: Chain, options: Options, backend: ModuleType | None = None):
        self.problem, self.chain, self.split = problem, chain, options.split
        self.backend = select("cpu") if backend is None else backend
        p, n, dtype = chain.count, problem.size, problem.rhs.dtype
        self.everyone = np.arange(p)
        self.order = {"additive": [self.everyone], "oddeven": [self.everyone[::2], self.everyone[1::2]],
                      "multiplicative": list(self.everyone[:, None])}[options.mode]
        overlap = chain.overlap if p > 1 else 0
        self.arrays = self.backend.arrays
        diagonal, off_diagonal, self.rhs = map(self.arrays.from_host, (problem.diagonal, problem.off_diagonal, problem.rhs))
        self.windows = self.backend.TridiagonalWindows(diagonal, off_diagonal, chain.first, chain.last, overlap)
        self.mail = Mailboxes(p, (1 + overlap if options.mu > 0 or options.split else 1, n), dtype)
        self.transmissions = Mailboxes(p, (n, n), dtype)
        self._read = np.zeros((2, *self.mail.from_left.shape), dtype)  # the messages that the copies answer
        self._answered = np.zeros(p, bool)
        for _ in range(options.sweeps):
            boxes = self.transmissions
            self._require(self.windows.transmit(boxes.from_left, boxes.from_right, boxes.to_left, boxes.to_right))
            boxes.deliver(self.everyone)
        self._require(self.windows.factor(np.full(p, options.mu), self.transmissions.from_left, self.transmissions.from_right))

    def _require(self, failed: np.ndarray) -> None:
        for i in np.flatnonzero(failed >= 0):
            raise ValueError(
                f"window {i} (steps {self.chain.first[i]} to {self.chain.last[i] - 1}) has no unique solution: N is not "
                f"positive definite at step {failed[i]}. Every unknown must be determined by rows of A (full column rank), and "
                "every block of N must be positive definite; add observations, a prior, or a small multiple of the identity")

    def start(self, g: np.ndarray) -> None:
        """Copies of a guess (T, n), sent to the neighbours; in the split formulation halves on the overlaps."""
        self.windows.begin(self.arrays.from_host(g), self.split)
        self._answered[:] = False
        self._send(self.everyone)

    def _send(self, chosen: np.ndarray) -> None:
        boxes = self.transmissions
        self.windows.post(chosen, boxes.to_left, boxes.to_right, self.mail.to_left, self.mail.to_right)
        self.mail.deliver(chosen)

    def sweep(self) -> tuple[np.ndarray, np.ndarray]:
        """One iteration; the norms of the change and of the copy of every window."""
        change = np.empty(self.chain.count)
        for chosen in self.order:
            change[chosen], length = self._solve(chosen)
            self._send(chosen)
        return change, length

    def _solve(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """New copies of the chosen windows, from scratch the first time and after that from what is new in their mail."""
        left, right = self.mail.from_left, self.mail.from_right
        if self._answered[chosen[0]]:
            change, length = self.windows.correct(chosen, self.split, left - self._read[0], right - self._read[1])
        else:
            change, length = self.windows.solve(chosen, self.rhs, self.split, left, right)
        self._answered[chosen] = True
        self._read[:, chosen] = left[chosen], right[chosen]
        return change[chosen], length

    def merge(self) -> np.ndarray:
        """One solution (T, n) of all copies: their mean on the overlaps, or their sum in the split formulation (eq. 18)."""
        return self.arrays.to_host(self.windows.merge(self.split))

    def mismatch(self) -> float:
        """Largest 2-norm of what the two copies of an overlap differ by."""
        return self.windows.mismatch()

    def residual(self, g: np.ndarray) -> float:
        """Largest |f - N g|."""
        return self.backend.magnitude(self.windows.residual(self.rhs, self.arrays.from_host(g)))

    @property
    def bytes(self) -> int:
        """All that was sent, and one merge of the overlaps."""
        merged = 2 * (self.chain.count - 1) * self.windows.overlap * self.problem.rhs[:1].nbytes
        return self.mail.bytes + self.transmissions.bytes + merged

    def run(self, guess: np.ndarray, tol: float, max_iter: int) -> ErrorEstimate:
        """Iterate until every estimated error, and every mismatch, is within ``tol`` of the largest window."""
        estimate = ErrorEstimate(self.chain.count, guess.dtype)
        self.start(guess)
        while estimate.iterations < max_iter and not (estimate.converged or estimate.diverging):
            change, length = self.sweep()
            estimate.converged = estimate.add(change, length) <= tol and self._agree(2 * tol * length.max())
        return estimate

    def _agree(self, most: float) -> bool:
        return self.split or bool(self.mismatch() <= most)
