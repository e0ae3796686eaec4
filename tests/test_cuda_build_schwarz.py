"""Kernels on windows of block-tridiagonal matrices, built offline."""

import numpy as np
import offline
import pytest

from pitsolve.backends.cuda.tridiagonal_windows import TridiagonalWindows


def verbs(n, dtype):
    """Every verb of two windows, with and without values on the overlap."""
    first, last, overlap = np.array([0, 6]), np.array([8, 12]), 2
    diagonal, off, rhs = (np.zeros(shape, dtype) for shape in ((12, n, n), (11, n, n), (12, n)))
    windows = TridiagonalWindows(diagonal, off, first, last, overlap)
    matrices, everyone = np.zeros((2, n, n), dtype), np.arange(2)
    windows.transmit(matrices, matrices, matrices.copy(), matrices.copy())
    windows.factor(np.zeros(2), matrices, matrices)
    windows.residual(rhs, windows.merge(True))
    windows.merge(False)
    windows.mismatch()
    for split, rows in ((False, 1), (False, 1 + overlap), (True, 1 + overlap)):
        messages = np.zeros((2, rows, n), dtype)
        windows.begin(rhs, split)
        windows.solve(everyone, rhs, split, messages, messages)
        windows.correct(everyone, split, messages, messages)
        windows.post(everyone, matrices, matrices, messages.copy(), messages.copy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 13, 16, 31, 32, 33])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
def test_windows_stay_in_registers(n, dtype, capability):
    offline.check(lambda: verbs(n, dtype), capability)
