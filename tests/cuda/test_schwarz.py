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


def sent(case, rows, seed):
    """Messages for every window, none from beyond the ends of the chain."""
    left, right = case.random(rows, case.problem.size, seed=seed), case.random(rows, case.problem.size, seed=seed + 1)
    left[0], right[-1] = 0, 0
    return left, right


@pytest.mark.parametrize("n, dtype, dominance", [(1, np.float64, 2.5), (2, np.float32, 60.0), (3, np.float64, 2.5)])
@pytest.mark.parametrize("mu, split", [(0.0, False), (0.7, False), (0.7, True)])
def test_a_correction_leads_where_a_new_solution_does(kernels, n, dtype, dominance, mu, split):
    """Twice, since the second follows a first one that may have left the middle of a window alone."""
    case = Case(n, dtype, np.array([0, 5, 9, 25]), dominance=dominance)
    left, right = case.ends()
    case.windows.factor(np.full(case.count, mu), left, right)
    rows = 1 + case.overlap if mu else 1
    news, later, last = (sent(case, rows, seed) for seed in (7, 17, 27))
    case.windows.solve(case.everyone, case.rhs, split, *news)
    case.windows.correct(case.everyone, split, *(b - a for a, b in zip(news, later)))
    before = case.copies()
    change, length = case.windows.correct(case.everyone[1:], split, *(b - a for a, b in zip(later, last)))
    for i, copy in enumerate(case.copies()):
        expected = reference.window_solution(case, i, mu, split, left, right, *(last if i else later))
        close(copy, expected, dtype)
        close(change[i], np.linalg.norm(copy - before[i]), dtype)
        close(length[i], np.linalg.norm(copy), dtype)
    middle = case.copies()[2][8:10], before[2][8:10]
    assert np.array_equal(*middle) == (dominance > 10)


def test_a_short_window_is_corrected_through_and_through(kernels):
    """Windows no longer than what messages touch, and one of one step."""
    for boundaries, overlap in ((np.array([0, 3, 6]), 2), (np.array([0, 1, 2]), 0)):
        case = Case(2, boundaries=boundaries, overlap=overlap)
        nothing = np.zeros((2, 2, 2))
        case.windows.factor(np.full(2, 0.5), nothing, nothing)
        news, later = sent(case, 1 + overlap, 3), sent(case, 1 + overlap, 5)
        case.windows.solve(case.everyone, case.rhs, False, *news)
        case.windows.correct(case.everyone, False, *(b - a for a, b in zip(news, later)))
        for i, copy in enumerate(case.copies()):
            close(copy, reference.window_solution(case, i, 0.5, False, nothing, nothing, *later))


@pytest.mark.parametrize("n", [1, 3, 4])
def test_windows_send_what_neighbours_lack(n):
    case = Case(n)
    g = np.random.default_rng(3).normal(size=case.problem.rhs.shape)
    case.windows.begin(device().upload(g), False)
    for rows in (1, 1 + case.overlap):
        left, right = case.ends()
        to_left, to_right = np.zeros((2, case.count, rows, n))
        case.windows.post(np.array([1, 3]), left, right, to_left, to_right)
        off, first, last = case.problem.off_diagonal, case.first, case.boundaries[1:]
        for i in (1, 3):
            end = first[i] + case.overlap - 1
            close(to_left[i, 0], left[i] @ g[end] - off[end] @ g[end + 1])
            close(to_left[i, 1:], g[first[i]:first[i] + rows - 1])
        begin = last[1] - case.overlap
        close(to_right[1, 0], right[1] @ g[begin] - off[begin - 1].T @ g[begin - 1])
        close(to_right[1, 1:], g[begin:begin + rows - 1])
        assert not to_right[[0, 2, 3]].any() and not to_left[[0, 2]].any()


@pytest.mark.parametrize("n, dtype", [(1, np.float64), (3, np.float64), (4, np.float32)])
def test_a_window_eliminates_what_its_neighbour_does_not_hold(kernels, n, dtype):
    case = Case(n, dtype)
    left, right = case.ends()
    to_left, to_right = np.zeros((2, case.count, n, n), dtype)
    assert (case.windows.transmit(left, right, to_left, to_right) == -1).all()
    for i in range(case.count):
        expected = reference.eliminated(case, i, left, right)
        close(to_left[i], expected[0], dtype)
        close(to_right[i], expected[1], dtype)


def test_the_step_at_which_a_window_fails_is_named(kernels):
    case = Case(3)
    case.problem.diagonal[10] = -np.eye(3)
    diagonal = device().upload(case.problem.diagonal)
    windows = TridiagonalWindows(diagonal, case.off, case.first, case.boundaries[1:], case.overlap)
    nothing = np.zeros((case.count, 3, 3))
    assert list(windows.factor(np.zeros(case.count), nothing, nothing)) == [-1, -1, 10, 10]
    assert list(windows.transmit(nothing, nothing, nothing.copy(), nothing.copy())) == [-1, -1, 10, -1]


@pytest.mark.parametrize("split", [False, True])
def test_a_guess_comes_back_when_copies_are_merged(split):
    case = Case(3)
    g = np.random.default_rng(3).normal(size=case.problem.rhs.shape)
    case.windows.begin(device().upload(g), split)
    close(device().download(case.windows.merge(split)), g)
    assert case.windows.mismatch() == 0.0


def test_mismatch_is_the_largest_difference_on_an_overlap():
    case = Case(3)
    case.windows.begin(case.rhs, False)
    copies = device().download(case.windows.copies)
    copies[case.windows.offset[2]:case.windows.offset[2] + 2, 1] += 0.5, -1.0
    case.windows.copies.copy_to_device(copies)
    assert case.windows.mismatch() == pytest.approx(np.sqrt(1.25))


@pytest.mark.parametrize("n, steps", [(1, 33), (4, 7), (33, 2), (3, 1)])
def test_residual(n, steps):
    problem = reference.random_problem(n, steps, 2.5)
    windows = TridiagonalWindows(device().upload(problem.diagonal), device().upload(problem.off_diagonal), np.array([0]),
                                 np.array([steps]), 0)
    g = np.random.default_rng(3).normal(size=(steps, n))
    matrix, f = reference.dense(problem)
    close(device().download(windows.residual(device().upload(problem.rhs), device().upload(g))).ravel(), f - matrix @ g.ravel())


@pytest.mark.parametrize("n, dtype", [(32, np.float32), (17, np.float64)])
def test_large_blocks(n, dtype):
    """The largest n of a warp, and one beyond it."""
    case = Case(n, dtype, np.array([0, 1, 3]), 0)
    nothing, news = np.zeros((2, n, n), dtype), sent(case, 1, 3)
    case.windows.factor(np.zeros(2), nothing, nothing)
    case.windows.solve(case.everyone, case.rhs, False, *news)
    for i, copy in enumerate(case.copies()):
        close(copy, reference.window_solution(case, i, 0.0, False, nothing, nothing, *news), dtype)
