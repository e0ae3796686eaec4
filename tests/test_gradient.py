"""Gradients: every cell against complex steps through the naive loop, for every way to get at states and adjoints."""

import math

import numba
import numpy as np
import pytest
import reference
from models import METHODS, MODELS, QUADRATIC, Model, naive_quadratic
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.backends import cpu

both = pytest.mark.parametrize("method", ["sequential", "scan"])
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
GRU, CUSTOM, LEM = MODELS["gru"], MODELS["custom"], MODELS["lem"]


def case(model, steps, batch=None):
    """A problem, its solution and a random dL/dh."""
    params, x, h0 = model.problem(steps, batch)
    solution = ps.solve(model.cell, params, x, h0)
    dstates = np.random.default_rng(8).normal(size=solution.states.shape).astype(model.dtype)
    return params, x, h0, solution, dstates


def flat(gradient):
    """Everything a gradient holds, by name."""
    return {**gradient.params, "x": gradient.x, "h0": gradient.h0}


def close(gradient, expected, tolerance):
    """Agreement relative to the largest entry of each array."""
    for name, value in flat(gradient).items():
        assert value.shape == expected[name].shape
        scale = abs(expected[name]).max(initial=0.0)
        assert_allclose(value, expected[name], rtol=tolerance, atol=tolerance * scale, err_msg=name)


def exact(params, x, h0, dstates, model):
    """The gradient by complex steps in float64, summed over the batch where it belongs to the parameters."""
    parts = [reference.gradient(model.naive, params, x[b], h0[b], dstates[b]) for b in range(len(x))]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return {name: value if name in ("x", "h0") else value.sum(axis=0) for name, value in stacked.items()}


@every_model
@both
def test_gradients_equal_complex_steps_through_the_loop(model, method):
    params, x, h0, solution, dstates = case(model, steps=9, batch=2)
    gradient = ps.gradient(model.cell, params, x, solution, dstates, h0, method=method)
    assert all(value.dtype == model.dtype for value in flat(gradient).values())
    close(gradient, exact(params, x, h0, dstates, model), 1e-4 if model.dtype == np.float32 else 1e-10)


@pytest.mark.parametrize("heads", [2, 6])
def test_heads_of_any_size(heads):
    # Three units a head do not fill a vector; one unit a head has a diagonal Jacobian.
    model = Model(ps.cells.GRU(3, 6, heads=heads), reference.gru, np.float64)
    params, x, h0 = model.problem(steps=9, batch=2)
    solution = ps.solve(model.cell, params, x, h0, method="deer", on_failure="raise")
    assert_allclose(solution.states, model.loop(params, x, h0), **model.close)
    dstates = np.random.default_rng(8).normal(size=solution.states.shape)
    expected = exact(params, x, h0, dstates, model)
    for method in ("sequential", "scan"):
        close(ps.gradient(model.cell, params, x, solution, dstates, h0, method=method), expected, 1e-10)


@pytest.mark.parametrize("model", [MODELS["gru-f32"], GRU, MODELS["heads"], CUSTOM], ids=["gru-f32", "gru", "heads", "custom"])
@both
def test_directional_derivative_of_a_long_sequence(model, method):
    params, x, h0, solution, dstates = case(model, steps=700)
    gradient = flat(ps.gradient(model.cell, params, x, solution, dstates, h0, method=method))
    random = np.random.default_rng(1)
    for names in (["x"], ["h0"], list(params)):
        by = {name: random.normal(size=gradient[name].shape) for name in names}
        expected = reference.slope(model.naive, params, x, h0, dstates, by)
        size = sum(np.linalg.norm(gradient[name]) for name in names)
        assert abs(sum(np.sum(gradient[name] * by[name]) for name in names) - expected) < size * (
            1e-4 if model.dtype == np.float32 else 1e-10)


def test_auto_is_one_of_the_two():
    for model, method in ((GRU, "sequential"), (LEM, "sequential"), (CUSTOM, "scan")):
        params, x, h0, solution, dstates = case(model, steps=9)
        gradients = [ps.gradient(model.cell, params, x, solution, dstates, h0, method=name) for name in ("auto", method)]
        assert [gradient.method for gradient in gradients] == [method, method]
        assert_array_equal(gradients[0].x, gradients[1].x)


def test_a_stated_pullback_is_enough_for_the_loop():
    # |h| is not analytic: complex steps, and with them the Jacobians of the scan, would be wrong.
    def step(p, x, h, new):
        new[0] = p.a[0] * abs(h[0]) - x[0]

    def pullback(p, x, h, new, v, dp, dx, dh):
        dp.a[0] += abs(h[0]) * v[0]
        dx[0] = -v[0]
        dh[0] = math.copysign(p.a[0], h[0]) * v[0]

    cell = ps.cells.custom(step, 1, 1, parameters={"a": (1,)}, pullback=pullback)
    params, x, h0 = {"a": np.array([0.9])}, np.linspace(-1.0, 2.0, 40)[:, None], np.array([-0.3])

    def loss(a, h, shift):
        total = 0.0
        for t in range(40):
            h = a * abs(h) - x[t, 0] - shift * (t == 20)
            total += (t + 1) * h
        return total

    gradient = ps.gradient(cell, params, x, ps.solve(cell, params, x, h0), 1.0 + np.arange(40.0)[:, None], h0)
    small = 1e-6
    for found, ends in ((gradient.params["a"][0], [(0.9 + s, -0.3, 0.0) for s in (small, -small)]),
                        (gradient.h0[0], [(0.9, -0.3 + s, 0.0) for s in (small, -small)]),
                        (gradient.x[20, 0], [(0.9, -0.3, s) for s in (small, -small)])):
        assert_allclose(found, (loss(*ends[0]) - loss(*ends[1])) / (2 * small), rtol=1e-7)


@pytest.mark.parametrize("forward", METHODS)
def test_the_gradient_does_not_depend_on_the_forward_method(forward):
    params, x, h0, solution, dstates = case(GRU, steps=100, batch=2)
    expected = flat(ps.gradient(GRU.cell, params, x, solution, dstates, h0))
    other = ps.solve(GRU.cell, params, x, h0, method=forward, on_failure="raise")
    for method in ("sequential", "scan"):
        close(ps.gradient(GRU.cell, params, x, other, dstates, h0, method=method), expected, 1e-11)


@pytest.mark.parametrize("model", [GRU, MODELS["heads"], CUSTOM, LEM], ids=["gru", "heads", "custom", "lem"])
@pytest.mark.parametrize("slabs", [1, 1 << 22])
@both
def test_ragged_gradients_are_those_of_the_sequences_alone(model, method, slabs, monkeypatch):
    monkeypatch.setattr(cpu, "loop_memory", lambda: slabs)
    lengths = np.array([600, 0, 1, 256, 257])
    params, x, h0 = model.problem(steps=600, batch=5)
    for b, stop in enumerate(lengths):
        x[b, stop:] = np.nan
    solution = ps.solve(model.cell, params, x, h0, lengths=lengths)
    dstates = np.random.default_rng(8).normal(size=solution.states.shape)
    padded = dstates.copy()
    for b, stop in enumerate(lengths):
        padded[b, stop:] = np.nan
    gradient = ps.gradient(model.cell, params, x, solution, padded, h0, method=method)
    sums = {name: np.zeros(value.shape) for name, value in params.items()}
    for b, stop in enumerate(lengths):
        short = x[b, :stop]
        alone = ps.gradient(model.cell, params, short, ps.solve(model.cell, params, short, h0[b]), dstates[b, :stop], h0[b],
                            method=method)
        assert (gradient.x[b, stop:] == 0).all()
        assert_allclose(gradient.x[b, :stop], alone.x, rtol=1e-11, atol=1e-12)
        assert_allclose(gradient.h0[b], alone.h0, rtol=1e-11, atol=1e-12)
        for name, value in alone.params.items():
            sums[name] += value
    for name, value in gradient.params.items():
        assert_allclose(value, sums[name], rtol=1e-10, atol=1e-10 * abs(sums[name]).max(), err_msg=name)


@every_model
@both
def test_slabs_of_time_give_the_same_gradient(model, method, monkeypatch):
    params, x, h0, solution, dstates = case(model, steps=700, batch=2)
    whole = ps.gradient(model.cell, params, x, solution, dstates, h0, method=method)
    monkeypatch.setattr(cpu, "loop_memory", lambda: 1)
    slabs = ps.gradient(model.cell, params, x, solution, dstates, h0, method=method)
    close(slabs, flat(whole), 1e-4 if model.dtype == np.float32 else 1e-12)


@every_model
@both
def test_zero_and_one_step(model, method):
    for steps in (0, 1):
        params, x, h0, solution, dstates = case(model, steps, batch=2)
        gradient = ps.gradient(model.cell, params, x, solution, dstates, h0, method=method)
        close(gradient, exact(params, x, h0, dstates, model), 1e-4 if model.dtype == np.float32 else 1e-12)


@both
def test_an_empty_batch_has_a_zero_gradient(method):
    params, x, h0, solution, dstates = case(GRU, steps=9, batch=0)
    gradient = ps.gradient(GRU.cell, params, x, solution, dstates, h0, method=method)
    assert gradient.x.shape == (0, 9, 3) and gradient.h0.shape == (0, 5)
    assert all((value == 0).all() for value in gradient.params.values())


@pytest.mark.parametrize("name", ["gru", "lem"])
@both
def test_number_of_threads_changes_no_bit(name, method):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    model = MODELS[name]
    params, x, h0, solution, dstates = case(model, steps=900, batch=3)
    threads = numba.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(flat(ps.gradient(model.cell, params, x, solution, dstates, h0, method=method)))
    finally:
        numba.set_num_threads(threads)
    for key, value in results[0].items():
        assert_array_equal(value, results[1][key], err_msg=key)


@both
def test_the_gradient_is_linear_in_dstates_and_leaves_arguments_alone(method):
    params, x, h0, solution, dstates = case(GRU, steps=300, batch=2)
    kept = dstates.copy()
    for array in (*params.values(), x, h0, dstates, solution.states):
        array.setflags(write=False)
    one, two = (ps.gradient(GRU.cell, params, x, solution, factor * dstates, h0, method=method) for factor in (1.0, -2.0))
    close(two, {name: -2.0 * value for name, value in flat(one).items()}, 1e-13)
    strided = ps.gradient(GRU.cell, params, x, solution, np.asfortranarray(dstates), h0, method=method)
    for name, value in flat(strided).items():
        assert_array_equal(value, flat(one)[name])
    assert_array_equal(dstates, kept)


def test_a_cell_without_inputs_has_no_gradient_of_x():
    params, h0 = {"a": np.full(1, 0.9), "b": np.full(1, -0.1)}, np.array([[0.7], [-0.2]])
    solution = ps.solve(QUADRATIC, params, 12, h0)
    dstates = np.random.default_rng(8).normal(size=(2, 12, 1))
    gradient = ps.gradient(QUADRATIC, params, 12, solution, dstates, h0)
    assert gradient.x is None
    parts = [reference.gradient(naive_quadratic, params, np.zeros((12, 0)), h0[b], dstates[b]) for b in range(2)]
    for name in params:
        assert_allclose(gradient.params[name], parts[0][name] + parts[1][name], rtol=1e-12)
    assert_allclose(gradient.h0, [part["h0"] for part in parts], rtol=1e-12)
