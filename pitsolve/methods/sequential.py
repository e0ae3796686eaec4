"""Forward substitution: the loop itself, the reference for every other method."""

from __future__ import annotations

import numpy as np

from pitsolve.methods.problem import Problem

_SLAB_MEMORY = 4 << 20  # the input products of a slab stay in a cache until the loop has used them


def sequential(problem: Problem, states: np.ndarray, start: np.ndarray | None = None) -> None:
    """h_t = f(h_{t-1}, x_t) for start[b] <= t < stop[b], written into ``states``; the earlier states must be there."""
    model = problem.model
    rows = np.arange(states.shape[0])
    if start is None:
        start = np.zeros_like(problem.stop)
    before = problem.h0.copy()
    later = (start > 0) & (start < problem.stop)
    before[later] = states[rows[later], start[later] - 1]
    carry = model.carry(before)
    for begin, end in problem.slabs(model.step_bytes(model.VALUE), _SLAB_MEMORY):
        model.propagate(problem.x, carry, states, begin, end, start, problem.stop)
