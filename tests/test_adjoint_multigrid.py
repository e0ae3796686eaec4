"""Adjoint multigrid: the sequential gradient at convergence, the naive twin when truncated, and the estimate of the error."""

import numba
import numpy as np
import pytest
import reference_multigrid as twin
from grids import GRIDS
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps

GATED, SCALAR = GRIDS["gated"], GRIDS["scalar"]
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def case(grid, steps, batch=None, loss="all", **options):
    """A problem, its solution by the loop, and dL/dh of a loss of all states or of the last one."""
    params, x, h0 = grid.problem(steps, batch, **options)
    solution = ps.solve(grid.cell, params, x, h0, method="sequential")
    dstates = np.random.default_rng(8).normal(size=solution.states.shape)
    if loss == "last":
        dstates[..., :-1, :] = 0.0
    return params, x, h0, solution, dstates


def flat(gradient):
    """Everything a gradient holds, by name."""
    return {name: value for name, value in {**gradient.params, "x": gradient.x, "h0": gradient.h0}.items() if value is not None}


def close(gradient, expected, tolerance):
    """Agreement relative to the largest entry of each array."""
    expected = flat(expected)
    for name, value in flat(gradient).items():
        assert_allclose(value, expected[name], rtol=0, atol=tolerance * abs(expected[name]).max(initial=0.0), err_msg=name)


def error(gradient, exact):
    """Relative error of all parameter gradients together, and of dL/dx."""
    a, b = (np.concatenate([value.ravel() for value in g.params.values()]) for g in (gradient, exact))
    return np.linalg.norm(a - b) / np.linalg.norm(b), np.linalg.norm(gradient.x - exact.x) / np.linalg.norm(exact.x)


@every_grid
def test_a_converged_gradient_is_the_sequential_one(grid):
    levels = 2 if grid is SCALAR else 3
    params, x, h0, solution, dstates = case(grid, 130, batch=2)
    exact = ps.gradient(grid.cell, params, x, solution, dstates, h0, method="sequential")
    assert exact.error_estimate is None
    for options in ({}, {"relaxation": "F"}, {"cycle": "F"}, {"nested": False}, {"skip_first": True}, {"weight": 1.2}):
        gradient = ps.gradient(grid.cell, params, x, solution, dstates, h0, method="mgrit", levels=levels, **options)
        close(gradient, exact, 1e-11)
        assert gradient.error_estimate.shape == (2,) and (gradient.error_estimate <= 1e-14).all()


@pytest.mark.parametrize("relaxation", ["F", "FCF"])
@pytest.mark.parametrize(("loss", "nested"), [("last", True), ("last", False), ("all", False)])
def test_truncated_adjoints_are_those_of_the_naive_twin(loss, nested, relaxation):
    params, x, h0, solution, dstates = case(GATED, 37, loss=loss)
    states = np.concatenate([h0[None], solution.states])
    sources = np.concatenate([np.zeros((1, 2)), dstates])
    for cycles in (1, 2):
        gradient = ps.gradient(GATED.cell, params, x, solution, dstates, h0, method="mgrit", cycles=cycles, levels=3,
                               coarsening=(3, 2), relaxation=relaxation, nested=nested)
        adjoint, _ = twin.adjoint_mgrit(GATED.steps(params, x, (3, 2)), (3, 2), states, sources, nested=nested, cycles=cycles,
                                        relaxations=relaxation.count("C"), guess=None if nested else sources[::-1])
        expected = twin.parameter_gradient(GATED.naive, params, x, states, adjoint)
        for name, value in gradient.params.items():
            assert_allclose(value, expected[name], rtol=0, atol=1e-12 * abs(expected[name]).max(), err_msg=name)
        assert_allclose(gradient.h0, adjoint[0], rtol=0, atol=1e-13)


def test_coarse_points_are_counted_from_the_end():
    """dL/dx is lambda for u <- lam u + x, so that the C-points that a cycle makes exact can be seen."""
    params, x, h0, solution, dstates = case(SCALAR, 23)
    exact = ps.gradient(SCALAR.cell, params, x, solution, dstates, h0).x
    for cycles in (1, 2):
        gradient = ps.gradient(SCALAR.cell, params, x, solution, dstates, h0, method="mgrit", levels=2, coarsening=5,
                               relaxation="F", cycles=cycles)
        right = abs(gradient.x - exact)[:, 0] < 1e-14
        assert right[23 - 5 * (cycles + 1):].all() and not right[:23 - 5 * (cycles + 1)].any()


@pytest.mark.parametrize("loss", ["all", "last"])
@pytest.mark.parametrize("seed", [3, 4])
def test_one_and_two_cycles_for_the_implicit_gru(seed, loss):
    """Spec 1.6: 2.0e-2 to 2.7e-2 after one FCF cycle, 2e-3 to 3e-3 after two."""
    cell, random = ps.cells.ImplicitGRU(16, 32), np.random.default_rng(seed)
    params, x = cell.init(seed), random.normal(size=(128, 16))
    solution = ps.solve(cell, params, x, method="sequential")
    dstates = random.normal(size=solution.states.shape)
    if loss == "last":
        dstates[:-1] = 0.0
    exact = ps.gradient(cell, params, x, solution, dstates, method="sequential")
    for cycles, bound in ((1, 5e-2), (2, 5e-3)):
        gradient = ps.gradient(cell, params, x, solution, dstates, method="mgrit", cycles=cycles)
        assert max(error(gradient, exact)) < bound
        assert max(error(gradient, exact)) <= 1.5 * gradient.error_estimate <= 10 * max(error(gradient, exact))
        assert "estimated relative error" in repr(gradient)


@pytest.mark.parametrize("grid", [GATED, GRIDS["gru"]], ids=["gated", "gru"])
@pytest.mark.parametrize("loss", ["all", "last"])
def test_the_error_estimate_bounds_the_error(grid, loss):
    for scale in (1.0, 3.0):
        params, x, h0, solution, dstates = case(grid, 128, loss=loss, scale=scale)
        exact = ps.gradient(grid.cell, params, x, solution, dstates, h0, method="sequential")
        for relaxation in ("F", "FCF"):
            for cycles in (1, 2, 4):
                gradient = ps.gradient(grid.cell, params, x, solution, dstates, h0, method="mgrit", cycles=cycles,
                                       relaxation=relaxation)
                assert max(error(gradient, exact)) <= 2 * gradient.error_estimate + 1e-13


def test_the_tolerance_is_met_with_as_many_cycles_as_it_takes():
    params, x, h0, solution, dstates = case(GATED, 300)
    exact = ps.gradient(GATED.cell, params, x, solution, dstates, h0, method="sequential")
    before = np.inf
    for tol in (1e-2, 1e-5, 1e-9):
        gradient = ps.gradient(GATED.cell, params, x, solution, dstates, h0, method="mgrit", tol=tol)
        assert gradient.error_estimate <= tol and max(error(gradient, exact)) <= 2 * tol
        assert max(error(gradient, exact)) < before
        before = max(error(gradient, exact))


@pytest.mark.parametrize("options", [{}, {"cycles": 2}, {"tol": 1e-3}], ids=["converged", "truncated", "tolerance"])
@pytest.mark.parametrize("grid", [GATED, GRIDS["gru"]], ids=["gated", "gru"])
def test_ragged_sequences_have_the_gradients_they_have_alone(grid, options):
    lengths = [70, 0, 1, 3, 4, 33]
    params, x, h0 = grid.problem(70, batch=6)
    for b, stop in enumerate(lengths):
        x[b, stop:] = np.nan
    solution = ps.solve(grid.cell, params, x, h0, lengths=np.array(lengths))
    dstates = np.random.default_rng(8).normal(size=solution.states.shape)
    gradient = ps.gradient(grid.cell, params, x, solution, dstates, h0, method="mgrit", **options)
    total = dict.fromkeys(params, 0.0)
    for b, stop in enumerate(lengths):
        own = ps.solve(grid.cell, params, x[b, :stop], h0[b])
        alone = ps.gradient(grid.cell, params, x[b, :stop], own, dstates[b, :stop], h0[b], method="mgrit", **options)
        assert (gradient.x[b, stop:] == 0).all()
        assert_allclose(gradient.x[b, :stop], alone.x, rtol=1e-12, atol=1e-13)
        assert_allclose(gradient.h0[b], alone.h0, rtol=1e-12, atol=1e-13)
        assert_allclose(gradient.error_estimate[b], alone.error_estimate, rtol=1e-6, atol=1e-14)
        total = {name: total[name] + value for name, value in alone.params.items()}
    for name, value in gradient.params.items():
        assert_allclose(value, total[name], rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5])
def test_sequences_of_a_window_and_less(steps):
    params, x, h0, solution, dstates = case(GATED, steps, batch=2)
    exact = ps.gradient(GATED.cell, params, x, solution, dstates, h0, method="sequential")
    for options in ({}, {"cycles": 1}, {"levels": 7}, {"levels": 1}):
        gradient = ps.gradient(GATED.cell, params, x, solution, dstates, h0, method="mgrit", **options)
        close(gradient, exact, 1e-13)


def test_nothing_comes_of_nothing():
    params, x, h0, solution, dstates = case(GATED, 40, batch=2)
    for options in ({}, {"cycles": 2}):
        gradient = ps.gradient(GATED.cell, params, x, solution, 0 * dstates, h0, method="mgrit", **options)
        assert (gradient.error_estimate == 0).all()
        assert all((value == 0).all() for value in flat(gradient).values())


def test_a_coarse_adjoint_that_grows_is_replaced_by_the_loop():
    params, x, h0, solution, dstates = case(SCALAR, 4000)
    params = {"lam": np.full(1, 0.9), "mu": np.full(1, 30.0)}
    solution = ps.solve(SCALAR.cell, params, x, h0, method="sequential")
    exact = ps.gradient(SCALAR.cell, params, x, solution, dstates, h0)
    for options in ({}, {"cycles": 2}):
        gradient = ps.gradient(SCALAR.cell, params, x, solution, dstates, h0, method="mgrit", levels=2, **options)
        close(gradient, exact, 1e-12)
        assert gradient.error_estimate == 0


def test_float32():
    grid = GRIDS["gru"]
    params, x, h0 = grid.problem(300, batch=2)
    single = {name: value.astype(np.float32) for name, value in params.items()}, x.astype(np.float32), h0.astype(np.float32)
    solution = ps.solve(grid.cell, *single)
    dstates = np.random.default_rng(8).normal(size=solution.states.shape).astype(np.float32)
    exact = ps.gradient(grid.cell, *single[:2], solution, dstates, single[2])
    gradient = ps.gradient(grid.cell, *single[:2], solution, dstates, single[2], method="mgrit")
    assert all(value.dtype == np.float32 for value in flat(gradient).values())
    close(gradient, exact, 1e-5)


@pytest.mark.parametrize("grid", [GATED, GRIDS["gru"]], ids=["gated", "gru"])
def test_number_of_threads_changes_no_bit(grid):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    params, x, h0, solution, dstates = case(grid, 900, batch=3)
    threads = numba.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(flat(ps.gradient(grid.cell, params, x, solution, dstates, h0, method="mgrit", cycles=2)))
    finally:
        numba.set_num_threads(threads)
    for name, value in results[0].items():
        assert_array_equal(value, results[1][name], err_msg=name)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"method": "mgrit", "cycles": 0}, ValueError, "cycles must be at least 1, got 0"),
    ({"method": "mgrit", "cycles": 1, "tol": 1e-3}, ValueError, "tol and cycles are two ways to end"),
    ({"method": "mgrit", "coarsening": 1}, ValueError, "coarsening must be at least 2"),
    ({"method": "mgrit", "relative": True}, TypeError, "'mgrit' has no option 'relative'"),
    ({"method": "sequential", "cycles": 1}, TypeError, "'sequential' has no option 'cycles'; it takes no options"),
    ({"method": "scan", "tol": 1e-3}, TypeError, "'scan' has no option 'tol'"),
])
def test_bad_options(options, error, message):
    params, x, h0, solution, dstates = case(GATED, 8)
    with pytest.raises(error, match=message):
        ps.gradient(GATED.cell, params, x, solution, dstates, h0, **options)
