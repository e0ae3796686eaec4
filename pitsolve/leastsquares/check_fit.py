"""Checks of the arguments of fit_schwarz."""

from __future__ import annotations

from typing import Any

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Cell, Parameters
from pitsolve.leastsquares.check_problem import chain
from pitsolve.leastsquares.windows import Chain

READOUT = ("weight_hy", "bias_hy")


def windows(value: Any, overlap: Any, steps: int) -> Chain:
    """Windows that overlap, if there are several."""
    result = chain(value, overlap, steps)
    if result.count > 1 and result.overlap == 0:
        raise ValueError("overlap must be at least 1: neighbours agree on the states that they share, got 0")
    return result


def targets(y: Any) -> np.ndarray:
    """y as an array (T, m1) or (B, T, m1)."""
    y = check.float_array("y", y, (2, 3))
    if 0 in y.shape:
        raise ValueError(f"y must have at least one sequence, one step and one output, got shape {y.shape}")
    return y


def data(cell: Cell, params: Any, x: Any, y: np.ndarray, h0: Any) -> tuple[Parameters, np.ndarray, np.ndarray, np.ndarray]:
    """The cell's parameters; x (B, T, m), y (B, T, m1) and h0 (B, n)."""
    if not isinstance(params, dict):
        raise TypeError(f"params0 must be a dict of arrays, got {type(params).__name__}")
    inner = check.parameters(cell, {name: value for name, value in params.items() if name not in READOUT})
    x, batched = check.inputs(cell, x, y.dtype)
    many = y.ndim == 3
    batch, steps = y.shape[:-1] if many else (1, y.shape[0])
    if cell.input_size == 0:
        x, batched = np.zeros((batch, x.shape[1], 0), y.dtype), many
    if batched != many or x.shape[:2] != (batch, steps):
        raise ValueError(f"y must have the steps of x, as (T, m1) or (B, T, m1): y has shape {y.shape}, x "
                         f"{x.shape if batched else x.shape[1:]}")
    check.all_finite("x", x)
    h0, _ = check.initial_state(cell, h0, batch, batched, x.dtype)
    check.same_dtype({**{f"params0[{name!r}]": value for name, value in inner.items()}, "x": x, "y": y, "h0": h0})
    return inner, x, y.reshape(batch, steps, -1), h0


def readout(cell: Cell, params: Parameters, outputs: int, dtype: np.dtype) -> Parameters | None:
    """``weight_hy`` (m1, k) and ``bias_hy`` (m1,), or None where neither is given."""
    given = {name: params[name] for name in READOUT if name in params}
    if not given:
        return None
    if len(given) == 1:
        raise ValueError(f"params0 must have both weight_hy and bias_hy or neither, got only {next(iter(given))!r}")
    weight = check.float_array("params0['weight_hy']", given["weight_hy"], (2,))
    bias = check.float_array("params0['bias_hy']", given["bias_hy"], (1,))
    if weight.shape[0] != outputs or not 1 <= weight.shape[1] <= cell.state_size:
        raise ValueError(f"params0['weight_hy'] must have shape (m1, k) with m1 = {outputs} for y and k between 1 and the size "
                         f"of the state, {cell.state_size}, got {weight.shape}")
    check.shape("params0['bias_hy']", bias, (outputs,), "for y")
    for name, array in (("params0['weight_hy']", weight), ("params0['bias_hy']", bias)):
        if array.dtype != dtype:
            check.same_dtype({name: array, "x and y": np.empty(0, dtype)})
    return {"weight_hy": weight, "bias_hy": bias}


def finite_start(values: np.ndarray | float) -> None:
    """States and loss of the start."""
    if not np.isfinite(values).all():
        raise ValueError("params0 must give finite states and a finite loss, but they overflow; check the parameters and the "
                         "scale of x and y")


def at_least_zero(name: str, value: Any) -> float:
    """A finite number that is not negative."""
    if not check.is_number(value) or not 0 <= value < np.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def batch_size(value: Any, batch: int) -> int:
    """Sequences of one iteration; all by default."""
    if value is None:
        return batch
    if check.count("batch_size", value) > batch:
        raise ValueError(f"batch_size must be at most the number of sequences, {batch}, got {value}")
    return int(value)
