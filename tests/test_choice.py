"""method="auto": windows where the model forgets, the loop elsewhere, and always the right states."""

import numpy as np
import pytest
import reference
from models import MODELS

import pitsolve as ps


def gru(steps, bias=0.0, scale=1.0, batch=None):
    """A GRU whose update gate is moved by ``bias`` and whose recurrent weights are scaled."""
    cell = ps.cells.GRU(3, 2)
    params = cell.init(3, np.float32)
    params["bias_hh"][2:4] += bias
    params["weight_hh"] *= np.float32(scale)
    x = np.random.default_rng(4).normal(size=(steps, 3) if batch is None else (batch, steps, 3)).astype(np.float32)
    return cell, params, x


def test_a_model_that_forgets_is_solved_in_windows():
    cell, params, x = gru(16384)
    sol = ps.solve(cell, params, x)
    assert sol.method == "shooting" and sol.iterations == 1
    np.testing.assert_allclose(sol.states, ps.solve(cell, params, x, method="sequential").states, rtol=0, atol=1e-5)
    assert ps.gradient(cell, params, x, sol, sol.states).method == "shooting"


def test_the_gradient_of_a_stated_pullback_follows_the_windows_of_the_states():
    model = MODELS["lem"]
    params, x, h0 = model.problem(600)
    for window, iterations, method in ((300, 1, "shooting"), (100, 2, "sequential")):
        sol = ps.solve(model.cell, params, x, h0, method="shooting", window=window)
        assert min(2, sol.iterations) == iterations
        assert ps.gradient(model.cell, params, x, sol, sol.states, h0).method == method


@pytest.mark.parametrize("steps, bias", [(16384, 8.0), (1000, 0.0)])
def test_long_memory_and_short_sequences_are_left_to_the_loop(steps, bias):
    cell, params, x = gru(steps, bias)
    sol = ps.solve(cell, params, x)
    assert sol.method == "sequential"
    assert ps.gradient(cell, params, x, sol, sol.states).method == "sequential"


def test_a_chaotic_model_is_left_to_the_loop():
    cell = ps.cells.Elman(3, 12)
    params = cell.init(3)
    params["weight_hh"] *= 20.0
    x = np.random.default_rng(4).normal(size=(4096, 3))
    assert ps.solve(cell, params, x).method == "sequential"


def test_a_wrong_forecast_is_finished_by_the_loop():
    """The first inputs make the model forget, the later ones do not."""
    cell, params, x = gru(16384)
    params["weight_ih"][2:4] = 0.0
    params["weight_ih"][2:4, 0] = 20.0  # the update gate follows the first input
    x[:, 0] = -1.0
    x[100:, 0] = 1.0
    sol = ps.solve(cell, params, x)
    assert sol.method == "shooting" and sol.status is ps.Status.FALLBACK and sol.converged
    expected = reference.loop(reference.gru, params, x[:3000], np.zeros(2))
    np.testing.assert_allclose(sol.states[:3000], expected, rtol=0, atol=2e-4)


def test_cells_of_scalar_functions_are_left_to_the_loop():
    model = MODELS["custom"]
    params, x, h0 = model.problem(3000)
    assert ps.solve(model.cell, params, x, h0).method == "sequential"


def test_auto_takes_a_guess_and_ragged_batches():
    cell, params, x = gru(3000, batch=3)
    exact = ps.solve(cell, params, x, lengths=[3000, 10, 0], method="sequential")
    sol = ps.solve(cell, params, x, lengths=[3000, 10, 0], guess=exact.states)
    np.testing.assert_allclose(sol.states, exact.states, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"method": "auto"}, {"method": "shooting"}, {"method": "shooting", "correction": "full"}])
def test_a_model_that_overflows_says_so_and_nothing_else(options):
    cell = ps.cells.Linear(1, 2)
    params = {**cell.init(3), "weight_hh": np.array([[3.0, 1.0], [0.0, 2.5]])}
    with pytest.warns(RuntimeWarning, match="not finite") as warned:
        sol = ps.solve(cell, params, np.ones((3000, 1)), **options)
    assert len(warned) == 1 and not sol.converged
