"""Kernels on windows of block-tridiagonal matrices, built offline."""

import numpy as np
import offline
import pytest

from pitsolve.backends.cuda.small_matrices import LARGEST
from pitsolve.backends.cuda.tridiagonal_windows import TridiagonalWindows

DTYPES = [np.float32, np.float64]
OVERLAP = 2


def two_windows(n, dtype):
    """Windows that share two steps, and arrays of zeros of the shapes of their right side and their matrices."""
    diagonal, off, rhs = (np.zeros(shape, dtype) for shape in ((12, n, n), (11, n, n), (12, n)))
    windows = TridiagonalWindows(diagonal, off, np.array([0, 4]), np.array([6, 12]), OVERLAP)
    return windows, np.arange(2), rhs, np.zeros((2, n, n), dtype)


def chains(n, dtype):
    """The verbs that go through windows step by step."""
    windows, everyone, rhs, matrices = two_windows(n, dtype)
    messages = np.zeros((2, 1, n), dtype)
    windows.transmit(matrices, matrices, matrices.copy(), matrices.copy())
    windows.factor(np.zeros(2), matrices, matrices)
    windows.solve(everyone, rhs, False, messages, messages)
    windows.correct(everyone, False, messages, messages)


def rows(n, dtype):
    """The verbs that do all steps at once, with and without values on the overlap."""
    windows, everyone, rhs, matrices = two_windows(n, dtype)
    windows.factor(np.zeros(2), matrices, matrices)
    windows.residual(rhs, rhs)
    windows.mismatch()
    for split, length in ((False, 1 + OVERLAP), (True, 1 + OVERLAP)):
        messages = np.zeros((2, length, n), dtype)
        windows.begin(rhs, split)
        windows.merge(split)
        windows.post(everyone, matrices, matrices, messages.copy(), messages.copy())
        for right_side in (rhs, None):
            windows._right_sides(everyone, right_side, np.full(2, OVERLAP), split, messages, messages)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 8, "largest", "larger"])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
def test_chains_of_matrices_stay_in_registers(size, dtype, capability):
    largest = LARGEST // np.dtype(dtype).itemsize
    offline.check(lambda: chains({"largest": largest, "larger": largest + 1}.get(size, size), dtype), capability)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 8, 33])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
def test_rows_need_few_registers(n, dtype, capability):
    offline.check(lambda: rows(n, dtype), capability)
