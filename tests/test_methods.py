"""The contract that every method keeps: the states of the naive loop, for any batch, dtype, strides, lengths and guess."""

import numba
import numpy as np
import pytest
from models import METHODS, MODELS, Model
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps

ITERATIVE = METHODS[1:]
every_method = pytest.mark.parametrize("method", METHODS)
every_iterative = pytest.mark.parametrize("method", ITERATIVE)
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
GRU = MODELS["gru"]


@every_model
@every_method
def test_states_equal_the_naive_loop(model, method):
    params, x, h0 = model.problem(steps=50, batch=3)
    solution = ps.solve(model.cell, params, x, h0, method=method, on_failure="raise")
    assert solution.states.dtype == model.dtype and solution.method == method
    assert solution.converged.all() and (solution.residual <= solution.tol).all()
    assert_allclose(solution.states, model.loop(params, x, h0), **model.close)


@every_method
def test_a_single_sequence_is_a_batch_of_one_without_the_axis(method):
    params, x, h0 = GRU.problem(steps=50, batch=1)
    batch = ps.solve(GRU.cell, params, x, h0, method=method)
    one = ps.solve(GRU.cell, params, x[0], h0[0], method=method)
    assert_array_equal(one.states, batch.states[0])
    for name in ("converged", "iterations", "residual", "resumed_at"):
        assert np.shape(getattr(one, name)) == () and getattr(batch, name).shape == (1,)
        assert getattr(one, name) == getattr(batch, name)[0]
    for name in ("residuals", "steps"):
        assert_array_equal(getattr(one, name), getattr(batch, name)[:, 0])


@every_method
def test_h0_is_zero_by_default(method):
    params, x, h0 = GRU.problem(steps=20, batch=2)
    solutions = [ps.solve(GRU.cell, params, x, *start, method=method) for start in ((), (0 * h0,))]
    assert_array_equal(solutions[0].states, solutions[1].states)


@every_method
def test_strides_and_read_only_arrays_change_no_bit(method):
    params, x, h0 = GRU.problem(steps=50, batch=3)
    expected = ps.solve(GRU.cell, params, x, h0, method=method, guess=0.5 * np.ones((3, 50, 5))).states
    params = {name: np.asfortranarray(value) for name, value in params.items()}
    x, h0 = np.repeat(x, 2, axis=1)[:, ::2], h0[:, ::-1].copy()[:, ::-1]
    guess = np.full((50, 3, 5), 0.5).transpose(1, 0, 2)
    for array in (*params.values(), x, h0, guess):
        array.setflags(write=False)
    assert_array_equal(ps.solve(GRU.cell, params, x, h0, method=method, guess=guess).states, expected)


@every_model
@every_method
def test_zero_one_and_two_steps(model, method):
    for steps in (0, 1, 2):
        params, x, h0 = model.problem(steps, batch=2)
        solution = ps.solve(model.cell, params, x, h0, method=method)
        assert solution.states.shape == (2, steps, model.cell.state_size) and solution.converged.all()
        assert_allclose(solution.states, model.loop(params, x, h0), **model.close)
        assert ps.solve(model.cell, params, x[0], method=method).states.shape == (steps, model.cell.state_size)


@every_method
def test_an_empty_batch(method):
    params, x, h0 = GRU.problem(steps=9, batch=0)
    solution = ps.solve(GRU.cell, params, x, h0, method=method)
    assert solution.states.shape == (0, 9, 5)
    assert solution.converged.shape == solution.iterations.shape == solution.residual.shape == (0,)
    assert "0 of 0" in repr(solution)


@every_method
def test_one_unit(method):
    cell = ps.cells.GRU(3, 1)
    model = Model(cell, GRU.naive, np.float32)
    params, x, h0 = model.problem(steps=50, batch=2)
    solution = ps.solve(cell, params, x, h0, method=method, on_failure="raise")
    assert_allclose(solution.states, model.loop(params, x, h0), **model.close)


@pytest.mark.parametrize("model", [MODELS[name] for name in ("gru", "heads", "custom")], ids=["gru", "heads", "custom"])
@every_method
def test_ragged_sequences_are_solved_as_if_alone(model, method):
    lengths = [70, 0, 1, 33]
    params, x, h0 = model.problem(steps=70, batch=4)
    for b, stop in enumerate(lengths):
        x[b, stop:] = np.nan
    guess = np.full((4, 70, model.cell.state_size), np.nan)
    for b, stop in enumerate(lengths):
        guess[b, :stop] = 0.1
    solution = ps.solve(model.cell, params, x, h0, lengths=np.array(lengths), method=method, guess=guess)
    assert solution.converged.all() and (solution.resumed_at == lengths).all()
    assert_array_equal(solution.lengths, lengths)
    for b, stop in enumerate(lengths):
        assert (solution.states[b, stop:] == 0).all()
        alone = ps.solve(model.cell, params, x[b, :stop], h0[b], method=method, guess=guess[b, :stop])
        assert_array_equal(solution.states[b, :stop], alone.states)
        assert solution.iterations[b] == alone.iterations


@every_method
def test_permuting_the_batch_permutes_the_solution(method):
    params, x, h0 = GRU.problem(steps=50, batch=4)
    order = [2, 0, 3, 1]
    straight, permuted = (ps.solve(GRU.cell, params, x[o], h0[o], method=method) for o in ([0, 1, 2, 3], order))
    assert_array_equal(permuted.states, straight.states[order])
    assert_array_equal(permuted.iterations, straight.iterations[order])
    assert_array_equal(permuted.residual, straight.residual[order])


@every_model
@every_iterative
def test_a_solution_is_a_fixed_point(model, method):
    params, x, h0 = model.problem(steps=50, batch=2)
    states = ps.solve(model.cell, params, x, h0).states
    solution = ps.solve(model.cell, params, x, h0, method=method, guess=states)
    assert (solution.iterations <= 1).all() and solution.converged.all()
    assert_allclose(solution.states, states, **model.close)


@every_model
@pytest.mark.parametrize("method", ["picard", "deer", "quasi-deer"])
def test_k_iterations_make_the_first_k_steps_exact(model, method):
    params, x, h0 = model.problem(steps=50)
    # A guess far away, so that no method has converged everywhere.
    guess = np.full((50, model.cell.state_size), 3.0, model.dtype)
    exact = model.loop(params, x, h0)
    for k in (1, 2, 3):
        with pytest.warns(RuntimeWarning, match="Not converged"):
            solution = ps.solve(model.cell, params, x, h0, method=method, max_iter=k, guess=guess, on_failure="warn")
        assert not solution.converged and solution.iterations == k and solution.resumed_at >= k
        assert_allclose(solution.states[:k], exact[:k], **model.close)


@every_iterative
def test_a_warm_start_takes_fewer_iterations(method):
    params, x, h0 = GRU.problem(steps=200)
    cold = ps.solve(GRU.cell, params, x, h0, method=method)
    guess = cold.states + 1e-9
    warm = ps.solve(GRU.cell, params, x, h0, method=method, guess=guess)
    assert warm.iterations < cold.iterations and warm.converged
    assert (guess == cold.states + 1e-9).all()


@every_model
@every_iterative
def test_slabs_of_time_give_the_same_solution(model, method):
    params, x, h0 = model.problem(steps=700, batch=2)
    lengths = np.array([700, 300])
    whole, slabs = (ps.solve(model.cell, params, x, h0, lengths=lengths, method=method, on_failure="raise", **options)
                    for options in ({}, {"max_memory": 1}))
    close = {"rtol": 1e-4, "atol": 1e-4} if model.dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-11}
    assert_allclose(slabs.states, whole.states, **close)


@every_method
def test_number_of_threads_changes_no_bit(method):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    params, x, h0 = GRU.problem(steps=700, batch=3)
    options = {} if method == "sequential" else {"max_memory": 1 << 16, "max_iter": 40}
    threads = numba.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(ps.solve(GRU.cell, params, x, h0, method=method, **options))
    finally:
        numba.set_num_threads(threads)
    assert_array_equal(results[0].states, results[1].states)
    assert_array_equal(results[0].residuals, results[1].residuals)


def test_full_damping_is_the_picard_iteration():
    params, x, h0 = GRU.problem(steps=50)
    picard = ps.solve(GRU.cell, params, x, h0, method="picard")
    for method in ("deer", "quasi-deer"):
        damped = ps.solve(GRU.cell, params, x, h0, method=method, damping=1.0)
        assert damped.iterations == picard.iterations
        assert_allclose(damped.states, picard.states, **GRU.close)
        half = ps.solve(GRU.cell, params, x, h0, method=method, damping=0.5)
        plain = ps.solve(GRU.cell, params, x, h0, method=method)
        assert half.converged and plain.iterations < half.iterations < picard.iterations
        assert_allclose(half.states, picard.states, **GRU.close)


def test_newton_is_quadratic_and_its_diagonal_form_is_not():
    params, x, h0 = GRU.problem(steps=300)
    deer, quasi = (ps.solve(GRU.cell, params, x, h0, method=method) for method in ("deer", "quasi-deer"))
    assert deer.iterations < 7 < quasi.iterations
    assert deer.residuals[3] < 10 * deer.residuals[2]**2


def test_a_large_trust_region_is_newton_and_a_small_one_is_slower():
    params, x, h0 = GRU.problem(steps=100)
    for method, newton in (("elk", "deer"), ("quasi-elk", "quasi-deer")):
        plain = ps.solve(GRU.cell, params, x, h0, method=newton)
        wide = ps.solve(GRU.cell, params, x, h0, method=method, trust=1e12)
        narrow = ps.solve(GRU.cell, params, x, h0, method=method, trust=1.0)
        assert_allclose(wide.residuals[1], plain.residuals[1], rtol=1e-6)
        assert narrow.residuals[1] > 1.5 * wide.residuals[1] and narrow.converged


@every_iterative
def test_histories_have_one_entry_an_iteration_and_a_sequence(method):
    params, x, h0 = GRU.problem(steps=60, batch=2)
    x[0] = 0.0
    h0[0] = 0.0
    params = {**params, "bias_ih": 0 * params["bias_ih"], "bias_hh": 0 * params["bias_hh"]}
    solution = ps.solve(GRU.cell, params, x, h0, method=method)
    most = solution.iterations.max()
    assert solution.residuals.shape == (most + 1, 2) and solution.steps.shape == (most, 2)
    assert solution.iterations[0] == 1 < solution.iterations[1]  # the guess solves the first sequence
    assert (solution.residuals[:, 0] == 0).all() and (solution.steps[:, 0] == 0).all()
    assert_array_equal(solution.residuals[-1], solution.residual)
    first = ps.solve(GRU.cell, params, x[1], h0[1], method="picard")
    # The guess is h0 at every step, and its residual is that of any method.
    assert_allclose(solution.residuals[0, 1], first.residuals[0], rtol=1e-14)
    assert (np.diff(solution.residuals[:, 1]) < 0).sum() >= 0.8 * (most - 1)


@pytest.mark.parametrize("method", ["picard", "deer", "quasi-deer"])
def test_slabs_of_time_give_the_same_iterates(method):
    cell = ps.cells.GRU(input_size=3, hidden_size=5)
    params, x = cell.init(seed=31), np.random.default_rng(37).standard_normal((600, 3))
    whole, slabs = (ps.solve(cell, params, x, method=method, **options) for options in ({}, {"max_memory": 1}))
    assert_array_equal(slabs.residuals, whole.residuals)
    assert_array_equal(slabs.states, whole.states)
