"""Independent tasks on Python threads, each of which may call kernels that run on threads themselves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from pitsolve.backends.cpu.pointwise import magnitude


def _kernels_may_overlap() -> bool:
    """Whether two threads may be in parallel kernels at once; Numba knows its threading layer after the first of them."""
    magnitude(np.zeros(1))
    return numba.threading_layer() in ("omp", "tbb")


def together(tasks: list[Callable[[], object]], workers: int | None = None) -> list:
    """The results of ``tasks``, in their order; up to ``workers`` (default: as many as Numba's threads) run at once.

    The workers share the threads of the caller. Where the threading layer does not allow that, tasks run one after the other.
    """
    threads = numba.get_num_threads()
    workers = min(len(tasks), workers or threads)
    if workers == 1 or not _kernels_may_overlap():
        return [task() for task in tasks]

    def run(task: Callable[[], object]) -> object:
        numba.set_num_threads(max(1, threads // workers))  # of this worker only
        return task()

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run, tasks))
