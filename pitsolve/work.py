"""What a solution cost, counted in steps, and the speed-up that more processors would bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pitsolve import check

SCAN = -1  # the level of a stage that composes affine maps and evaluates no model


class Stage(NamedTuple):
    """``width`` independent tasks, each of ``length`` steps one after the other, ``steps`` steps in all, on one level."""

    level: int
    width: int
    length: int
    steps: int


@dataclass(frozen=True)
class Work:
    """What a solution cost, as the list of its stages; stages follow one another, the tasks of one stage are independent.

    Attributes
    ----------
    stages : tuple of Stage
        (level, width, length, steps): ``width`` independent tasks of at most ``length`` consecutive steps, ``steps`` in all.
        Level 0 is the model itself, higher levels are its coarse grids, level -1 composes affine maps (the scan of ``deer``).
    loop : Stage
        The loop over the same sequences: one task a sequence.
    levels : int
        Number of time grids in use; fewer than asked for where the sequences are too short.
    """

    stages: tuple[Stage, ...]
    loop: Stage
    levels: int = 1

    @property
    def fine(self) -> int:
        """Evaluations of f."""
        return sum(stage.steps for stage in self.stages if stage.level == 0)

    @property
    def coarse(self) -> int:
        """Evaluations of coarse steps, on all coarse grids together."""
        return sum(stage.steps for stage in self.stages if stage.level > 0)

    @property
    def depth(self) -> int:
        """The critical path: steps that have to follow one another, however many processors there are."""
        return sum(stage.length for stage in self.stages)

    def __repr__(self) -> str:
        return f"Work: {self.fine} fine and {self.coarse} coarse steps, {self.depth} one after the other, {self.levels} levels"


def loop_stage(stop: np.ndarray, start: np.ndarray | int = 0) -> Stage:
    """The loop over start[b] <= t < stop[b]."""
    steps = np.maximum(stop - start, 0)
    return Stage(0, int((steps > 0).sum()), int(steps.max(initial=0)), int(steps.sum()))


def pointwise_stages(iterations: np.ndarray, stop: np.ndarray, scans: bool) -> list[Stage]:
    """Stages of a method that evaluates f at all steps at once in each iteration, and runs a prefix scan if ``scans``."""
    stages = []
    for k in range(iterations.max(initial=0)):
        steps = np.where(iterations > k, stop, 0)
        total = int(steps.sum())
        stages.append(Stage(0, total, 1, total))
        if scans and total:
            depth = int(np.ceil(np.log2(max(2, steps.max()))))
            stages.append(Stage(SCAN, total, depth, total * depth))
    return stages


def speedup_model(solution: object, processors: int) -> float:
    r"""Speed-up over the loop that a solution's counts predict for a number of processors, were communication free.

    .. math:: \frac{\lceil B / P \rceil \, T}{\sum_{stages} \lceil width / P \rceil \, length}

    for B sequences of T steps on P processors. Every step counts the same, a coarse one and a composition in a scan as much as
    a step of the model, so a prediction for ``deer`` is too high where products of matrices cost more than f.

    Parameters
    ----------
    solution : Solution
        What :func:`pitsolve.solve` returned, with its ``work``.
    processors : int
        P.

    Returns
    -------
    float
        Above one, the method would win.

    References
    ----------
    Moon and Cyr, "Parallel training of GRU networks with a multi-grid solver for long sequences", ICLR 2022, count in the
    same way.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> cell = ps.cells.GRU(input_size=1, hidden_size=5)
    >>> sol = ps.solve(cell, cell.init(seed=7), np.ones((64, 1)), method="sequential")
    >>> ps.speedup_model(sol, processors=100)
    1.0
    """
    processors = check.count("processors", processors)
    if not isinstance(getattr(solution, "work", None), Work):
        raise TypeError(f"solution must be what pitsolve.solve returned, got {type(solution).__name__}")

    def time(stages: tuple[Stage, ...]) -> int:
        return sum(-(-stage.width // processors) * stage.length for stage in stages)

    loop = time((solution.work.loop,))
    return loop / time(solution.work.stages) if loop else 1.0
