"""Windows of block-tridiagonal matrices on the device, against dense NumPy."""

import numpy as np
import pytest
import reference_schwarz as reference

from pitsolve.backends.cuda import small_matrices, tridiagonal_large
from pitsolve.backends.cuda.launch import device
from pitsolve.backends.cuda.tridiagonal_windows import TridiagonalWindows

BOUNDARIES, OVERLAP = np.array([0, 5, 9, 12, 20]), 2


@pytest.fixture(params=["warp", "block"])
def kernels(request, monkeypatch):
    """Both families of kernels, at sizes that need the second one for no reason but the test."""
    monkeypatch.setattr(tridiagonal_large, "THREADS", 8)
    if request.param == "block":
        monkeypatch.setattr(small_matrices, "LARGEST", 0)


class Case:
    """A problem whose windows interact strongly, its windows on the device and dense."""

    def __init__(self, n, dtype=np.float64, boundaries=BOUNDARIES, overlap=OVERLAP, dominance=2.5):
        self.problem = reference.random_problem(n, int(boundaries[-1]), dominance, dtype)
        self.boundaries, self.overlap = boundaries, overlap
        self.first = boundaries[:-1] - np.where(np.arange(boundaries.size - 1) > 0, overlap, 0)
        self.diagonal, self.off, self.rhs = map(device().upload, (
            self.problem.diagonal, self.problem.off_diagonal, self.problem.rhs))
        self.windows = TridiagonalWindows(self.diagonal, self.off, self.first, boundaries[1:], overlap)
        self.count, self.everyone = boundaries.size - 1, np.arange(boundaries.size - 1)

    def random(self, *shape, seed=5):
        return np.random.default_rng(seed).normal(size=(self.count, *shape)).astype(self.problem.rhs.dtype)

    def ends(self):
        """Symmetric matrices at the ends of windows, none at the ends of the chain."""
        n = self.problem.size
        left, right = (0.1 * (a + a.transpose(0, 2, 1)) for a in (self.random(n, n), self.random(n, n, seed=6)))
        left[0], right[-1] = 0, 0
        return left, right

    def copies(self):
        return [device().download(self.windows.window(i)) for i in range(self.count)]


def close(actual, expected, dtype=np.float64):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11 if dtype == np.float64 else 3e-5)


@pytest.mark.parametrize("n, dtype", [(1, np.float64), (3, np.float32), (4, np.float64), (8, np.float32)])
@pytest.mark.parametrize("mu, split", [(0.0, False), (0.7, True)])
def test_a_window_solves_its_equations_for_what_its_neighbours_sent(kernels, n, dtype, mu, split):
    case = Case(n, dtype)
    left, right = case.ends()
    rows = 1 + case.overlap if mu or split else 1
    news = case.random(rows, n), case.random(rows, n, seed=7)
    news[0][0], news[1][-1] = 0, 0
    assert (case.windows.factor(np.full(case.count, mu), left, right) == -1).all()
    chosen = np.array([0, 2, 3])
    change, length = case.windows.solve(chosen, case.rhs, split, *news)
    for i, copy in enumerate(case.copies()):
        expected = reference.window_solution(case, i, mu, split, left, right, *news) if i in chosen else 0
        close(copy, expected, dtype)
        close(change[i], np.linalg.norm(copy), dtype)
        close(length[i], np.linalg.norm(copy), dtype)
