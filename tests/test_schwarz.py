"""Overlapping Schwarz windows: the limit, the iterates, the rates, and what an interface carries."""

import numpy as np
import pytest
import reference_schwarz as reference
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import pitsolve as ps
from pitsolve.backends.cpu.tridiagonal_windows import TridiagonalWindows
from pitsolve.leastsquares.iteration import Options, Schwarz
from pitsolve.leastsquares.windows import Chain, equal_boundaries

FORGETFUL = reference.forgetful()
EXACT = reference.exact(FORGETFUL)
MODES = ["additive", "multiplicative", "oddeven"]


def relative_error(solution, expected):
    return np.linalg.norm(solution - expected) / np.linalg.norm(expected)


def sweep_matrix(problem, count, overlap, **options):
    """The matrix of one iteration on all copies, column by column, with f = 0."""
    zero = ps.leastsquares.BlockTridiagonal(problem.diagonal, problem.off_diagonal, np.zeros_like(problem.rhs))
    schwarz = Schwarz(zero, Chain(equal_boundaries(problem.steps, count), overlap), Options(**options))
    copies = schwarz.windows.copies
    columns = []
    for j in range(copies.size):
        copies[...] = 0
        copies.flat[j] = 1
        schwarz._answered[:] = False
        schwarz._send(schwarz.everyone)
        schwarz.sweep()
        columns.append(copies.ravel().copy())
    return np.array(columns).T


def spectral_radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mu", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("windows, overlap", [(p, s) for p in (2, 4, 8) for s in (0, 1, 4, 16)])
def test_the_limit_is_the_least_squares_solution(windows, overlap, mu, mode):
    """Whatever mu, windows, overlap and order are."""
    sol = ps.schwarz_lstsq(FORGETFUL, windows, overlap=overlap, mu=mu, mode=mode, on_failure="raise", max_iter=5000)
    assert relative_error(sol.solution, EXACT) < 1e-9
    assert sol.residual < 1e-7


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("split, mu, overlap", [(False, 0.0, 0), (False, 0.0, 3), (False, 0.7, 3), (True, 0.7, 3)])
def test_iterates_are_those_of_the_dense_twin(split, mu, overlap, mode):
    schwarz = Schwarz(FORGETFUL, Chain(np.array([0, 60, 131, 190, 256]), overlap), Options(split, mode, mu))
    schwarz.start(np.zeros_like(FORGETFUL.rhs))
    for _ in range(3):
        schwarz.sweep()
    expected = reference.sweeps(FORGETFUL, [0, 60, 131, 190, 256], overlap, mu, 3, split, mode)
    for i, copy in enumerate(expected):
        np.testing.assert_allclose(schwarz.windows.window(i).ravel(), copy, rtol=0, atol=1e-12)


def test_multiplicative_sweeps_are_those_of_pyamg():
    relaxation = pytest.importorskip("pyamg.relaxation.relaxation")
    problem, boundaries = reference.forgetful(60), np.array([0, 15, 30, 45, 60])
    matrix, f = reference.dense(problem)
    windows = reference.window_indices(boundaries, 3, 2)
    schwarz = Schwarz(problem, Chain(boundaries, 3), Options(mode="multiplicative"))
    schwarz.start(np.zeros_like(problem.rhs))
    expected, matrix = np.zeros(120), scipy.sparse.csr_matrix(matrix)
    for _ in range(3):
        schwarz.sweep()
        relaxation.schwarz(matrix, expected, f, subdomain=np.concatenate(windows).astype(np.int32),
                           subdomain_ptr=np.cumsum([0, *map(len, windows)]).astype(np.int32))
        latest = np.zeros(120)
        for i, window in enumerate(windows):
            latest[window] = schwarz.windows.window(i).ravel()
        np.testing.assert_allclose(latest, expected, rtol=0, atol=1e-13)


def test_a_long_problem_agrees_with_a_sparse_direct_solver():
    problem = reference.forgetful(20_000)
    upper = scipy.sparse.block_diag(problem.off_diagonal)
    off = scipy.sparse.bmat([[scipy.sparse.csr_array((2 * 19_999, 2)), upper], [scipy.sparse.csr_array((2, 2)), None]])
    entries = scipy.sparse.block_diag(problem.diagonal) + off + off.T
    expected = scipy.sparse.linalg.spsolve(entries.tocsc(), problem.rhs.ravel()).reshape(problem.rhs.shape)
    for options in ({"windows": 1}, {"windows": 8}, {"windows": 64, "overlap": 16, "transmission": "schur"}):
        assert relative_error(ps.schwarz_lstsq(problem, **options).solution, expected) < 1e-9


@pytest.mark.parametrize("count, overlap, mu", [(2, 0, 0.0), (4, 2, 0.0), (4, 2, 1.0), (5, 1, 10.0)])
def test_additive_is_two_interleaved_odd_even_sweeps(count, overlap, mu):
    """Theorem A: the squared rate of the additive iteration is the rate of the two others."""
    problem = reference.forgetful(24)
    additive, multiplicative, oddeven = (
        spectral_radius(sweep_matrix(problem, count, overlap, mode=mode, mu=mu)) for mode in MODES)
    assert additive < 1
    assert additive ** 2 == pytest.approx(multiplicative, abs=1e-6) and additive ** 2 == pytest.approx(oddeven, abs=1e-6)


@pytest.mark.parametrize("d, overlap", [(2.1, 0), (2.1, 4), (2.5, 0), (2.5, 1), (4.0, 1)])
def test_rate_of_a_toeplitz_matrix(d, overlap):
    """rho = r^(s+1) with r the root of r^2 - d r + 1 below one."""
    r = (d - np.sqrt(d * d - 4)) / 2
    assert spectral_radius(sweep_matrix(reference.toeplitz(d, 200), 2, overlap)) == pytest.approx(r ** (overlap + 1), abs=1e-10)


@pytest.mark.parametrize("split, right", [(False, 1.0), (True, 2.0)])
@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
def test_the_factor_of_the_paper_is_right_for_one_mu_only(split, right, mu):
    """Eq. (18) merges an overlap as mu/2 (g_1 + g_2): right at mu = 1 (complement) or mu = 2 (split)."""
    problem = reference.forgetful(40)
    schwarz = Schwarz(problem, Chain(np.array([0, 20, 40]), 3), Options(split, "multiplicative", mu))
    assert schwarz.run(np.zeros_like(problem.rhs), 1e-12, 1000).converged
    merged = schwarz.merge()
    assert relative_error(merged, reference.exact(problem)) < 1e-10
    first, second = schwarz.windows.window(0), schwarz.windows.window(1)
    merged[17:20] = mu / 2 * (first[17:20] + second[:3])
    assert (relative_error(merged, reference.exact(problem)) < 1e-10) == (mu == right)


def test_the_algorithm_of_the_paper_reaches_the_least_squares_solution():
    """Two windows, one after the other, overlap counted in both (eqs. 15-17 with squared norms)."""
    problem = reference.forgetful(40)
    sol = ps.schwarz_lstsq(problem, windows=2, overlap=3, formulation="split", mode="multiplicative", mu=1.0)
    assert sol.converged and relative_error(sol.solution, reference.exact(problem)) < 1e-9


@pytest.mark.parametrize("windows, overlap", [(2, 1), (4, 3)])
def test_additive_schwarz_without_a_partition_of_unity_stagnates(windows, overlap):
    """Its largest eigenvalue is 2: undamped it never converges, damped by 1/2 it does. It serves conjugate gradients only."""
    problem = reference.forgetful(32)
    matrix, _ = reference.dense(problem)
    preconditioner = np.zeros_like(matrix)
    for here in reference.window_indices(equal_boundaries(32, windows), overlap, 2):
        preconditioner[np.ix_(here, here)] += np.linalg.inv(matrix[np.ix_(here, here)])
    identity = np.eye(len(matrix))
    assert spectral_radius(identity - preconditioner @ matrix) == pytest.approx(1, abs=1e-9)
    assert spectral_radius(identity - preconditioner @ matrix / 2) < 1


@pytest.mark.parametrize("windows, overlap, sweeps", [(2, 1, 1), (4, 1, 4), (8, 1, 8), (8, 5, 8), (5, 2, 7)])
def test_schur_transmission_ends_after_as_many_iterations_as_windows(windows, overlap, sweeps):
    for problem in (FORGETFUL, reference.persistent()):
        with pytest.warns(RuntimeWarning, match="Not converged"):
            sol = ps.schwarz_lstsq(problem, windows, overlap=overlap, transmission="schur", sweeps=sweeps, max_iter=windows,
                                   tol=1e-300, on_failure="warn")
        assert sol.iterations == windows and relative_error(sol.solution, reference.exact(problem)) < 1e-9


def test_few_schur_sweeps_already_help():
    counts = [ps.schwarz_lstsq(reference.persistent(), 4, overlap=1, max_iter=20000, **options).iterations
              for options in ({}, {"transmission": "schur", "sweeps": 1}, {"transmission": "schur", "sweeps": 2})]
    assert counts[0] > 10 * counts[1] > 10 * counts[2] / 2


def test_the_estimate_is_safe_where_the_increment_rule_is_not():
    """Long correlations and no overlap, rate about 0.999."""
    problem, tol = reference.persistent(), 1e-6
    expected = reference.exact(problem)
    sol = ps.schwarz_lstsq(problem, 8, overlap=0, tol=tol, max_iter=10 ** 5)
    assert sol.converged and sol.rate > 0.99 and relative_error(sol.solution, expected) < tol
    small = int(np.argmax(sol.changes.max(axis=1) < tol)) + 1
    with pytest.warns(RuntimeWarning, match="Not converged"):
        early = ps.schwarz_lstsq(problem, 8, overlap=0, tol=tol, max_iter=small, on_failure="warn")
    assert relative_error(early.solution, expected) > 5 * tol


@pytest.mark.parametrize("options, blocks", [
    ({}, 1), ({"mu": 0.3}, 6), ({"formulation": "split"}, 6), ({"transmission": "schur", "sweeps": 3}, 1)])
@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
def test_an_interface_carries_what_the_formula_says(options, blocks, mode):
    """n numbers a direction, (s + 1) n with a penalty or in the split formulation, n^2 once for each set-up sweep."""
    p, n, s = 4, 2, 5
    sol = ps.schwarz_lstsq(FORGETFUL, p, overlap=s, mode=mode, tol=1e-6, **options)
    assert sol.bytes_per_interface == 8 * n * blocks
    start, merge, setup = 1, s, n * options.get("sweeps", 0)
    assert sol.bytes_total == 2 * (p - 1) * 8 * n * ((sol.iterations + start) * blocks + merge + setup)


def test_a_window_reads_of_others_only_its_mail():
    """Garbage in every other window's copy changes nothing."""
    for options in (Options(), Options(mu=0.4), Options(split=True, mu=0.4), Options(sweeps=2)):
        schwarz = Schwarz(FORGETFUL, Chain(equal_boundaries(256, 4), 3), options)
        schwarz.start(np.ones_like(FORGETFUL.rhs))
        boxes = schwarz.mail
        schwarz.windows.solve(np.array([1]), FORGETFUL.rhs, options.split, boxes.from_left, boxes.from_right)
        expected = schwarz.windows.window(1).copy()
        schwarz.windows.copies[...] = np.nan
        schwarz.windows.solve(np.array([1]), FORGETFUL.rhs, options.split, boxes.from_left, boxes.from_right)
        np.testing.assert_array_equal(schwarz.windows.window(1), expected)


@pytest.mark.parametrize("options", [{}, {"mu": 0.3}, {"formulation": "split"}, {"transmission": "schur"}, {"accel": "cg"}])
def test_bits_do_not_depend_on_threads(options):
    import numba

    before = numba.get_num_threads()
    if before < 2:
        pytest.skip("one thread only")
    try:
        results = []
        for threads in (1, 2):
            numba.set_num_threads(threads)
            results.append(ps.schwarz_lstsq(FORGETFUL, 5, overlap=2, tol=1e-8, **options))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0].solution, results[1].solution)
    np.testing.assert_array_equal(results[0].changes, results[1].changes)


@pytest.mark.parametrize("problem", [FORGETFUL, reference.persistent()], ids=["forgetful", "persistent"])
@pytest.mark.parametrize("options", [{"overlap": 0}, {"overlap": 2}, {"overlap": 2, "transmission": "schur", "sweeps": 1}])
def test_conjugate_gradients_reach_the_solution(problem, options):
    sol = ps.schwarz_lstsq(problem, 8, accel="cg", **options)
    assert sol.converged and relative_error(sol.solution, reference.exact(problem)) < 1e-9


def test_conjugate_gradients_need_fewer_iterations_where_correlations_are_long():
    counts = [ps.schwarz_lstsq(reference.persistent(), 8, overlap=2, max_iter=10 ** 5, accel=accel).iterations
              for accel in (None, "cg")]
    assert counts[0] > 20 * counts[1]


@pytest.mark.parametrize("rule, noise", [("gcv", None), ("discrepancy", 1.2)])
def test_a_chosen_mu_is_the_median_over_the_windows_and_does_not_change_the_limit(rule, noise):
    chosen = ps.leastsquares.choose_mu(FORGETFUL, 4, overlap=3, rule=rule, noise=noise)
    sol = ps.schwarz_lstsq(FORGETFUL, 4, overlap=3, mu=rule, noise=noise or 1.0)
    assert sol.mu == np.median(chosen) > 0
    assert relative_error(sol.solution, EXACT) < 1e-9


def test_a_start_at_the_solution_stays_there():
    for options in ({}, {"formulation": "split"}, {"accel": "cg"}):
        sol = ps.schwarz_lstsq(FORGETFUL, 4, x0=EXACT, **options)
        assert relative_error(sol.solution, EXACT) < 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 2 ** 32 - 1), st.sampled_from([1, 3]), st.booleans())
def test_any_windows_give_the_direct_solution(windows, overlap, seed, n, equal):
    random = np.random.default_rng(seed)
    lengths = random.integers(overlap + 1, overlap + 12, windows)
    steps = int(lengths.sum())
    rows = np.zeros((steps, 2 * n, 2, n))
    rows[:, :n, 1], rows[:, n:, 1] = random.normal(size=(steps, n, n)), np.eye(n)
    rows[:, :n, 0] = random.normal(size=(steps, n, n))
    problem = ps.leastsquares.BlockTridiagonal.from_rows(rows, random.normal(size=(steps, 2 * n)))
    chosen = windows if equal else np.concatenate([[0], np.cumsum(lengths)])
    sol = ps.schwarz_lstsq(problem, chosen, overlap=overlap, max_iter=10 ** 5)
    assert relative_error(sol.solution, reference.exact(problem)) < 1e-8


@pytest.mark.parametrize("options", [{}, {"transmission": "schur"}, {"formulation": "split"}])
def test_the_unit_of_the_equations_does_not_matter(options):
    """c N g = c f has the same solution, to the last bit where c is a power of two."""
    results = [ps.schwarz_lstsq(ps.leastsquares.BlockTridiagonal(c * FORGETFUL.diagonal, c * FORGETFUL.off_diagonal,
                                                                 c * FORGETFUL.rhs), 3, overlap=2, **options)
               for c in (1.0, 2.0**-60, 2.0**60)]
    assert results[0].converged
    for other in results[1:]:
        np.testing.assert_array_equal(other.solution, results[0].solution)
        assert other.iterations == results[0].iterations


def test_wide_blocks_and_float32():
    """Sizes with and without whole vectors, in both dtypes; n = 1 has vectors of one number."""
    for n, dtype, close in ((1, np.float32, 1e-5), (8, np.float64, 1e-10), (11, np.float64, 1e-10), (16, np.float32, 1e-4)):
        random = np.random.default_rng(n)
        F = np.eye(n) * 0.8 + 0.1 * random.normal(size=(n, n)) / np.sqrt(n)
        arrays = [F, 0.3 * np.eye(n), np.eye(n), np.eye(n), random.normal(size=(40, n))]
        problem = ps.leastsquares.BlockTridiagonal.from_state_space(*(array.astype(dtype) for array in arrays))
        sol = ps.schwarz_lstsq(problem, 4, overlap=3)
        assert sol.solution.dtype == dtype and sol.converged
        assert relative_error(sol.solution, reference.exact(problem)) < close


def test_windows_that_do_not_contract_switch_to_plain_transmission(monkeypatch):
    """Transmission matrices that are wrong make the iteration diverge, and the answer stays right."""
    transmit = TridiagonalWindows.transmit

    def wrong(self, from_left, from_right, to_left, to_right):
        failed = transmit(self, from_left, from_right, to_left, to_right)
        to_left *= 3
        to_right *= 3
        return failed

    monkeypatch.setattr(TridiagonalWindows, "transmit", wrong)
    sol = ps.schwarz_lstsq(FORGETFUL, 4, overlap=1, transmission="schur", sweeps=1)
    assert sol.status is ps.leastsquares.SchwarzStatus.SWITCHED and sol.transmission == "dirichlet"
    assert sol.converged and relative_error(sol.solution, EXACT) < 1e-9


@pytest.mark.parametrize("problem", [reference.forgetful(3000), reference.persistent(3000)], ids=["forgetful", "persistent"])
@pytest.mark.parametrize("options", [Options(), Options(mu=0.5), Options(split=True, mu=5.0), Options(sweeps=1)])
def test_corrections_near_the_ends_are_those_of_whole_windows(problem, options):
    """Later sweeps visit only the steps that news from the neighbours reaches."""
    schwarz = Schwarz(problem, Chain(equal_boundaries(3000, 3), 3), options)
    schwarz.start(np.zeros_like(problem.rhs))
    for _ in range(6):
        before = schwarz.mail.from_left.copy(), schwarz.mail.from_right.copy()
        schwarz.sweep()
    copies, scale = schwarz.windows.copies.copy(), np.abs(schwarz.windows.copies).max()
    _, length = schwarz.windows.solve(schwarz.everyone, problem.rhs, options.split, *before)
    np.testing.assert_allclose(copies, schwarz.windows.copies, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(length, [np.linalg.norm(schwarz.windows.window(i)) for i in range(3)], rtol=1e-12)
