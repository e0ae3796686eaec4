"""How ``python -m bench gpu`` measures: sizes, repeats and the clock."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SEED = 20931


class Settings(NamedTuple):
    """``quick``: tiny sizes, one repeat. ``once``: everything once, to compile it, and no clock. ``simulated``: no card."""

    quick: bool
    once: bool
    simulated: bool

    def pick(self, full: Any, tiny: Any) -> Any:
        """One of two sizes."""
        return tiny if self.quick else full

    def goal(self, target: float | None) -> float | None:
        """What is hoped for at the full size; nothing is at others."""
        return None if self.quick else target

    def timed(self, call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
        """Median seconds until the card is done, after one call that compiles, and the last result."""
        from pitsolve.backends.cuda.launch import cuda

        result = call()
        cuda.synchronize()
        times = [float("nan")] if self.once else []
        for _ in range(0 if self.once else self.pick(repeats, 1)):
            result = None  # its memory, before the next result needs as much
            start = time.perf_counter()
            result = call()
            cuda.synchronize()
            times.append(time.perf_counter() - start)
        return float(np.median(times)), result


def random(*shape: int) -> np.ndarray:
    """Normal numbers in float32, always the same."""
    return np.random.default_rng(SEED).standard_normal(shape, np.float32)


def recurrence(batch: int, steps: int, n: int, dense: bool) -> tuple[np.ndarray, np.ndarray]:
    """A and b of a contracting affine recurrence in float32."""
    if dense:
        return random(batch, steps, n, n) * np.float32(0.9 / np.sqrt(n)), random(batch, steps, n)
    return np.float32(0.9) * np.tanh(random(batch, steps, n)), random(batch, steps, n)
