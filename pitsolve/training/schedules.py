"""Learning rates over epochs: a schedule gives the factor by which the rate of the optimiser is multiplied."""

from __future__ import annotations

from dataclasses import dataclass

from pitsolve import check, check_training


@dataclass(frozen=True)
class StepSchedule:
    """The rate times ``factor`` from each of some epochs on.

    Parameters
    ----------
    milestones : tuple of int
        Epochs, counted from 0, before which the rate is reduced; (80, 120) in the paper on parareal networks.
    factor : float
        By how much, each time.

    Examples
    --------
    >>> import pitsolve as ps
    >>> schedule = ps.training.StepSchedule((80, 120))
    >>> schedule(79), schedule(80), round(schedule(120), 12)
    (1.0, 0.1, 0.01)
    """

    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", check_training.milestones(self.milestones))
        check.positive("factor", self.factor)

    def __call__(self, epoch: int) -> float:
        """The factor in this epoch."""
        return self.factor ** sum(epoch >= milestone for milestone in self.milestones)
