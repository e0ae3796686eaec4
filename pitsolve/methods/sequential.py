"""Forward substitution: the loop itself, the reference for every other method."""

from __future__ import annotations

import numpy as np

from pitsolve.methods.problem import Problem


def sequential(problem: Problem, states: np.ndarray, start: np.ndarray | None = None) -> None:
    """h_t = f(h_{t-1}, x_t) for start[b] <= t < stop[b], written into ``states``; the earlier states must be there."""
    model, backend, before = problem.model, problem.backend, problem.h0
    if start is None:
        start = np.zeros_like(problem.stop)
    else:
        before = backend.arrays.take(states, np.arange(start.size), start - 1, problem.h0)
    carry = model.carry(before)
    for begin, end in problem.slabs(model.step_bytes(model.VALUE), backend.loop_memory()):
        model.propagate(problem.x, carry, states, begin, end, start, problem.stop)
