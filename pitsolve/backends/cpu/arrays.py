"""What methods of solution do with whole arrays beside the verbs of a model.

To a method, an array of a backend has ``shape``, ``dtype``, ``ndim``, ``size`` and ``reshape``, and nothing else; the rest is
done here. Index arrays and what there is one of per sequence or per window are NumPy arrays of the host in every backend.
Index arrays are not written to once a verb has seen them, so that a backend may keep a copy of its own.
"""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu.pointwise import is_finite
from pitsolve.backends.cpu.workspace import aligned, aligned_zeros


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of unspecified contents."""
    return aligned(shape, dtype)


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of zeros."""
    return aligned_zeros(shape, dtype)


def copy(values: np.ndarray) -> np.ndarray:
    """A new array with the same numbers."""
    return values.copy()


def from_host(values: np.ndarray) -> np.ndarray:
    """An array of the backend from a C-contiguous one of the host, which must not change while that is in use."""
    return values


def to_host(values: np.ndarray) -> np.ndarray:
    """A NumPy array from one of the backend."""
    return values


def at_step(values: np.ndarray, t: int) -> np.ndarray:
    """values[:, t] (B, ...), a new array."""
    return values[:, t].copy()


def take(values: np.ndarray, row: np.ndarray, at: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
    """values[row, at] (W, ...), a new array; initial[row] where ``at`` is negative, which needs ``initial``."""
    taken = values[row, at]
    if initial is not None:
        before = np.flatnonzero(at < 0)
        taken[before] = initial[row[before]]
    return taken


def put(values: np.ndarray, row: np.ndarray, at: np.ndarray, new: np.ndarray, index: np.ndarray | None = None,
        minus: np.ndarray | None = None) -> None:
    """values[row, at] = new[index] - minus (W, ...), all of new and nothing by default; no place occurs twice."""
    new = new if index is None else new[index]
    values[row, at] = new if minus is None else combine(1.0, new, -1.0, minus)


def rows(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """values[index], a new array."""
    return values[index]


def put_rows(values: np.ndarray, index: np.ndarray, new: np.ndarray) -> None:
    """values[index] = new; no row occurs twice."""
    values[index] = new


def spread(out: np.ndarray, values: np.ndarray) -> None:
    """out[:, t] = values for all t."""
    out[...] = values[:, None]


def copy_steps(out: np.ndarray, values: np.ndarray, begin: int) -> None:
    """out[:, j] = values[:, begin + j], zero where there is no such step; ``begin`` may be negative."""
    low, high = _inside(out, values, begin)
    out[:, :low], out[:, high:] = 0.0, 0.0
    out[:, low:high] = values[:, begin + low:begin + high]


def add_steps(out: np.ndarray, values: np.ndarray, begin: int) -> None:
    """out[:, j] += values[:, begin + j] where there is such a step."""
    low, high = _inside(out, values, begin)
    out[:, low:high] += values[:, begin + low:begin + high]


def _inside(out: np.ndarray, values: np.ndarray, begin: int) -> tuple[int, int]:
    """The range of j for which ``values`` has a step begin + j."""
    low = min(max(0, -begin), out.shape[1])
    return low, max(low, min(out.shape[1], values.shape[1] - begin))


def clear_after(values: np.ndarray, stop: np.ndarray) -> None:
    """values[b, t] = 0 for t >= stop[b]."""
    for b in np.flatnonzero(stop < values.shape[1]):
        values[b, stop[b]:] = 0.0


def scale(values: np.ndarray, factor: float) -> None:
    """values *= factor, whatever stands past the ends of sequences."""
    with np.errstate(all="ignore"):
        values *= values.dtype.type(factor)


def combine(alpha: float, a: np.ndarray, beta: float, b: np.ndarray) -> np.ndarray:
    """alpha a + beta b, a new array; overflow is silent."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = a if alpha == 1.0 else alpha * a
        if beta == -1.0:
            return scaled - b
        return scaled + (b if beta == 1.0 else beta * b)


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of a * b."""
    return float((a * b).sum())


def squares(values: np.ndarray, minus: np.ndarray | None = None) -> np.ndarray:
    """The sum of squares of each row of values - minus (W, S), in float64, nothing by default; to the host."""
    values = values if minus is None else combine(1.0, values, -1.0, minus)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.square(values, dtype=np.float64).sum(axis=1)


def largest(values: np.ndarray) -> np.ndarray:
    """max |v| of each row (W, S), NaN if there is one; to the host."""
    return np.abs(values).max(axis=1, initial=0.0)


def mismatch(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """max |new - old| / max(1, |new|) of each row (W, S), and whether anything differs; to the host.

    The first is NaN where a number is not finite. To the second, NaN where NaN was is no difference.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = (np.abs(new - old) / np.maximum(1.0, np.abs(new))).max(axis=1, initial=0.0).astype(np.float64)
    differs = sizes != 0.0
    unknown = np.flatnonzero(np.isnan(sizes))
    old, new = old[unknown], new[unknown]
    differs[unknown] = ((new != old) & ~(np.isnan(new) & np.isnan(old))).any(axis=1)
    return sizes, differs


def finite(values: np.ndarray) -> np.ndarray:
    """Whether each row (B, ...) is free of NaN and infinity; to the host."""
    if is_finite(values):
        return np.ones(values.shape[0], bool)
    return np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
