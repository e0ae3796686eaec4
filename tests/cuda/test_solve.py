"""solve, gradient and affine_scan with backend="cuda": the same contract as on the CPU, at tiny sizes."""

import numpy as np
import pytest
import reference
from models import MODELS
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.backends.cuda.launch import cuda

pytestmark = pytest.mark.usefixtures("small_blocks")
METHODS = {"sequential": {}, "picard": {}, "deer": {}, "quasi-deer": {}, "elk": {}, "quasi-elk": {},
           "shooting": {"window": 4}, "mgrit": {"coarsening": 3, "levels": 2}, "parareal": {"window": 5}}
LENGTHS = np.array([17, 0, 12])
GRU = MODELS["gru"]


def pairs(methods):
    """The smallest model with every method, the others with those that call other verbs of theirs."""
    return pytest.mark.parametrize(("name", "method"), [
        *(("gru-f32", method) for method in methods),
        *((name, method) for name in ("heads", "lstm", "custom") for method in ("deer", "scan", "shooting")
          if method in methods),
        ("lem", "sequential")])


@pairs(METHODS)
def test_states_equal_the_naive_loop(name, method):
    model = MODELS[name]
    params, x, h0 = model.problem(steps=17, batch=3)
    solution = ps.solve(model.cell, params, x, h0, lengths=LENGTHS, method=method, backend="cuda", on_failure="raise",
                        **METHODS[method])
    assert (solution.backend, solution.method) == ("cuda", method) and solution.converged.all()
    assert isinstance(solution.states, np.ndarray) and solution.states.dtype == model.dtype
    assert_allclose(solution.states, model.loop(params, x, h0, LENGTHS), **model.close)


@pairs(("sequential", "scan", "shooting", "mgrit"))
def test_gradients_equal_complex_steps_through_the_loop(name, method):
    model = MODELS[name]
    params, x, h0 = model.problem(steps=9, batch=2)
    solution = ps.solve(model.cell, params, x, h0, method="sequential", backend="cuda")
    dstates = np.random.default_rng(8).normal(size=solution.states.shape).astype(model.dtype)
    options = {"shooting": {"window": 4}, "mgrit": {"coarsening": 3, "levels": 2}}.get(method, {})
    gradient = ps.gradient(model.cell, params, x, solution, dstates, h0, method=method, backend="cuda", **options)
    parts = [reference.gradient(model.naive, params, x[b], h0[b], dstates[b]) for b in range(2)]
    tolerance = 1e-4 if model.dtype == np.float32 else 1e-9
    for key, value in {**gradient.params, "x": gradient.x, "h0": gradient.h0}.items():
        stacked = np.stack([part[key] for part in parts])
        expected = stacked if key in ("x", "h0") else stacked.sum(axis=0)
        assert value.dtype == model.dtype and value.shape == expected.shape
        assert_allclose(value, expected, rtol=tolerance, atol=tolerance * abs(expected).max(), err_msg=key)


@pytest.mark.parametrize("steps", [0, 1, 31, 32, 33])
def test_any_number_of_steps(steps):
    model = MODELS["gru-f32"]
    params, x, h0 = model.problem(steps=steps)
    for method in ("sequential", "deer", "shooting"):
        solution = ps.solve(model.cell, params, x, h0, method=method, backend="cuda")
        assert_allclose(solution.states, model.loop(params, x, h0), **model.close)
    dstates = np.ones_like(solution.states)
    for method in ("sequential", "scan", "shooting"):
        gradient = ps.gradient(model.cell, params, x, solution, dstates, h0, method=method, backend="cuda")
        assert gradient.x.shape == x.shape and np.isfinite(gradient.params["weight_hh"]).all()


def test_device_arrays_stay_on_the_device_and_choose_the_backend():
    params, x, h0 = GRU.problem(steps=8, batch=2)
    there = cuda.to_device(x)
    solution = ps.solve(GRU.cell, params, there, h0, method="deer")
    assert solution.backend == "cuda" and not isinstance(solution.states, np.ndarray)
    assert_allclose(solution.states.copy_to_host(), GRU.loop(params, x, h0), **GRU.close)
    dstates = cuda.to_device(np.ones(solution.states.shape))
    gradient = ps.gradient(GRU.cell, params, there, solution, dstates, cuda.to_device(h0))
    assert isinstance(gradient.params["weight_hh"], np.ndarray) and not isinstance(gradient.x, np.ndarray)
    assert_array_equal(there.copy_to_host(), x)
    host = ps.gradient(GRU.cell, params, x, solution, np.ones((*x.shape[:2], 5)), h0, backend="cuda")
    assert_array_equal(gradient.x.copy_to_host(), host.x)


def test_the_same_call_gives_the_same_bits():
    params, x, h0 = MODELS["gru-f32"].problem(steps=20, batch=2)
    first, second = (ps.solve(MODELS["gru-f32"].cell, params, x, h0, method="deer", backend="cuda").states for _ in range(2))
    assert_array_equal(first, second)


@pytest.mark.parametrize("batch", [(), (2,), (2, 2)])
@pytest.mark.parametrize("reverse", [False, True])
def test_affine_scan(batch, reverse):
    random = np.random.default_rng(4)
    A, b, y0 = random.normal(size=(*batch, 9, 2, 2)), random.normal(size=(*batch, 9, 2)), random.normal(size=(*batch, 2))
    expected = reference.affine_scan_batch(A, b, y0, reverse=reverse)
    assert_allclose(ps.affine_scan(A, b, y0, reverse=reverse, backend="cuda"), expected, rtol=1e-12)
    got = ps.affine_scan(cuda.to_device(A), cuda.to_device(b), y0, reverse=reverse)
    assert_allclose(got.copy_to_host(), expected, rtol=1e-12)


def test_errors_are_those_of_the_cpu():
    params, x, h0 = GRU.problem(steps=8, batch=2)
    bad = x.copy()
    bad[1, 3, 2] = np.nan
    calls = [lambda x, h0: ps.solve(GRU.cell, params, x[:, :, :2], h0), lambda x, h0: ps.solve(GRU.cell, params, x, h0[:, :4]),
             lambda x, h0: ps.affine_scan(x, h0)]
    calls += [lambda x, h0: ps.solve(GRU.cell, params, bad if isinstance(x, np.ndarray) else cuda.to_device(bad), h0)]
    for call in calls:
        messages = []
        for arrays in ((x, h0), (cuda.to_device(x), cuda.to_device(h0))):
            with pytest.raises((TypeError, ValueError)) as error:
                call(*arrays)
            messages.append((type(error.value), str(error.value)))
        assert messages[0] == messages[1]
    with pytest.raises(TypeError, match="float32 or float64"):
        ps.solve(GRU.cell, params, cuda.to_device(x.astype(int)), h0)
    with pytest.raises(TypeError, match="backend='cpu' cannot take arrays on a CUDA device"):
        ps.solve(GRU.cell, params, cuda.to_device(x), h0, backend="cpu")


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")  # by the simulator's threads
def test_a_model_that_overflows_says_so():
    cell = ps.cells.Linear(1, 2)
    params = {name: 3.0 + value for name, value in cell.init(seed=1).items()}
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="not finite"):
        solution = ps.solve(cell, params, np.ones((900, 1)), method="sequential", backend="cuda")
    assert solution.status is ps.Status.OVERFLOW and not solution.converged
