"""When to stop: an estimate of the error from how fast the changes of each window decay."""

from __future__ import annotations

import numpy as np

_PATIENCE = 8  # iterations in a row that do not contract before the iteration is given up


class ErrorEstimate:
    """The error that remains in each window after the changes D^1, D^2, ... of its copy.

    Errors that shrink by rho an iteration leave D rho / (1 - rho). The spectrum of the additive iteration is symmetric about
    zero, so changes may alternate: rho comes from two steps, sqrt(D^k / D^{k-2}), the larger of the last two. A small change
    alone says little: at rho = 0.999 the error is a thousand times larger.
    """

    LEAST = 4  # iterations before two such factors exist

    def __init__(self, windows: int, dtype: np.dtype):
        self._floor = 8 * np.finfo(dtype).eps
        self.changes: list[np.ndarray] = []
        self.errors = np.full(windows, np.inf)
        self.rate = np.nan
        self.converged = False
        self._expanding = 0  # iterations in a row whose largest change was not below that of two before

    @property
    def iterations(self) -> int:
        """Iterations added so far."""
        return len(self.changes)

    @property
    def diverging(self) -> bool:
        """Whether the last changes did not shrink, time after time."""
        return self._expanding >= _PATIENCE

    def add(self, change: np.ndarray, length: np.ndarray) -> float:
        """The largest estimated error, relative to the largest window, after an iteration with these changes and lengths."""
        with np.errstate(over="ignore", invalid="ignore"):  # an iteration that diverges may overflow
            self.changes.append(change / max(length.max(), np.finfo(float).tiny))
        recent = self.changes[-1]
        if not np.isfinite(recent).all():
            self.errors[:], self._expanding = np.inf, self._expanding + 1
        elif (recent <= self._floor).all():
            self.errors = recent
        elif len(self.changes) >= self.LEAST:
            self._estimate(recent)
        return float(self.errors.max())

    def _estimate(self, recent: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            factors = [np.nan_to_num(np.sqrt(self.changes[-j] / self.changes[-j - 2]), nan=0.0) for j in (1, 2)]
            rates = np.maximum(*factors)
            errors = np.where(rates < 1, recent * rates / (1 - rates), np.inf)
        self.errors = np.where(recent <= self._floor, recent, errors)
        largest = [changes.max() for changes in self.changes[-4:]]
        self.rate = float(np.sqrt(largest[-1] / largest[-3]))
        self._expanding = self._expanding + 1 if self.rate >= 1 else 0
