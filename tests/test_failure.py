"""What happens when an iteration does not converge: repair, fallback, error, warning; and how results print themselves."""

import dataclasses

import numpy as np
import pytest
from models import METHODS, MODELS, QUADRATIC
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve import Status
from pitsolve.backends.cpu.gated_model import GatedModel
from pitsolve.backends.cpu.general_model import GeneralModel

GRU, F32, CUSTOM = MODELS["gru"], MODELS["gru-f32"], MODELS["custom"]
ITERATIVE = METHODS[1:]
every_iterative = pytest.mark.parametrize("method", ITERATIVE)


def long_memory(steps=200):
    """A GRU whose update gate keeps 98 % of the state: one iteration of anything is far from enough."""
    params, x, h0 = GRU.problem(steps)
    params["bias_ih"][5:10] = 4.0
    return params, x, h0


@pytest.mark.parametrize("method", METHODS)
def test_states_of_a_difficult_model_are_those_of_the_loop(method):
    # Weights times 100: iterates overflow and saturate; the slides' test of the repair of NaN and infinity.
    params, x, h0 = F32.problem(100)
    params = {name: np.float32(100) * value for name, value in params.items()}
    solution = ps.solve(F32.cell, params, x, h0, method=method)
    assert solution.converged and solution.status in (Status.CONVERGED, Status.FALLBACK, Status.SEQUENTIAL)
    assert np.isfinite(solution.states).all()
    # Every step follows from the one before it, whatever the loop amplifies.
    before = np.concatenate([h0[None], solution.states[:-1]])
    for t in range(100):
        assert_allclose(solution.states[t], F32.loop(params, x[t:t + 1], before[t])[0], rtol=1e-3, atol=1e-3)


@every_iterative
def test_a_guess_of_huge_values_is_repaired(method):
    params, x, h0 = CUSTOM.problem(60)
    guess = np.full((60, 2), 1e300)
    guess[::2] *= -1
    solution = ps.solve(CUSTOM.cell, params, x, h0, method=method, guess=guess)
    assert solution.converged
    assert_allclose(solution.states, CUSTOM.loop(params, x, h0), rtol=1e-10, atol=1e-10)


@every_iterative
def test_fallback_finishes_sequentially_with_the_right_states(method):
    params, x, h0 = long_memory()
    solution = ps.solve(GRU.cell, params, x, h0, method=method, max_iter=1)
    assert solution.status is Status.FALLBACK and solution.converged and solution.iterations == 1
    assert 0 <= solution.resumed_at < 200 and solution.residual <= solution.tol
    assert_allclose(solution.states, GRU.loop(params, x, h0), **GRU.close)
    assert f"sequential  from step {solution.resumed_at}" in repr(solution)


@every_iterative
def test_fallback_touches_only_what_did_not_converge(method):
    params, x, h0 = GRU.problem(200, batch=2)
    easy = ps.solve(GRU.cell, params, x[0], h0[0]).states
    guess = np.stack([easy, np.zeros_like(easy)])
    solution = ps.solve(GRU.cell, params, x, h0, method=method, guess=guess, max_iter=2)
    assert solution.status is Status.FALLBACK and solution.converged.all()
    assert solution.resumed_at[0] == 200 and 0 <= solution.resumed_at[1] < 200
    assert_array_equal(solution.states[0], ps.solve(GRU.cell, params, x[0], h0[0], method=method, guess=easy).states)
    assert_allclose(solution.states, GRU.loop(params, x, h0), **GRU.close)


@every_iterative
def test_raise_carries_what_was_reached(method):
    params, x, h0 = long_memory()
    with pytest.raises(ps.ConvergenceError, match="Not converged: the residual exceeds") as caught:
        ps.solve(GRU.cell, params, x, h0, method=method, max_iter=1, on_failure="raise")
    solution = caught.value.solution
    assert solution.status is Status.NOT_CONVERGED and not solution.converged
    assert solution.residual > solution.tol and solution.states.shape == (200, 5)
    assert isinstance(caught.value, RuntimeError)


@every_iterative
def test_warn_returns_what_was_reached(method):
    params, x, h0 = long_memory()
    with pytest.warns(RuntimeWarning, match="Not converged: the residual exceeds") as caught:
        solution = ps.solve(GRU.cell, params, x, h0, method=method, max_iter=1, on_failure="warn")
    assert not solution.converged and solution.status is Status.NOT_CONVERGED
    assert caught[0].filename == __file__
    # The residual that it reports is that of the states that it returns.
    before = np.concatenate([h0[None], solution.states[:-1]])
    defects = [abs(GRU.loop(params, x[t:t + 1], before[t])[0] - solution.states[t]) for t in range(200)]
    scaled = np.array(defects) / np.maximum(1, abs(solution.states))
    assert_allclose(solution.residual, scaled.max(), rtol=1e-9)
    assert solution.resumed_at == np.argmax((scaled > solution.tol).any(axis=1))


@every_iterative
def test_a_generous_tolerance_is_met_and_certified(method):
    params, x, h0 = GRU.problem(100)
    strict, loose = (ps.solve(GRU.cell, params, x, h0, method=method, tol=tol) for tol in (1e-12, 1e-4))
    assert loose.iterations < strict.iterations
    assert loose.tol == 1e-4 and loose.residual <= 1e-4 and strict.residual <= 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_overflows_says_so(method):
    params = {"a": np.zeros(1), "b": np.full(1, 4.0)}  # h <- 4 h^2
    with pytest.warns(RuntimeWarning, match="the model itself overflows"):
        solution = ps.solve(QUADRATIC, params, 12, np.ones(1), method=method)
    assert solution.status is Status.OVERFLOW and not solution.converged
    assert_allclose(solution.states[:8, 0], 4.0 ** (2.0 ** np.arange(1, 9) - 1), rtol=1e-12)
    assert not np.isfinite(solution.states[-1]).any()
    with pytest.raises(ps.ConvergenceError):
        ps.solve(QUADRATIC, params, 12, np.ones(1), method=method, on_failure="raise")


@pytest.mark.parametrize("method", METHODS)
def test_expanding_states_beyond_the_repair_are_right(method):
    # Past 1e8 an iterate is clipped, so that no iteration can find these states; the fallback does.
    solution = ps.solve(QUADRATIC, {"a": np.full(1, 2.0), "b": np.zeros(1)}, 60, np.ones(1), method=method)
    assert_allclose(solution.states[:, 0], 2.0 ** np.arange(1, 61), rtol=1e-12)
    assert solution.converged and solution.status in (Status.FALLBACK, Status.SEQUENTIAL)


@pytest.mark.parametrize("method", ["quasi-deer", "quasi-elk"])
@pytest.mark.parametrize("model", [GRU, CUSTOM], ids=["gru", "custom"])
def test_quasi_methods_never_build_a_dense_jacobian(model, method, monkeypatch):
    orders = set()
    for kind in (GatedModel, GeneralModel):
        def spy(self, order, *arguments, linearise=kind.linearise):
            orders.add(order)
            return linearise(self, order, *arguments)

        monkeypatch.setattr(kind, "linearise", spy)
    params, x, h0 = model.problem(50)
    ps.solve(model.cell, params, x, h0, method=method)
    assert orders == {GatedModel.VALUE, GatedModel.DIAGONAL}
    ps.solve(model.cell, params, x, h0, method="deer")
    assert GatedModel.BLOCKS in orders


def test_results_are_frozen_and_print_themselves():
    params, x, h0 = GRU.problem(30, batch=2)
    solution = ps.solve(GRU.cell, params, x, h0, method="deer")
    gradient = ps.gradient(GRU.cell, params, x, solution, np.ones_like(solution.states), h0)
    text = repr(solution)
    assert "Solution: 2x30x5 float64 by deer on cpu" in text and "converged   2 of 2" in text
    assert f"tol {solution.tol:.1e}" in text and Status.CONVERGED.value in text
    assert len(text) < 500 and text.count("\n") == 3
    assert repr(gradient).startswith("Gradient by sequential: 2-norms weight_ih ") and len(repr(gradient)) < 200
    for result, name in ((solution, "states"), (gradient, "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, name, None)
    for status in Status:
        assert status.value.endswith(".") and len(status.value) > 40
