"""Checks of what users pass in. A message names the argument, what it got and what it expects."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from pitsolve.backends import select
from pitsolve.backends.cpu.pointwise import is_finite as _is_finite
from pitsolve.cells.base import Cell
from pitsolve.place import on_device, on_host, wrapped

_DTYPES = (np.float32, np.float64)


def describe(value: object) -> str:
    """What a user passed, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    return type(value).__name__


def float_array(name: str, value: object, ndims: tuple[int, ...] | None = None, *, finite: bool = True) -> np.ndarray:
    """The array behind an argument, uncopied where possible.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : array_like
        float32 or float64; any strides, writeable or not.  A sequence of floats is read as float64.
    ndims : tuple of int, optional
        Numbers of axes allowed.  None allows any.
    finite : bool
        Whether NaN and infinity are errors.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If the number of axes is not allowed or a value is not finite.
    """
    try:
        array = wrapped(value) if on_device(value) else np.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of float32 or float64, got {type(value).__name__} "
                        "that does not form an array") from None
    if array.dtype.newbyteorder("=") not in _DTYPES:
        raise TypeError(f"{name} must be an array of float32 or float64, got "
                        f"{describe(value)}{'' if array is value else f' of dtype {array.dtype}'}")
    if not on_device(array):
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if ndims is not None and array.ndim not in ndims:
        raise ValueError(f"{name} must have {_alternatives(ndims)} axes, got shape {array.shape}")
    if finite:
        all_finite(name, array)
    return array


def _alternatives(values: tuple) -> str:
    return " or ".join(str(v) for v in values)


def is_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor infinity; False may be wrong on the host, where sums overflow."""
    return bool(np.isfinite(select("cuda").magnitude(array))) if on_device(array) else _is_finite(array)


def contiguous(array: np.ndarray) -> np.ndarray:
    """An array in C order; on a device it is already."""
    return array if on_device(array) else np.ascontiguousarray(array)


def all_finite(name: str, array: np.ndarray) -> None:
    """Raise a ValueError that names the first NaN or infinity of ``array``."""
    if is_finite(array):
        return
    array = on_host(array)
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(np.argmax(bad), array.shape))
        where = index[0] if len(index) == 1 else index
        raise ValueError(f"{name} must be finite, got {array[index]} at index {where}" if index else
                         f"{name} must be finite, got {array[()]}")


def same_dtype(arrays: dict[str, np.ndarray]) -> np.dtype:
    """The one dtype of named arrays; a TypeError that names the arrays if they mix float32 and float64."""
    names = {}
    for name, array in arrays.items():
        names.setdefault(array.dtype, []).append(name)
    if len(names) > 1:
        listed = ", ".join(f"{dtype}: {' and '.join(group)}" for dtype, group in names.items())
        raise TypeError(f"the call mixes float32 and float64 ({listed}); convert them to one dtype")
    return next(iter(names))


def shape(name: str, array: np.ndarray, expected: tuple[int, ...], why: str) -> None:
    """Raise a ValueError unless ``array`` has the expected shape; ``why`` says where that shape comes from."""
    if array.shape != expected:
        raise ValueError(f"{name} must have shape {expected} {why}, got {array.shape}")


def flag(name: str, value: object) -> bool:
    """A boolean argument."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


# ------------------------------------------------------------------------------------------------- solve and gradient


def a_cell(cell: object) -> Cell:
    """A cell description, not something else."""
    if not isinstance(cell, Cell):
        raise TypeError(f"cell must be a cell such as pitsolve.cells.GRU(...), got {type(cell).__name__}")
    return cell


def parameters(cell: Cell, params: object) -> dict[str, np.ndarray]:
    """Parameters with the names and shapes of the cell and one dtype, contiguous."""
    if not isinstance(params, dict):
        raise TypeError(f"params must be a dict of arrays, got {type(params).__name__}")
    expected = cell.shapes
    for name in expected:
        if name not in params:
            raise ValueError(f"params must have {_some(expected)}, but {name!r} is missing")
    for name in params:
        if name not in expected:
            raise ValueError(f"params has an unknown entry {name!r}; {type(cell).__name__} takes {_some(expected)}")
    arrays = {}
    for name, size in expected.items():
        arrays[name] = np.ascontiguousarray(on_host(float_array(f"params[{name!r}]", params[name])))
        if arrays[name].shape != size:  # the words cost more than the comparison
            shape(f"params[{name!r}]", arrays[name], size, f"for {cell}")
    if len({array.dtype for array in arrays.values()}) > 1:
        same_dtype({f"params[{name!r}]": array for name, array in arrays.items()})
    return arrays


def _some(names: Iterable[str]) -> str:
    """Names in a message; a deep network has thousands."""
    listed = sorted(names)
    return str(listed) if len(listed) <= 20 else f"{str(listed[:5])[:-1]}, ... {len(listed)} names]"


def lengths(value: object, batch: int, steps: int, batched: bool) -> np.ndarray:
    """Lengths (B,) of the sequences of a batch; all of them ``steps`` long where ``value`` is None."""
    if value is None:
        return np.full(batch, steps, np.int64)
    if not batched:
        raise ValueError("lengths is for batches (B, T, m); cut a single sequence x instead")
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, got dtype {array.dtype}")
    shape("lengths", array, (batch,), "for the batch of x")
    for b in np.flatnonzero((array < 0) | (array > steps)):
        raise ValueError(f"lengths must be between 0 and T = {steps}, got {array[b]} at index {b}")
    return array.astype(np.int64)


def finite_to(name: str, array: np.ndarray, stop: np.ndarray) -> None:
    """Like :func:`all_finite` on (B, T, .), but the steps past a sequence's end may hold anything."""
    try:
        all_finite(name, array)
    except ValueError:
        array = on_host(array)
        for b, end in enumerate(stop):
            bad = ~np.isfinite(array[b, :end])
            if bad.any():
                t, i = np.argwhere(bad)[0]
                raise ValueError(f"{name} must be finite, got {array[b, t, i]} in sequence {b} at step {t}, "
                                 f"component {i}") from None


def inputs(cell: Cell, x: object, dtype: np.dtype | None) -> tuple[np.ndarray, bool | None]:
    """Inputs as (B, T, m), and whether they came as a batch (None if h0 decides: a cell without inputs)."""
    if cell.input_size == 0:
        if isinstance(x, bool) or not isinstance(x, (int, np.integer)) or x < 0:
            raise TypeError(f"x must be the number of steps, a non-negative integer, for a cell without inputs; got {x!r}")
        return np.zeros((1, int(x), 0), dtype or np.float64), None
    x = float_array("x", x, (2, 3), finite=False)
    if x.shape[-1] != cell.input_size:
        raise ValueError(f"x must have {cell.input_size} features in its last axis for {cell}, got shape {x.shape}")
    return contiguous(x if x.ndim == 3 else x.reshape(1, *x.shape)), x.ndim == 3


def initial_state(cell: Cell, h0: object, batch: int, batched: bool | None, dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """h0 as (B, n), zeros by default, and whether the call is a batch."""
    n = cell.state_size
    if h0 is None:
        return np.zeros((batch, n), dtype), bool(batched)
    h0 = float_array("h0", h0, (1, 2))
    if batched is None:
        batched = h0.ndim == 2
        batch = h0.shape[0] if batched else 1
    shape("h0", h0, (batch, n) if batched else (n,), f"for {cell} and x")
    return contiguous(h0.reshape(batch, n)), batched


def states_like(name: str, value: object, batch: int, steps: int, cell: Cell, batched: bool) -> np.ndarray:
    """An array of the shape of the states, as (B, T, n)."""
    array = float_array(name, value, finite=False)
    n = cell.state_size
    shape(name, array, (batch, steps, n) if batched else (steps, n), "like the states")
    return contiguous(array.reshape(batch, steps, n))


def is_number(value: object) -> bool:
    """A real number, NaN too."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _number(name: str, value: object) -> float:
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def positive(name: str, value: object) -> float:
    """A finite number above zero."""
    number = _number(name, value)
    if not 0 < number < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def fraction(name: str, value: object) -> float:
    """A number in [0, 1]."""
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return number


def _integer(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def count(name: str, value: object) -> int:
    """An integer of at least one."""
    return _integer(name, value, 1)


def length(name: str, value: object) -> int:
    """An integer of at least zero."""
    return _integer(name, value, 0)


def choice(name: str, value: object, valid: Iterable[str]) -> str:
    """One of a few words."""
    valid = tuple(valid)
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{name} must be one of {_alternatives(tuple(map(repr, valid)))}, got {value!r}")
    return value


def options(method: str, given: dict[str, object], valid: dict[str, Callable]) -> dict[str, object]:
    """The named options of a method, each through its own check; an unknown one is a TypeError."""
    for name in given:
        if name not in valid:
            listed = f"takes {', '.join(sorted(valid))}" if valid else "takes no options"
            raise TypeError(f"method {method!r} has no option {name!r}; it {listed}")
    return {name: valid[name](name, value) for name, value in given.items()}
