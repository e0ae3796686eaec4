"""Checks of least-squares problems and of their windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from pitsolve import check
from pitsolve.leastsquares.windows import Chain, equal_boundaries


def block_tridiagonal(problem: Any) -> dict[str, np.ndarray]:
    """The arrays of a BlockTridiagonal, contiguous and of one dtype."""
    arrays = {name: check.float_array(name, getattr(problem, name), ndims)
              for name, ndims in (("diagonal", (3,)), ("off_diagonal", (3,)), ("rhs", (2,)))}
    steps, n = arrays["rhs"].shape
    if steps == 0 or n == 0:
        raise ValueError(f"rhs must have at least one step and one unknown, got shape {(steps, n)}")
    check.shape("diagonal", arrays["diagonal"], (steps, n, n), "for rhs of shape (T, n)")
    check.shape("off_diagonal", arrays["off_diagonal"], (steps - 1, n, n), "for rhs of shape (T, n)")
    symmetric("diagonal", arrays["diagonal"])
    if (problem.rows is None) != (problem.targets is None):
        raise ValueError("rows and targets belong together, give both or neither")
    if problem.rows is not None:
        arrays["rows"] = check.float_array("rows", problem.rows, (4,))
        arrays["targets"] = check.float_array("targets", problem.targets, (2,))
        check.shape("rows", arrays["rows"], (steps, arrays["targets"].shape[1], 2, n), "for rhs and targets")
        check.shape("targets", arrays["targets"], (steps, arrays["rows"].shape[1]), "for rhs and rows")
    check.same_dtype(arrays)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def symmetric(name: str, blocks: np.ndarray) -> None:
    """A ValueError that names the first block that is not symmetric to rounding."""
    if np.array_equal(blocks, blocks.transpose(0, 2, 1)):
        return
    scale = np.abs(blocks).max(axis=(1, 2), initial=0.0, keepdims=True)
    bad = (np.abs(blocks - blocks.transpose(0, 2, 1)) > 1e3 * np.finfo(blocks.dtype).eps * scale).any(axis=(1, 2))
    if bad.any():
        raise ValueError(f"{name} must hold symmetric blocks, block {int(np.argmax(bad))} is not")


def positive_definite(failed: dict[str, int]) -> None:
    """A ValueError that names the covariance and the first step, or -1, at which it has no Cholesky factor."""
    for name, step in failed.items():
        if step >= 0:
            raise ValueError(f"{name} must be positive definite, at step {step} it is not")


def rows(A: object, z: object, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows (T, r, 2, n) grouped by the step at which they end, and their targets (T, r)."""
    if size is not None:
        A, z = _grouped(A, z, check.count("size", size))
    A, z = check.float_array("A", A, (4,)), check.float_array("z", z, (2,))
    steps, r, two, n = A.shape
    if two != 2:
        raise ValueError(f"A must have shape (T, r, 2, n), the coefficients on g_(t-1) and g_t, got {A.shape}")
    check.shape("z", z, (steps, r), "for A of shape (T, r, 2, n)")
    check.same_dtype({"A": A, "z": z})
    used = A.any(axis=3)
    used[:1, :, 0] = False
    count = int(used.any(axis=2).sum())
    if count < steps * n:
        raise ValueError(f"A must have full column rank, but {count} rows cannot determine {steps} x {n} unknowns")
    A = np.array(A)
    A[:1, :, 0] = 0
    return A, np.ascontiguousarray(z)


def _grouped(A: object, z: object, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of a matrix (q, T n)."""
    if not scipy.sparse.issparse(A):
        A = check.float_array("A", A, (2,))
    z = check.float_array("z", z, (1,))
    check.shape("z", z, (A.shape[0],), "for the rows of A")
    if A.shape[1] % n:
        raise ValueError(f"A must have a multiple of size = {n} columns, got {A.shape[1]}")
    matrix = scipy.sparse.coo_array(A)
    row, block = matrix.row, matrix.col // n
    first, last = np.full(z.size, A.shape[1] // n), np.zeros(z.size, np.int64)
    np.minimum.at(first, row, block)
    np.maximum.at(last, row, block)
    wide = np.flatnonzero(last > first + 1)
    if wide.size:
        raise ValueError(f"each row of A may touch two consecutive blocks of {n} columns, row {wide[0]} touches blocks "
                         f"{first[wide[0]]} to {last[wide[0]]}")
    order = np.argsort(last, kind="stable")
    number = np.bincount(last, minlength=A.shape[1] // n)
    place = np.empty(z.size, np.int64)
    place[order] = np.arange(z.size) - np.repeat(np.cumsum(number) - number, number)
    blocks = np.zeros((number.size, number.max(initial=0), 2, n), matrix.dtype)
    targets = np.zeros(blocks.shape[:2], z.dtype)
    blocks[last[row], place[row], 1 - (last[row] - block), matrix.col % n] = matrix.data
    targets[last, place] = z
    return blocks, targets


def state_space(F: Any, Q: Any, C: Any, R: Any, y: Any, b: Any, observed: Any) -> tuple[np.ndarray, ...]:
    """The matrices of a linear state-space model, one a step."""
    arrays = {name: check.float_array(name, value, (2, 3)) for name, value in (("F", F), ("Q", Q), ("C", C), ("R", R))}
    y = check.float_array("y", y, (2,), finite=False)
    steps, k = y.shape
    n = arrays["F"].shape[-1]
    if steps == 0:
        raise ValueError("y must have at least one step")
    b = np.zeros(n, y.dtype) if b is None else check.float_array("b", b, (1, 2))
    check.same_dtype({**arrays, "y": y, "b": b})
    for name, shape in (("F", (n, n)), ("Q", (n, n)), ("C", (k, n)), ("R", (k, k))):
        arrays[name] = _per_step(name, arrays[name], steps, shape)
    for name in ("Q", "R"):
        symmetric(name, arrays[name])
    return *arrays.values(), np.ascontiguousarray(y), _per_step("b", b, steps, (n,)), _observed(observed, y)


def _per_step(name: str, array: np.ndarray, steps: int, shape: tuple[int, ...]) -> np.ndarray:
    """One array for all steps (1, ...) or one for each (T, ...)."""
    if array.shape not in (shape, (1, *shape), (steps, *shape)):
        raise ValueError(f"{name} must have shape {shape} or {(steps, *shape)} for the state and y, got {array.shape}")
    return np.ascontiguousarray(array.reshape(-1, *shape))


def _observed(observed: Any, y: np.ndarray) -> np.ndarray:
    """Where y was observed (T, k); y must be finite there."""
    if observed is None:
        observed = np.ones(y.shape, bool)
    observed = np.asarray(observed)
    if observed.dtype != bool or observed.shape not in (y.shape, y.shape[:1]):
        raise ValueError(f"observed must be boolean of shape {y.shape[:1]} or {y.shape}, got {check.describe(observed)}")
    observed = np.ascontiguousarray(np.broadcast_to(observed if observed.ndim == 2 else observed[:, None], y.shape))
    check.all_finite("y", np.where(observed, y, 0))
    return observed


def weights(a: Any, z: Any, lam: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Features that span all their dimensions, targets and a positive tie."""
    a, z = check.float_array("a", a, (2,)), check.float_array("z", z, (1,))
    check.shape("z", z, a.shape[:1], "for a")
    check.same_dtype({"a": a, "z": z})
    rank = int(np.linalg.matrix_rank(a.T @ a)) if a.size else 0
    if rank < max(1, a.shape[1]):
        raise ValueError(f"a must span all its {a.shape[1]} dimensions, but has rank {rank}: drop features that depend "
                         "on others")
    return a, z, check.positive("lam", lam)


def chain(windows: Any, overlap: Any, steps: int) -> Chain:
    """Windows given by their count or by their boundaries, each core longer than the overlap."""
    overlap = check.length("overlap", overlap)
    if isinstance(windows, (int, np.integer)):
        count = check.count("windows", windows)
        most = max(1, steps // (overlap + 1))
        if count > most:
            raise ValueError(f"windows = {count} of {steps} steps would be shorter than overlap + 1 = {overlap + 1}, so that "
                             f"windows that are no neighbours would touch; at most {most} windows, or overlap at most "
                             f"{steps // count - 1}, are valid" if steps >= count else
                             f"windows must be at most the number of steps, {steps}, got {count}")
        return Chain(equal_boundaries(steps, count), overlap)
    boundaries = np.asarray(windows)
    if boundaries.ndim != 1 or boundaries.dtype.kind not in "iu" or boundaries.size < 2:
        raise TypeError(f"windows must be a count or an array of integer boundaries 0 ... T, got {check.describe(windows)}")
    if boundaries[0] != 0 or boundaries[-1] != steps:
        raise ValueError(f"windows must begin at 0 and end at T = {steps}, got {boundaries[0]} and {boundaries[-1]}")
    lengths = np.diff(boundaries)
    least = 1 if lengths.size == 1 else overlap + 1
    for i in np.flatnonzero(lengths < least):
        raise ValueError(f"window {i} has {lengths[i]} steps, but each must have at least overlap + 1 = {least}, so that "
                         "windows that are no neighbours do not touch; shift its boundaries or take overlap at most "
                         f"{lengths.min() - 1}")
    return Chain(boundaries.astype(np.int64), overlap)
