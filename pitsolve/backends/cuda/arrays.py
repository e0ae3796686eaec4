"""What methods of solution do with whole arrays on the device beside the verbs of a model; see backends/cpu/arrays.py."""

from __future__ import annotations

import math

import numpy as np

from pitsolve.backends.cuda import rows as kernels
from pitsolve.backends.cuda.launch import blocks_for, device, specialise

_THREADS = 256
_WAVES = 8  # blocks a multiprocessor; more of them do not use more of the memory
_PARTS = 64 * 256  # partial sums of a dot product, whatever the card


def _blocks(items: int) -> int:
    """Blocks for so many independent items, each thread taking several if there are many."""
    return max(1, min(blocks_for(items, _THREADS), _WAVES * device().multiprocessors))


def _grid(rows: int, items: int) -> tuple[int, int]:
    """Blocks along a row and rows at once."""
    return _blocks(items), max(1, min(rows, 65535))


def _kernel(function, dtype, **constants):
    return specialise(function, dtype, **constants)


def _sizes(values) -> tuple[int, int, int]:
    """(B, T, numbers in a step) of an array (B, T, ...)."""
    return values.shape[0], values.shape[1], math.prod(values.shape[2:])


def empty(shape: tuple[int, ...], dtype: np.dtype):
    """An array of unspecified contents."""
    return device().empty(shape, dtype)


def zeros(shape: tuple[int, ...], dtype: np.dtype):
    """An array of zeros."""
    out = device().empty(shape, dtype)
    if out.size:
        _kernel(kernels.clear, dtype)(_grid(1, out.size), _THREADS, out.reshape(-1), device().indices(np.zeros(1, np.int64)),
                                      1, out.size, 1)
    return out


def copy(values):
    """A new array with the same numbers."""
    out = empty(values.shape, values.dtype)
    copy_steps(out.reshape((1, -1, 1)), values.reshape((1, -1, 1)), 0)
    return out


def from_host(values: np.ndarray):
    """An array of the device from one of the host."""
    return device().upload(values)


def to_host(values) -> np.ndarray:
    """A NumPy array from one of the device."""
    return device().download(values)


def at_step(values, t: int):
    """values[:, t] (B, ...), a new array."""
    out = empty((values.shape[0], 1, *values.shape[2:]), values.dtype)
    copy_steps(out, values, t)
    return out.reshape((values.shape[0], *values.shape[2:]))


def take(values, row: np.ndarray, at: np.ndarray, initial=None):
    """values[row, at] (W, ...), a new array; initial[row] where ``at`` is negative, which needs ``initial``."""
    _, steps, width = _sizes(values)
    out = empty((row.size, *values.shape[2:]), values.dtype)
    if out.size:
        before = values if initial is None else initial
        _kernel(kernels.gather, values.dtype, INITIAL=initial is not None)(
            _blocks(32 * row.size), _THREADS, values.reshape(-1), before.reshape(-1), device().indices(row),
            device().indices(at), out.reshape(-1), row.size, steps, width)
    return out


def put(values, row: np.ndarray, at: np.ndarray, new, index: np.ndarray | None = None, minus=None) -> None:
    """values[row, at] = new[index] - minus (W, ...), all of new and nothing by default; no place occurs twice."""
    _, steps, width = _sizes(values)
    if row.size * width:
        _kernel(kernels.scatter, values.dtype, PICKED=index is not None, MINUS=minus is not None)(
            _blocks(32 * row.size), _THREADS, values.reshape(-1), device().indices(row), device().indices(at), new.reshape(-1),
            device().indices(row if index is None else index), (new if minus is None else minus).reshape(-1), row.size, steps,
            width)


def rows(values, index: np.ndarray):
    """values[index], a new array."""
    return take(values.reshape((values.shape[0], 1, *values.shape[1:])), index, np.zeros_like(index))


def put_rows(values, index: np.ndarray, new) -> None:
    """values[index] = new; no row occurs twice."""
    put(values.reshape((values.shape[0], 1, *values.shape[1:])), index, np.zeros_like(index), new)


def spread(out, values) -> None:
    """out[:, t] = values for all t."""
    batch, steps, width = _sizes(out)
    if out.size:
        _kernel(kernels.repeat, out.dtype)(
            _grid(batch, steps), _THREADS, out.reshape(-1), values.reshape(-1), batch, steps, width)


def copy_steps(out, values, begin: int) -> None:
    """out[:, j] = values[:, begin + j], zero where there is no such step; ``begin`` may be negative."""
    _shift(out, values, begin, add=False)


def add_steps(out, values, begin: int) -> None:
    """out[:, j] += values[:, begin + j] where there is such a step."""
    _shift(out, values, begin, add=True)


def _shift(out, values, begin: int, add: bool) -> None:
    batch, steps, width = _sizes(out)
    if out.size:
        _kernel(kernels.shift, out.dtype, ADD=add)(
            _grid(batch, steps * width), _THREADS, out.reshape(-1), values.reshape(-1), begin * width, batch, steps * width,
            values.shape[1] * width)


def clear_after(values, stop: np.ndarray) -> None:
    """values[b, t] = 0 for t >= stop[b]."""
    batch, steps, width = _sizes(values)
    if values.size and (stop < steps).any():
        _kernel(kernels.clear, values.dtype)(
            _grid(batch, steps * width), _THREADS, values.reshape(-1), device().indices(stop), batch, steps * width,
            width)


def scale(values, factor: float) -> None:
    """values *= factor."""
    if values.size:
        _kernel(kernels.multiply, values.dtype)(_blocks(values.size), _THREADS, values.reshape(-1), float(factor), values.size)


def combine(alpha: float, a, beta: float, b):
    """alpha a + beta b, a new array; overflow is silent."""
    out = empty(a.shape, a.dtype)
    if a.size:
        _kernel(kernels.linear, a.dtype)(_blocks(a.size), _THREADS, float(alpha), a.reshape(-1), float(beta), b.reshape(-1),
                                         out.reshape(-1), a.size)
    return out


def dot(a, b) -> float:
    """The sum of a * b."""
    parts = min(_PARTS, blocks_for(a.size, _THREADS) * _THREADS)
    sums = device().upload(np.zeros(parts))
    _kernel(kernels.products, np.float64)(parts // _THREADS, _THREADS, a.reshape(-1), b.reshape(-1), sums, a.size)
    return float(device().download(sums).sum())


def squares(values, minus=None) -> np.ndarray:
    """The sum of squares of each row of values - minus (W, S), in float64, nothing by default; to the host."""
    count, width = values.shape
    sums = empty((count,), np.float64)
    if count == 0:
        return np.zeros(0)
    _kernel(kernels.square_sums, np.float64, MINUS=minus is not None)(
        _blocks(count), _THREADS, values.reshape(-1), (values if minus is None else minus).reshape(-1), sums, count, width)
    return device().download(sums)


def largest(values) -> np.ndarray:
    """max |v| of each row (W, ...), NaN if there is one; to the host."""
    integer = np.int32 if values.dtype == np.float32 else np.int64
    count = values.shape[0]
    if values.size == 0:
        return np.zeros(count, values.dtype)
    width = values.size // count
    result = device().upload(np.zeros(count, integer))
    _kernel(kernels.maxima, values.dtype, BITS=integer)(
        _grid(count, width), _THREADS, values.reshape(-1), result, count, width)
    return device().download(result).view(values.dtype)


def mismatch(old, new) -> tuple[np.ndarray, np.ndarray]:
    """max |new - old| / max(1, |new|) of each row (W, S), and whether anything differs; to the host.

    The first is NaN where a number is not finite. To the second, NaN where NaN was is no difference.
    """
    count, width = new.shape
    if count == 0:
        return np.zeros(0), np.zeros(0, bool)
    sizes, differs = empty((count,), new.dtype), empty((count,), np.bool_)
    _kernel(kernels.compare, new.dtype)(_blocks(count), _THREADS, old.reshape(-1), new.reshape(-1), sizes, differs, count,
                                        width)
    return device().download(sizes).astype(np.float64), device().download(differs)


def finite(values) -> np.ndarray:
    """Whether each row (B, ...) is free of NaN and infinity; to the host."""
    return np.isfinite(largest(values))
