"""Learning rates over epochs: a schedule gives the factor by which the rate of the optimiser is multiplied.

It is called with the epoch, counted from 0; in the middle of one it may get a fraction, the epoch and the share of it that is
done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pitsolve import check
from pitsolve.training import check_training


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
    >>> schedule(79.75), schedule(80), round(schedule(120), 12)
    (1.0, 0.1, 0.01)
    """

    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", check_training.milestones(self.milestones))
        check.positive("factor", self.factor)

    def __call__(self, epoch: float) -> float:
        """The factor at this time."""
        return self.factor ** sum(epoch >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class WarmupCosine:
    r"""A rate that rises along a line, then falls along half a cosine, then stays.

    .. math::
        \phi(e) = \begin{cases} s + (1 - s) \, e / w & e < w \\
            l + (1 - l) \, \tfrac12 \big(1 + \cos(\pi \tfrac{e - w}{n - w})\big) & w \le e < n \\
            l & e \ge n \end{cases}

    Parameters
    ----------
    warmup : float
        w, epochs of the rise; 0 for none.
    total : float
        n, epochs until the end of the fall.
    start : float
        s, the factor at the beginning.
    end : float
        l, the factor at the end.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation (5).

    Examples
    --------
    >>> import pitsolve as ps
    >>> schedule = ps.training.WarmupCosine(2, 10, start=0.1)
    >>> [round(schedule(epoch), 6) for epoch in (0, 1, 1.5, 2, 6, 10, 11)]
    [0.1, 0.55, 0.775, 1.0, 0.5, 0.0, 0.0]
    """

    warmup: float
    total: float
    start: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        check_training.not_negative("warmup", self.warmup)
        check_training.beyond("total", self.total, "warmup", self.warmup)
        for name in ("start", "end"):
            check.fraction(name, getattr(self, name))

    def __call__(self, epoch: float) -> float:
        """The factor at this time."""
        if epoch < self.warmup:
            return self.start + (1 - self.start) * epoch / self.warmup
        share = min(1.0, (epoch - self.warmup) / (self.total - self.warmup))
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * share))
