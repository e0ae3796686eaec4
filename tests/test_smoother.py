"""The nonlinear smoother: stationarity against a naive cost, descent, agreement of windows and one window, checks."""

import numpy as np
import pytest
import reference
from models import MODELS, QUADRATIC
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.leastsquares import BlockTridiagonal, SmoothingStatus, smooth

ELMAN = ps.cells.Elman(2, 3)
HEADS = MODELS["heads"]


def simulate(cell, naive, steps, observed, seed=3, process=0.2, noise=0.3):
    """A noisy trajectory of a model, and noisy observations of its first components."""
    random = np.random.default_rng(seed)
    params, x = cell.init(seed), random.normal(size=(steps, cell.input_size))
    h0 = 0.5 * random.normal(size=cell.state_size)
    h, states = h0, np.zeros((steps, cell.state_size))
    for t in range(steps):
        h = states[t] = naive(params, x[t], h) + process * random.normal(size=h.size)
    y = states[:, :observed] + noise * random.normal(size=(steps, observed))
    noises = {"C": np.eye(observed, h.size), "Q": process**2 * np.eye(h.size), "R": noise**2 * np.eye(observed), "h0": h0}
    return states, (cell, params, x, y), noises


def naive_cost(naive, params, x, y, h, *, C, Q, R, h0, observed=None):
    """V(h), complex numbers allowed."""
    total, before = 0.0, h0
    for t in range(len(y)):
        defect, seen = h[t] - naive(params, x[t], before), np.ones(y.shape[1], bool) if observed is None else observed[t]
        left = (y[t] - C @ h[t])[seen]
        total += 0.5 * defect @ np.linalg.solve(Q, defect) + 0.5 * left @ np.linalg.solve(R[np.ix_(seen, seen)], left)
        before = h[t]
    return total


def naive_gradient(*arguments, h, **noises):
    gradient, tiny = np.zeros(h.shape), 1e-150
    for index in np.ndindex(h.shape):
        moved = h.astype(complex)
        moved[index] += 1j * tiny
        gradient[index] = naive_cost(*arguments, moved, **noises).imag / tiny
    return gradient


@pytest.fixture(scope="module")
def elman():
    return simulate(ELMAN, reference.elman, steps=60, observed=2)


@pytest.mark.parametrize(("cell", "naive", "seen"), [(ELMAN, reference.elman, 2), (HEADS.cell, HEADS.naive, 3)],
                         ids=["elman", "heads"])
def test_the_gradient_of_the_naive_cost_vanishes_at_the_result(cell, naive, seen):
    _, arguments, noises = simulate(cell, naive, 40, seen)
    observed = np.random.default_rng(8).random((40, seen)) < 0.8
    arguments[3][~observed] = np.nan
    fit = smooth(*arguments, **noises, observed=observed)
    y = np.where(observed, arguments[3], 0)
    twin = (naive, arguments[1], arguments[2], y)
    assert fit.converged
    assert_allclose(fit.cost, naive_cost(*twin, fit.states, **noises, observed=observed), rtol=1e-12)
    gradient = naive_gradient(*twin, h=fit.states, **noises, observed=observed)
    start = naive_gradient(*twin, h=np.zeros_like(fit.states), **noises, observed=observed)
    assert abs(gradient).max() < 1e-8 * abs(start).max()
    assert_allclose(-fit.linearised.rhs, gradient, atol=1e-10 * abs(start).max())


def test_a_linear_model_is_smoothed_by_the_first_step():
    cell = ps.cells.Linear(2, 3)
    params, random = cell.init(4), np.random.default_rng(4)
    x, y, h0 = random.normal(size=(60, 2)), random.normal(size=(60, 2)), random.normal(size=3)
    C, Q, R = random.normal(size=(2, 3)), np.diag([0.1, 0.2, 0.3]), 0.5 * np.eye(2)
    fit = smooth(cell, params, x, y, C=C, Q=Q, R=R, h0=h0, method="sequential")
    b = x @ params["weight_ih"].T + params["bias_ih"] + params["bias_hh"]
    b[0] += params["weight_hh"] @ h0
    at_once = ps.schwarz_lstsq(BlockTridiagonal.from_state_space(params["weight_hh"], Q, C, R, y, b), windows=1)
    assert_allclose(fit.states, at_once.solution, atol=1e-12)
    assert fit.iterations == 2 and fit.steps[1] < 1e-12


@pytest.mark.parametrize("options", [{"windows": 4}, {"windows": [0, 10, 33, 60], "overlap": 2, "transmission": "schur"},
                                     {"windows": 3, "overlap": 0}], ids=["count", "schur", "no overlap"])
def test_windows_do_not_change_the_result(elman, options):
    _, arguments, noises = elman
    fit, one = smooth(*arguments, **noises, **options), smooth(*arguments, **noises, method="sequential")
    assert fit.converged and one.converged
    assert_allclose(fit.states, one.states, atol=1e-9)
    assert (one.inner_iterations <= 1).all()


def test_smoothing_improves_on_the_observations_and_on_the_model_without_noise(elman):
    states, arguments, noises = elman
    fit = smooth(*arguments, **noises)
    rollout = ps.solve(*arguments[:3], noises["h0"]).states

    def error(estimate):
        return np.sqrt(np.mean((estimate[:, :2] - states[:, :2])**2))

    assert error(fit.states) < 0.7 * error(arguments[3]) and error(fit.states) < 0.9 * error(rollout)


def chaotic():
    """A logistic map with noise, observed at every step: Gauss-Newton from the model without noise has to shorten its steps."""
    random, h = np.random.default_rng(4), np.array([0.3])
    params, states = {"a": np.array([3.7]), "b": np.array([-3.7])}, []
    for _ in range(200):
        h = np.clip(3.7 * h * (1 - h) + 3e-3 * random.normal(size=1), 1e-3, 1 - 1e-3)
        states.append(h)
    y = np.array(states) + 0.05 * random.normal(size=(200, 1))
    noises = {"C": np.eye(1), "Q": 1e-5 * np.eye(1), "R": 0.0025 * np.eye(1), "h0": np.array([0.3])}
    return (QUADRATIC, params, 200, y), noises


def test_the_cost_falls_in_every_iteration():
    arguments, noises = chaotic()
    fit = smooth(*arguments, **noises, tol=1e-6)
    assert fit.lengths.min() < 1.0  # the line search had something to do
    assert (np.diff(fit.costs) <= 1e-12 * fit.costs[:-1]).all()


def test_without_enough_iterations_it_says_so():
    arguments, noises = chaotic()
    with pytest.warns(RuntimeWarning, match="Not converged"):
        fit = smooth(*arguments, **noises, max_iter=2)
    assert not fit.converged and fit.status is SmoothingStatus.NOT_CONVERGED and fit.iterations == 2
    with pytest.raises(ps.ConvergenceError, match="larger max_iter") as caught:
        smooth(*arguments, **noises, max_iter=2, on_failure="raise")
    assert_array_equal(caught.value.solution.states, fit.states)


def test_the_result_prints_itself(elman):
    _, arguments, noises = elman
    fit = smooth(*arguments, **noises)
    text = repr(fit)
    assert text.startswith("Smoothing: 60x3 float64, linear problems by schwarz\n")
    assert f"iterations  {fit.iterations}, inner {fit.inner_iterations.sum()}" in text and fit.status.value in text


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"C": np.eye(3)}, ValueError, r"C must have shape \(2, 3\)"),
    ({"Q": -np.eye(3)}, ValueError, "Q must be positive definite, at step 0"),
    ({"R": np.array([[1.0, 2.0], [2.0, 1.0]])}, ValueError, "R must be positive definite"),
    ({"Q": np.eye(3, dtype=np.float32)}, TypeError, "mixes float32 and float64"),
    ({"y": np.zeros((59, 2))}, ValueError, r"y must have shape \(60, 2\) for the steps of x"),
    ({"y": np.full((60, 2), np.nan)}, ValueError, "y must be finite"),
    ({"x": np.zeros((1, 60, 2)), "h0": None}, ValueError, "one sequence"),
    ({"h0": np.zeros(2)}, ValueError, "h0 must have shape"),
    ({"observed": np.ones(60)}, ValueError, "observed must be boolean"),
    ({"guess": np.zeros((60, 2))}, ValueError, "guess must have shape"),
    ({"guess": np.full((60, 3), np.inf)}, ValueError, "guess must be finite"),
    ({"method": "deer"}, ValueError, "method must be one of"),
    ({"on_failure": "ignore"}, ValueError, "on_failure must be one of"),
    ({"windows": 13}, ValueError, "at most 12 windows"),
    ({"windows": [0, 3, 60]}, ValueError, "window 0 has 3 steps"),
    ({"overlap": -1}, ValueError, "overlap must be at least 0"),
    ({"transmission": "robin"}, ValueError, "transmission must be one of"),
    ({"tol": 0.0}, ValueError, "tol must be positive"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
])
def test_bad_input_is_refused_before_any_kernel(elman, change, error, words, monkeypatch):
    _, (cell, params, x, y), noises = elman
    monkeypatch.setattr("pitsolve.leastsquares.smoother.sequential", None)
    given = {"x": x, "y": y, **noises, **change}
    with pytest.raises(error, match=words):
        smooth(cell, params, **given)


def test_a_model_that_overflows_at_the_start_is_refused():
    noises = {"C": np.eye(1), "Q": np.eye(1), "R": np.eye(1), "guess": np.full((20, 1), 1e200)}
    with pytest.raises(ValueError, match="overflows at the start"):
        smooth(QUADRATIC, {"a": np.ones(1), "b": np.ones(1)}, 20, np.zeros((20, 1)), **noises)
