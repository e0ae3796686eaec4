"""MGRIT: histories of PyMGRIT, the naive twin, and the theorems; ragged batches, short sequences, work."""

import warnings

import numba
import numpy as np
import pytest
import reference_multigrid as twin
from grids import GRIDS
from hypothesis import given
from hypothesis import strategies as st
from models import MODELS
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps

GATED, SCALAR, ODE = GRIDS["gated"], GRIDS["scalar"], GRIDS["ode"]
RATE = {"rate": np.ones(1)}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def mgrit(cell, params, x, h0=None, **options):
    return ps.solve(cell, params, x, h0, method="mgrit", **options)


def cycles(count, cell, params, x, h0=None, **options):
    """MGRIT for so many cycles, or fewer if the residual is exactly zero before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not converged", RuntimeWarning)
        return mgrit(cell, params, x, h0, max_iter=count, tol=1e-300, on_failure="warn", **options)


def sequential(grid, params, x, h0):
    return ps.solve(grid.cell, params, x, h0, method="sequential").states


@pytest.mark.parametrize(("steps", "dt", "coarsening", "history"), [
    (100, 5 / 100, 2, [7.186185937031941e-05, 1.2461067076355103e-06, 2.1015566145245807e-08, 3.144127445017594e-10,
                       3.975214076032893e-12]),
    (1024, 10 / 1024, 4, [1.8937173433770395e-05, 2.2369957878543256e-07, 2.7850565951658312e-09, 3.548263286259932e-11]),
])
def test_residual_histories_are_those_of_pymgrit(steps, dt, coarsening, history):
    cell = ps.cells.ODE(ODE.cell.rhs, 1, dt=dt, scheme="backward_euler", parameters={"rate": (1,)})
    solution = mgrit(cell, RATE, steps, np.ones(1), levels=2, coarsening=coarsening, tol=1e-10)
    assert solution.converged and solution.iterations == len(history)
    assert_allclose(solution.residuals[1:], history, rtol=0, atol=1e-14)


@st.composite
def settings(draw):
    """Any hierarchy on up to 40 steps, relaxation and cycle."""
    coarsening = tuple(draw(st.lists(st.integers(2, 5), min_size=1, max_size=3)))
    steps = draw(st.integers(int(np.prod(coarsening)), 40 + int(np.prod(coarsening))))
    start = draw(st.sampled_from(["nested", "guess", "skip"]))
    weight = draw(st.sampled_from([1.0, 0.7, 1.3]))
    return steps, coarsening, draw(st.integers(0, 2)), draw(st.sampled_from("VF")), weight, start


def compare(grid, steps, coarsening, relaxations, cycle, weight, start, count=3, **close):
    params, x, h0 = grid.problem(steps)
    options = {"levels": len(coarsening) + 1, "coarsening": coarsening, "relaxation": "F" + "CF" * relaxations, "cycle": cycle,
               "weight": weight, "skip_first": start == "skip"}
    if start == "guess":
        options["guess"] = np.zeros((steps, grid.cell.state_size))
    solution = cycles(count, grid.cell, params, x, h0, **options)
    done = int(solution.iterations)
    expected, history = twin.mgrit(
        grid.steps(params, x, coarsening), coarsening, h0, steps, cycle=cycle, relaxations=relaxations, weight=weight,
        nested=start == "nested", skip=start == "skip", cycles=done)
    assert done <= count
    assert_allclose(solution.residuals[1:], history, **close)
    assert_allclose(solution.states, expected[1:], **close)


@given(settings())
def test_cycles_are_those_of_the_naive_twin(setting):
    compare(GATED, *setting, rtol=1e-11, atol=1e-13)


@given(settings())
def test_any_cycle_ends_after_as_many_as_make_everything_exact(setting):
    steps, coarsening, relaxations, cycle, weight, start = setting
    params, x, h0 = GATED.problem(steps, scale=3.0)
    solution = mgrit(GATED.cell, params, x, h0, levels=len(coarsening) + 1, coarsening=coarsening, cycle=cycle, weight=weight,
                     relaxation="F" + "CF" * relaxations, nested=start == "nested", skip_first=start == "skip", tol=1e-13,
                     on_failure="raise")
    exact = relaxations + 1 if weight == 1.0 else 1
    assert solution.iterations <= -(-(steps // coarsening[0]) // exact) + (start == "skip")
    assert_allclose(solution.states, sequential(GATED, params, x, h0), rtol=1e-11, atol=1e-12)


@every_grid
def test_every_kind_of_cell_has_the_cycles_of_the_twin(grid):
    coarsening = (3,) if grid is SCALAR else (4, 2)
    compare(grid, 37, coarsening, 1, "V", 1.0, "nested", count=2, rtol=1e-12, atol=1e-14)


@every_grid
def test_converged_states_are_those_of_the_loop(grid):
    params, x, h0 = grid.problem(130, batch=2)
    levels = 2 if grid is SCALAR else 3
    solution = mgrit(grid.cell, params, x, h0, levels=levels, on_failure="raise")
    assert (solution.residual <= solution.tol).all() and solution.work.levels == levels
    assert_allclose(solution.states, sequential(grid, params, x, h0), rtol=1e-11, atol=1e-11)
    assert_array_equal(solution.residuals[-1], solution.residual)
    assert solution.residuals.shape == (solution.iterations.max() + 1, 2)


@pytest.mark.parametrize(("relaxation", "exact"), [("F", 1), ("FCF", 2), ("FCFCF", 3)])
def test_each_cycle_makes_as_many_windows_exact_as_relaxation_and_correction_reach(relaxation, exact):
    """Oracle O2: whatever the coarse operator, here one that is far off."""
    params, x, h0 = GATED.problem(67, scale=3.0)
    expected = sequential(GATED, params, x, h0)
    for count in (1, 2, 3):
        solution = cycles(count, GATED.cell, params, x, h0, levels=2, relaxation=relaxation)
        assert_allclose(solution.states[:4 * exact * count], expected[:4 * exact * count], rtol=0, atol=1e-14)
        assert abs(solution.states - expected)[4 * (exact * count + 1):].max() > 1e-9
    last = mgrit(GATED.cell, params, x, h0, levels=2, relaxation=relaxation, tol=1e-14)
    assert last.converged and last.iterations <= -(-16 // exact)


@given(st.floats(0.5, 1.0), st.floats(-0.9, 0.9), st.integers(2, 5), st.sampled_from(["F", "FCF"]), st.integers(0, 2**32 - 1))
def test_errors_of_scalar_problems_follow_the_error_matrix(lam, mu, m, relaxation, seed):
    """Oracle O5, and its bound on the norm."""
    intervals = 8
    params, h0 = {"lam": np.array([lam]), "mu": np.array([mu])}, np.ones(1)
    x = np.zeros((m * intervals, 1))
    exact = lam ** np.arange(1, m * intervals + 1)[:, None]
    error = np.random.default_rng(seed).normal(size=intervals)
    guess = exact.copy()
    guess[m - 1::m, 0] += error
    matrix = twin.error_matrix(lam, mu, m, intervals, relaxation)
    for count in (1, 2, 3):
        solution = cycles(count, SCALAR.cell, params, x, h0, levels=2, coarsening=m, relaxation=relaxation, guess=guess)
        expected = np.linalg.matrix_power(matrix, count) @ error
        measured = solution.states[m - 1::m, 0] - exact[m - 1::m, 0]
        assert_allclose(measured, expected, rtol=0, atol=1e-13 * max(1.0, abs(error).max()))
    assert np.linalg.norm(matrix @ error) <= twin.error_norm_bound(lam, mu, m, intervals, relaxation) * np.linalg.norm(error)


@pytest.mark.parametrize(("levels", "relaxation", "cycle", "iterations"), [
    (2, "F", "V", 4), (2, "FCF", "V", 4), (5, "F", "V", 10), (5, "FCF", "V", 7), (5, "FCF", "F", 4)])
def test_cycles_needed_by_levels_and_relaxation(levels, relaxation, cycle, iterations):
    """Oracle O6, as counted with PyMGRIT."""
    solution = mgrit(ODE.cell, RATE, 1024, np.ones(1), levels=levels, relaxation=relaxation, cycle=cycle, tol=1e-10)
    assert solution.iterations == iterations


@every_grid
def test_a_solution_is_a_fixed_point(grid):
    """Oracle O7."""
    params, x, h0 = grid.problem(50, batch=2)
    states = sequential(grid, params, x, h0)
    solution = mgrit(grid.cell, params, x, h0, levels=2, guess=states)
    assert (solution.iterations == 0).all() and solution.converged.all()
    if grid is GRIDS["gru"]:  # windows run in other lanes than the loop, which round differently
        assert_allclose(solution.states, states, rtol=1e-13, atol=1e-14)
    else:
        assert (solution.residuals == 0).all()
        assert_array_equal(solution.states, states)


def test_an_exact_coarse_operator_needs_no_cycle():
    cell = ps.cells.Linear(3, 5)
    params, h0 = cell.init(seed=9), np.random.default_rng(1).normal(size=5)
    x = np.repeat(np.random.default_rng(2).normal(size=(8, 3)), 16, axis=0)  # as coarse steps see one input of 16
    solution = mgrit(cell, params, x, h0, on_failure="raise")
    assert solution.iterations == 0
    assert_allclose(solution.states, ps.solve(cell, params, x, h0, method="sequential").states, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["gru", "gru-f32"])
def test_ordinary_gru_weights(name):
    model = MODELS[name]
    params, x, h0 = model.problem(300, batch=3)
    for options in ({}, {"levels": 2, "coarsening": 8}, {"cycle": "F"}, {"nested": False}, {"skip_first": True}):
        solution = mgrit(model.cell, params, x, h0, on_failure="raise", **options)
        assert_allclose(solution.states, model.loop(params, x, h0), **model.close)


@every_grid
def test_ragged_sequences_are_solved_as_if_alone(grid):
    if not grid.cell.input_size:
        pytest.skip("lengths come with inputs")
    lengths = [70, 0, 1, 3, 4, 33]
    params, x, h0 = grid.problem(70, batch=6)
    for b, stop in enumerate(lengths):
        x[b, stop:] = np.nan
    options = {"levels": 2 if grid is SCALAR else 3}
    solution = mgrit(grid.cell, params, x, h0, lengths=np.array(lengths), tol=1e-12, **options)
    assert solution.converged.all()
    for b, stop in enumerate(lengths):
        assert (solution.states[b, stop:] == 0).all()
        alone = mgrit(grid.cell, params, x[b, :stop], h0[b], tol=1e-12, **options)
        assert alone.iterations == solution.iterations[b]
        assert_allclose(solution.states[b, :stop], alone.states, rtol=1e-13, atol=1e-14)
        assert_allclose(solution.states[b, :stop], sequential(grid, params, x[b, :stop], h0[b]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 7])
def test_sequences_of_a_window_and_less(steps):
    params, x, h0 = GATED.problem(steps, batch=2)
    for options in ({}, {"levels": 7}, {"levels": 1}, {"nested": False}, {"skip_first": True}):
        solution = mgrit(GATED.cell, params, x, h0, **options)
        assert solution.converged.all() and solution.work.levels == (2 if steps >= 4 and options != {"levels": 1} else 1)
        assert_allclose(solution.states, sequential(GATED, params, x, h0), rtol=1e-13, atol=1e-14)


def test_fewer_levels_than_asked_for_are_reported():
    params, x, h0 = GATED.problem(40)
    solution = mgrit(GATED.cell, params, x, h0, levels=9, coarsening=2)
    assert solution.work.levels == 6 and "levels      6" in repr(solution)  # 40 20 10 5 2 1


def test_an_empty_batch():
    params, x, h0 = GATED.problem(9, batch=0)
    assert mgrit(GATED.cell, params, x, h0).states.shape == (0, 9, 2)


def unstable(p, x, u, out):
    out[0] = -0.5 * u[0] * u[0] * u[0]


def test_a_coarse_operator_that_overflows_is_never_silent():
    cell = ps.cells.ODE(unstable, 1, dt=1.0)  # a step of 16 overshoots more and more
    h0 = np.full(1, 0.9)
    options = {"coarsening": 16, "levels": 2}
    solution = mgrit(cell, {}, 300, h0, **options)
    assert solution.status is ps.Status.FALLBACK and solution.resumed_at >= 15 and not np.isfinite(solution.residuals[0])
    assert_allclose(solution.states, ps.solve(cell, {}, 300, h0, method="sequential").states, rtol=0, atol=1e-14)
    with pytest.raises(ps.ConvergenceError):
        mgrit(cell, {}, 300, h0, on_failure="raise", **options)
    with pytest.warns(RuntimeWarning, match=r"Not converged|not finite"):
        assert not mgrit(cell, {}, 300, h0, on_failure="warn", **options).converged


def test_a_cell_without_a_coarse_form_is_refused():
    model = MODELS["lstm"]
    params, x, h0 = model.problem(3)
    for method in ("mgrit", "parareal"):
        with pytest.raises(TypeError, match=r"LSTM.* does not say how its steps coarsen"):
            ps.solve(model.cell, params, x, h0, method=method)


def test_the_tolerance_may_be_relative_to_the_first_residual():
    params, x, h0 = GATED.problem(100)
    solution = mgrit(GATED.cell, params, x, h0, relative=True, tol=1e-3)
    below = solution.residuals <= 1e-3 * solution.residuals[0]
    assert below[-1] and not below[:-1].any() and solution.converged


def test_a_norm_above_the_tolerance_has_not_converged_though_every_point_is_below():
    params, x, h0 = GATED.problem(400)
    once = cycles(1, GATED.cell, params, x, h0)
    tol = 0.9 * float(once.residual)
    with pytest.warns(RuntimeWarning, match="Not converged"):
        solution = mgrit(GATED.cell, params, x, h0, max_iter=1, tol=tol, on_failure="warn")
    assert not solution.converged and solution.resumed_at < 400
    relative = {"relative": True, "tol": tol / float(once.residuals[0]), "max_iter": 1}
    solution = mgrit(GATED.cell, params, x, h0, **relative)
    assert solution.status is ps.Status.FALLBACK
    assert_allclose(solution.states, sequential(GATED, params, x, h0), rtol=1e-4, atol=1e-4)


def test_a_batch_stops_sequence_by_sequence():
    params, x, h0 = GATED.problem(100, batch=2)
    x[1], h0[1] = 0.0, 0.0
    params["bias"][...] = 0.0
    solution = mgrit(GATED.cell, params, x, h0)
    assert solution.iterations[1] == 0 < solution.iterations[0]
    assert (solution.residuals[:, 1] == 0).all()


@pytest.mark.parametrize("grid", [GATED, GRIDS["gru"]], ids=["gated", "gru"])
def test_number_of_threads_changes_no_bit(grid):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    params, x, h0 = grid.problem(700, batch=3)
    threads = numba.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(mgrit(grid.cell, params, x, h0, tol=1e-8))
    finally:
        numba.set_num_threads(threads)
    assert_array_equal(results[0].states, results[1].states)
    assert_array_equal(results[0].residuals, results[1].residuals)


def test_work_counts_every_step():
    params, x, h0 = GATED.problem(64)
    solution = cycles(3, GATED.cell, params, x, h0, levels=2)
    # Start: 16 coarse steps and F-relaxation. Cycle: two fine sweeps, 16 coarse steps for the source, 16 for the solution.
    assert solution.work.fine == 64 * (1 + 2 * 3) and solution.work.coarse == 16 * (1 + 2 * 3)
    assert solution.work.depth == 16 + 4 + 3 * (4 + 1 + 16 + 4)
    assert ps.speedup_model(solution, 10**6) == 64 / solution.work.depth
    assert_allclose(ps.speedup_model(solution, 1), 64 / (solution.work.fine + solution.work.coarse))
    assert ps.speedup_model(solution, 1, coarse_cost=2.0) < ps.speedup_model(solution, 1)


@pytest.mark.parametrize("method", ["sequential", "picard", "deer", "parareal"])
def test_every_method_states_its_work(method):
    params, x, h0 = GATED.problem(64, batch=2)
    solution = ps.solve(GATED.cell, params, x, h0, method=method)
    assert solution.work.loop == (0, 2, 64, 128) and solution.work.fine >= 128
    assert "fine" in repr(solution.work)
    if method == "sequential":
        assert solution.work.depth == 64 and ps.speedup_model(solution, 7) == 1.0
    if method == "picard":
        assert solution.work.depth == solution.iterations.max() and solution.work.fine == 64 * solution.iterations.sum()
    if method == "deer":
        assert solution.work.depth == (1 + 6) * solution.iterations.max()


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"coarsening": 1}, ValueError, "coarsening must be at least 2 .*got 1"),
    ({"coarsening": (4, 1)}, ValueError, r"coarsening\[1\] must be at least 2 .*got 1"),
    ({"coarsening": (4,)}, ValueError, "coarsening must have one entry for each level .*, 2 for levels = 3, got 1"),
    ({"coarsening": 2.5}, TypeError, "coarsening must be an integer, got 2.5"),
    ({"relaxation": "CF"}, ValueError, "relaxation must be 'F', 'FCF', 'FCFCF' and so on, got 'CF'"),
    ({"relaxation": ("F", "FC")}, ValueError, r"relaxation\[1\] must be 'F'"),
    ({"relaxation": ("F",)}, ValueError, "relaxation must have one entry for each level"),
    ({"cycle": "W"}, ValueError, "cycle must be one of 'V' or 'F', got 'W'"),
    ({"weight": 2.0}, ValueError, "weight must be below 2, got 2.0"),
    ({"weight": 0.0}, ValueError, "weight must be positive"),
    ({"levels": 0}, ValueError, "levels must be at least 1, got 0"),
    ({"nested": 1}, TypeError, "nested must be True or False, got 1"),
    ({"nested": True, "guess": np.zeros((8, 2))}, ValueError, "guess is not used with nested=True"),
    ({"nested": True, "skip_first": True}, ValueError, "two ways to start"),
    ({"window": 4}, TypeError, "'mgrit' has no option 'window'"),
    ({"max_memory": 4}, TypeError, "'mgrit' has no option 'max_memory'"),
])
def test_bad_options(options, error, message):
    params, x, h0 = GATED.problem(8)
    with pytest.raises(error, match=message):
        mgrit(GATED.cell, params, x, h0, **options)
