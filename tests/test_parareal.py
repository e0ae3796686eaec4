"""Parareal: Algorithm 1 as a naive loop, its theorems, the method on cells and the function of two propagators."""

import warnings

import numba
import numpy as np
import pytest
import reference_multigrid as twin
from grids import GRIDS
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps

GATED, SCALAR = GRIDS["gated"], GRIDS["scalar"]
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
factors = st.floats(-0.95, 0.95).filter(lambda value: abs(value) > 0.01)


@numba.njit
def rotate(u, n):
    """Ten steps of a nonlinear oscillator with a drive."""
    u = u.copy()
    for t in range(10 * n, 10 * n + 10):
        u[0], u[1] = u[0] + 0.05 * u[1], u[1] - 0.05 * np.sin(u[0]) + 0.01 * np.cos(0.1 * t)
    return u


@numba.njit
def leap(u, n):
    """The same in one step."""
    return np.array([u[0] + 0.5 * u[1], u[1] - 0.5 * np.sin(u[0]) + 0.1 * np.cos(float(n))])


U0 = np.array([1.0, 0.0])


def loop(fine, u0, windows):
    states = [u0]
    for n in range(windows):
        states.append(fine(states[-1], n))
    return np.array(states[1:])


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return ps.parareal(*args, **options)


@every_grid
def test_the_method_is_algorithm_1(grid):
    """Oracle O1 as well: what runs is MGRIT on two levels."""
    params, x, h0 = grid.problem(29)
    fine_step, coarse_step = grid.steps(params, x, (5,))

    def fine(u, n):
        for i in range(5 * n, 5 * n + 5):
            u = fine_step(u, i)
        return u

    for count in (1, 2, 3):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Not converged", RuntimeWarning)
            solution = ps.solve(grid.cell, params, x, h0, method="parareal", window=5, max_iter=count, tol=1e-300,
                                on_failure="warn")
        expected = twin.parareal(fine, lambda u, n: coarse_step(u, 5 * n), h0, 5, count)
        assert solution.iterations == count
        assert_allclose(solution.states[4::5], expected[-1][1:], rtol=1e-13, atol=1e-14)
        history = [np.linalg.norm([fine(u[n], n) - u[n + 1] for n in range(5)]) for u in expected]
        assert_allclose(solution.residuals, history, rtol=1e-11, atol=1e-14)


@every_grid
def test_converged_states_are_those_of_the_loop(grid):
    params, x, h0 = grid.problem(100, batch=2)
    for options in ({}, {"window": 7}, {"window": 100}, {"window": 1000}):
        solution = ps.solve(grid.cell, params, x, h0, method="parareal", on_failure="raise", **options)
        expected = ps.solve(grid.cell, params, x, h0, method="sequential").states
        assert_allclose(solution.states, expected, rtol=1e-11, atol=1e-11)


def test_the_default_window_is_the_square_root_of_the_length():
    params, x, h0 = GATED.problem(100)
    solution = ps.solve(GATED.cell, params, x, h0, method="parareal")
    assert_array_equal(solution.states, ps.solve(GATED.cell, params, x, h0, method="parareal", window=10).states)
    assert solution.work.depth == 10 + 10 + solution.iterations * (1 + 10 + 10)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"window": 1}, ValueError, "window must be at least 2 .*got 1"),
    ({"window": 4.0}, TypeError, "window must be an integer, got 4.0"),
    ({"guess": np.zeros((8, 2))}, ValueError, "guess is not used by method 'parareal'"),
    ({"levels": 2}, TypeError, "'parareal' has no option 'levels'; it takes window"),
])
def test_bad_options_of_the_method(options, error, message):
    params, x, h0 = GATED.problem(8)
    with pytest.raises(error, match=message):
        ps.solve(GATED.cell, params, x, h0, method="parareal", **options)


@given(factors, factors, st.integers(2, 12), st.integers(0, 4))
def test_errors_of_scalar_problems(f, R, windows, count):
    """Oracles O3 and O4."""
    count = min(count, windows)
    u0 = np.ones(1)
    exact = f ** np.arange(windows + 1)
    start = R ** np.arange(windows + 1) - exact
    solution = quietly(lambda u, n: f * u, lambda u, n: R * u, u0, windows, max_iter=max(count, 1), tol=1e-300)
    count = solution.iterations
    error = solution.states[:, 0] - exact[1:]
    if count:
        assert_allclose(error, twin.parareal_error(f, R, start, count)[1:], rtol=0, atol=1e-14)
    largest = abs(start).max()
    assert abs(error).max() <= twin.superlinear_bound(f, R, windows, count) * largest + 1e-14
    assert abs(error).max() <= twin.linear_bound(f, R, count) * largest + 1e-14


@pytest.mark.parametrize("compiled", [True, False])
def test_k_iterations_make_k_windows_exact_to_the_last_bit(compiled):
    """Oracle O2."""
    fine, coarse = (rotate, leap) if compiled else (rotate.py_func, leap.py_func)
    exact = loop(fine, U0, 12)
    for count in range(1, 13):
        solution = quietly(fine, coarse, U0, 12, max_iter=count, tol=1e-300)
        assert solution.iterations == count and solution.residuals.shape == (count + 1,)
        assert_array_equal(solution.states[:count], exact[:count])
    assert solution.residuals[-1] == 0.0 and solution.converged


def test_compiled_propagators_run_in_threads_with_the_same_bits():
    compiled = ps.parareal(rotate, leap, U0, 20, tol=1e-10)
    looped = ps.parareal(lambda u, n: rotate(u, n), leap, U0, 20, tol=1e-10)
    assert_array_equal(compiled.states, looped.states)
    assert_array_equal(compiled.residuals, looped.residuals)
    assert compiled.converged and compiled.iterations < 20
    assert_allclose(compiled.states, loop(rotate, U0, 20), rtol=0, atol=1e-9)
    expected = twin.parareal(rotate, leap, U0, 20, int(compiled.iterations))[-1][1:]
    assert_allclose(compiled.states, expected, rtol=0, atol=1e-14)


def test_results_are_described():
    solution = ps.parareal(rotate, leap, U0, windows=20, tol=1e-10)
    k = solution.iterations
    assert solution.states.shape == (20, 2) and solution.tol == 1e-10 and "converged=True" in repr(solution)
    assert solution.work.fine == sum(20 - i for i in range(k + 1)) and solution.work.coarse == sum(20 - max(i - 1, 0)
                                                                                               for i in range(k + 1))
    assert ps.speedup_model(solution, 20, coarse_cost=0.1) == pytest.approx(20 / (k + 1 + 0.1 * solution.work.coarse))
    single = ps.parareal(rotate, leap, U0, windows=1)
    assert_array_equal(single.states, loop(rotate, U0, 1))


def test_float32_and_arguments_stay_as_they_are():
    u0 = np.ones(1, np.float32)
    u0.setflags(write=False)
    solution = ps.parareal(lambda u, n: np.float32(0.9) * u, lambda u, n: np.float32(0.8) * u, u0, 10)
    assert solution.states.dtype == np.float32 and solution.converged
    assert_allclose(solution.states[:, 0], 0.9 ** np.arange(1, 11), rtol=1e-4)


def test_divergence_is_reported():
    with pytest.warns(RuntimeWarning, match="parareal did not converge: residual .* after 3 iterations"):
        assert not ps.parareal(rotate, lambda u, n: 3.0 * u, U0, 20, max_iter=3).converged
    with pytest.warns(RuntimeWarning, match="did not converge: residual (nan|inf)"):
        solution = ps.parareal(lambda u, n: u, lambda u, n: np.where(u > 1e20, np.inf, 1e3 * u), U0, 20)
    assert not solution.converged


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"fine": 3}, TypeError, r"fine must be a function u_next = fine\(u, n\), got int"),
    ({"coarse": None}, TypeError, "coarse must be a function"),
    ({"fine": lambda u, n: u[:1]}, ValueError, r"fine\(u, n\) must return an array like u0, float64 of shape \(2,\), got"),
    ({"coarse": lambda u, n: u.astype(np.float32)}, ValueError, r"coarse\(u, n\) must return .* got float32 of shape \(2,\)"),
    ({"u0": np.ones((2, 2))}, ValueError, "u0 must have 1 axes"),
    ({"u0": np.ones(2, int)}, TypeError, "u0 must be an array of float32 or float64"),
    ({"u0": np.array([np.nan, 1.0])}, ValueError, "u0 must be finite"),
    ({"windows": 0}, ValueError, "windows must be at least 1, got 0"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
    ({"tol": 0.0}, ValueError, "tol must be positive"),
])
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        ps.parareal(**{"fine": rotate, "coarse": leap, "u0": U0, "windows": 5, **changes})


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((U0, 3), TypeError, "solution must be what solve or parareal"),
    ((None, 3), TypeError, "solution must be what solve or parareal"),
])
def test_bad_arguments_of_the_speedup_model(arguments, error, message):
    with pytest.raises(error, match=message):
        ps.speedup_model(*arguments)
