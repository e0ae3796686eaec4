"""Checks of what training takes, before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pitsolve import check


def loss_result(found: object) -> tuple[float, object]:
    """What a user's loss returns."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise TypeError(f"loss must return a pair (value, doutputs), got {check.describe(found)}")
    value, doutputs = found
    if not check.is_number(value) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"loss must return a number and doutputs, got {check.describe(value)} as the first")
    return float(value), doutputs


def loss_gradient(doutputs: object, outputs: np.ndarray) -> None:
    """dL/dy from a user's loss."""
    if not isinstance(doutputs, np.ndarray) or doutputs.shape != outputs.shape or doutputs.dtype != outputs.dtype:
        raise ValueError(f"loss must give a value and doutputs like the outputs, {check.describe(outputs)}, got "
                         f"{check.describe(doutputs)}")


def momentum(name: str, value: object) -> float:
    """A number from 0 up to 1, without 1."""
    if check.fraction(name, value) == 1.0:
        raise ValueError(f"{name} must be below 1, got {value!r}")
    return float(value)


def not_negative(name: str, value: object) -> float:
    """A finite number of at least zero."""
    return 0.0 if check.is_number(value) and value == 0 else check.positive(name, value)


def factor(value: object) -> float:
    """What a user's schedule returns."""
    if not check.is_number(value) or not np.isfinite(value):
        raise ValueError(f"schedule must return a finite number, got {value!r}")
    return float(value)


def milestones(value: object) -> tuple[int, ...]:
    """Epochs in ascending order."""
    if not isinstance(value, Iterable):
        raise TypeError(f"milestones must be a tuple of epochs, got {value!r}")
    epochs = tuple(check.count(f"milestones[{i}]", epoch) for i, epoch in enumerate(value))
    if list(epochs) != sorted(set(epochs)):
        raise ValueError(f"milestones must ascend, got {epochs}")
    return epochs


def function(name: str, value: object, optional: bool = True) -> Callable | None:
    """Something to call."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function, got {check.describe(value)}")
    return value


def pair(name: str, value: object) -> tuple[object, object]:
    """(inputs, labels or targets)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (inputs, labels), got {check.describe(value)}")
    return value[0], value[1]


def groups_of_arrays(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """What a checkpoint can hold."""
    for group, members in arrays.items():
        if "/" in group:
            raise ValueError(f"the name of a group must not have '/', got {group!r}")
        for name, array in members.items():
            if np.asarray(array).dtype.hasobject:
                raise TypeError(f"arrays[{group!r}][{name!r}] must be numbers, got Python objects")


def file_to_write(name: str, value: object) -> Path | None:
    """A path in a folder that exists."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {type(value).__name__}")
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {str(path)!r}")
    return path


def labels(value: object, outputs: tuple[int, ...]) -> np.ndarray:
    """Labels (...) for outputs (..., K): integers below K; those below 0 stand for no label."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {check.describe(array)}")
    check.shape("labels", array, outputs[:-1], f"for outputs of shape {outputs}")
    if array.size and array.max() >= outputs[-1]:
        raise ValueError(f"labels must be below the {outputs[-1]} classes of the outputs, got {array.max()}")
    return array


def counted(value: object, outputs: tuple[int, ...]) -> None:
    """A mask of the leading axes of the outputs."""
    if not isinstance(value, np.ndarray) or value.dtype != bool:
        raise TypeError(f"counted must be an array of bool, got {check.describe(value)}")
    check.shape("counted", value, outputs[:value.ndim], f"for outputs of shape {outputs}")


def betas(value: object) -> tuple[float, float]:
    """The rates at which the two averages of Adam forget."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {value!r}")
    return momentum("betas[0]", value[0]), momentum("betas[1]", value[1])


def beyond(name: str, value: object, other: str, least: float) -> float:
    """A finite number above another argument."""
    if check.positive(name, value) <= least:
        raise ValueError(f"{name} must be above {other} = {least}, got {value!r}")
    return float(value)
