"""Overlapping windows of time: a chain in which only neighbours share unknowns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Chain:
    """Windows I_i = [first_i, last_i) of T steps, i = 0 ... p - 1.

    The cores [boundaries_i, boundaries_{i+1}) part the steps; every window but the first begins ``overlap`` steps before its
    core (D'Amore 2025, eq. 12). Cores longer than the overlap keep windows apart that are not neighbours.

    Attributes
    ----------
    boundaries : ndarray of int (p + 1,)
        0, the ends of the cores, T.
    overlap : int
        Steps s that two neighbours share.
    """

    boundaries: np.ndarray
    overlap: int

    @property
    def count(self) -> int:
        """p."""
        return self.boundaries.size - 1

    @property
    def first(self) -> np.ndarray:
        """First step of every window."""
        return np.concatenate([self.boundaries[:1], self.boundaries[1:-1] - self.overlap])

    @property
    def last(self) -> np.ndarray:
        """The step after the last one of every window."""
        return self.boundaries[1:]

    @property
    def sharing(self) -> np.ndarray:
        """How many windows hold each step (T,): 1, or 2 on the overlaps."""
        sharing = np.ones(self.boundaries[-1], np.int64)
        for boundary in self.boundaries[1:-1]:
            sharing[boundary - self.overlap:boundary] = 2
        return sharing


def equal_boundaries(steps: int, windows: int) -> np.ndarray:
    """Boundaries of cores whose lengths differ by at most one."""
    return np.arange(windows + 1) * steps // windows
