"""Checks of the arguments of affine scans."""

from __future__ import annotations

import numpy as np

from pitsolve.check import describe, float_array, same_dtype, shape


def _matrices_of(A_name: str, A: np.ndarray, b_name: str, b: np.ndarray) -> None:
    """Raise a ValueError unless A holds one diagonal, dense or block-diagonal matrix for each row of b (..., n)."""
    extra = A.ndim - b.ndim
    if extra not in (0, 1, 2):
        raise ValueError(f"{A_name} must have as many axes as {b_name} (diagonal), one more (dense) or two more (block "
                         f"diagonal), got {A.ndim} axes, shape {A.shape}, for {b_name} of shape {b.shape}")
    n = b.shape[-1]
    if extra < 2:
        shape(A_name, A, b.shape + (n,) * extra, f"for {b_name} of shape {b.shape}")
        return
    blocks, rows, columns = A.shape[-3:]
    if rows != columns or blocks * rows != n or A.shape[:-3] != b.shape[:-1]:
        raise ValueError(f"{A_name} must have shape (..., k, m, m) with k m = {n} and leading axes {b.shape[:-1]} "
                         f"for {b_name} of shape {b.shape}, got {A.shape}")


def scan_arguments(A: object, b: object, y0: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of an affine scan, y0 filled with zeros where it is None.

    ``b`` is (..., T, n); ``A`` is (..., T, n), (..., T, n, n) or (..., T, k, n // k, n // k); ``y0`` is (..., n).
    Only y0 is checked for NaN and infinity here: in A and b they always reach the last state, which is checked instead.
    """
    b = float_array("b", b, finite=False)
    A = float_array("A", A, finite=False)
    if b.ndim < 2:
        raise ValueError(f"b must have at least 2 axes (..., T, n), got shape {b.shape}")
    _matrices_of("A", A, "b", b)
    expected = b.shape[:-2] + b.shape[-1:]
    y0 = np.zeros(expected, b.dtype) if y0 is None else float_array("y0", y0)
    shape("y0", y0, expected, f"for b of shape {b.shape}")
    same_dtype({"A": A, "b": b, "y0": y0})
    return A, b, y0


def affine_map(name: str, pair: object) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of an affine map (A, b): b is (..., n); A is (..., n), (..., n, n) or (..., k, n // k, n // k)."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (A, b), got {describe(pair)}")
    A = float_array(f"{name}[0]", pair[0], finite=False)
    b = float_array(f"{name}[1]", pair[1], finite=False)
    if b.ndim < 1:
        raise ValueError(f"{name}[1] must have at least 1 axis (..., n), got a scalar")
    _matrices_of(f"{name}[0]", A, f"{name}[1]", b)
    return A, b
