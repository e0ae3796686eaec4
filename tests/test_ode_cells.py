"""Differential equations as cells: schemes against naive twins and exact solutions, derivatives, failure, coarse steps."""

import dataclasses
import math

import numpy as np
import pytest
import reference
from models import METHODS
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.cells import ODE
from pitsolve.compile import _specialised

SCHEMES = {"euler": 1, "backward_euler": 1, "trapezoid": 2, "rk4": 4}  # and their orders
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def swing(p, x, u, out):
    """A pendulum with friction, driven at its pivot."""
    out[0] = u[1]
    force = p.drive[0, 0] * x[0] + p.drive[0, 1] * x[1] * u[0]
    out[1] = force - p.stiffness[0] * math.sin(u[0]) - p.friction[0] * math.tanh(u[1])


def naive_swing(p, x, u):
    force = p["drive"][0, 0] * x[0] + p["drive"][0, 1] * x[1] * u[0]
    return np.array([u[1], force - p["stiffness"][0] * np.sin(u[0]) - p["friction"][0] * np.tanh(u[1])])


def naive_swing_jacobian(p, x, u):
    return np.array([[0.0, 1.0], [p["drive"][0, 1] * x[1] - p["stiffness"][0] * np.cos(u[0]),
                                  -p["friction"][0] * (1 - np.tanh(u[1])**2)]])


def growth(p, x, u, out):
    """Exponential decay and, apart from it, logistic growth."""
    out[0] = -p.rate[0] * u[0]
    out[1] = u[1] * (1.0 - u[1])


def swing_cell(scheme, dt=0.3):
    return ODE(swing, 2, dt, scheme, 2, {"stiffness": (1,), "friction": (1,), "drive": (1, 2)})


def swing_problem(dtype=np.float64):
    random = np.random.default_rng(3)
    params = {"stiffness": np.array([2.0], dtype), "friction": np.array([0.4], dtype), "drive": np.array([[0.5, -0.3]], dtype)}
    return params, random.normal(size=(2, 20, 2)).astype(dtype), random.normal(size=(2, 2)).astype(dtype)


def growth_cell(scheme, dt, coarse_scheme=None):
    return ODE(growth, 2, dt, scheme, parameters={"rate": (1,)}, coarse_scheme=coarse_scheme)


@every_scheme
def test_states_and_gradients_are_those_of_the_naive_scheme(scheme):
    cell, naive = swing_cell(scheme), reference.ode(scheme, naive_swing, naive_swing_jacobian, 0.3)
    params, x, h0 = swing_problem()
    expected = reference.loop_batch(naive, params, x, h0)
    for method in METHODS if scheme == "trapezoid" else ("sequential", "deer"):
        solution = ps.solve(cell, params, x, h0, method=method, on_failure="raise")
        assert_allclose(solution.states, expected, rtol=1e-12, atol=1e-12, err_msg=method)
    dstates = np.random.default_rng(8).normal(size=expected.shape)
    parts = [reference.gradient(naive, params, x[b], h0[b], dstates[b]) for b in range(2)]
    gradient = ps.gradient(cell, params, x, solution, dstates, h0)
    for name, value in gradient.params.items():
        assert_allclose(value, parts[0][name] + parts[1][name], rtol=1e-10, atol=1e-10, err_msg=name)
    assert_allclose(gradient.x, [part["x"] for part in parts], rtol=1e-10, atol=1e-10)
    assert_allclose(gradient.h0, [part["h0"] for part in parts], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scheme", ["trapezoid", "rk4"])
def test_states_in_float32(scheme):
    params, x, h0 = swing_problem(np.float32)
    solution = ps.solve(swing_cell(scheme), params, x, h0)
    assert solution.states.dtype == np.float32
    naive = reference.ode(scheme, naive_swing, naive_swing_jacobian, 0.3)
    assert_allclose(solution.states, reference.loop_batch(naive, params, x, h0), rtol=1e-5, atol=1e-5)


def test_stated_derivatives_of_an_implicit_scheme_are_those_of_complex_steps_through_newton():
    assert sorted(ps.cells.verify(swing_cell("trapezoid"), tol=1e-12)) == ["diagonal", "jacobian", "pullback"]


@every_scheme
def test_errors_shrink_with_the_order_of_the_scheme(scheme):
    params, u0 = {"rate": np.array([1.5])}, np.array([1.0, 0.2])
    exact = np.array([np.exp(-1.5), 1 / (1 + 4 * np.exp(-1.0))])  # at time one
    errors = [abs(ps.solve(growth_cell(scheme, 1 / steps), params, steps, u0).states[-1] - exact) for steps in (32, 64)]
    assert_allclose(np.log2(errors[0] / errors[1]), SCHEMES[scheme], atol=0.1)


def test_backward_euler_takes_stiff_steps_that_euler_cannot():
    params, u0 = {"rate": np.array([500.0])}, np.array([1.0, 0.2])
    states = ps.solve(growth_cell("backward_euler", 0.1), params, 40, u0).states
    assert_allclose(states[:, 0], 51.0 ** -np.arange(1.0, 41), rtol=1e-12)
    assert abs(ps.solve(growth_cell("euler", 0.1), params, 40, u0).states[-1, 0]) > 1e60


def test_a_step_without_solution_is_reported():
    # u = h + u (1 - u) has no real solution below h = 0.
    cell, params = growth_cell("backward_euler", 1.0), {"rate": np.array([1.0])}
    with pytest.warns(RuntimeWarning, match="The states are not finite"):
        solution = ps.solve(cell, params, 5, np.array([[1.0, -1.0], [1.0, 1.0]]))
    assert solution.status is ps.solution.Status.OVERFLOW
    assert np.isnan(solution.states[0]).all()
    assert_array_equal(solution.converged, [False, True])


def test_another_dt_compiles_nothing():
    params, u0 = {"rate": np.array([1.0])}, np.array([1.0, 0.2])
    ps.solve(growth_cell("trapezoid", 0.1), params, 5, u0)
    kernels = [(kernel, len(kernel.signatures)) for kernel in _specialised.values()]
    assert growth_cell("trapezoid", 0.1) == growth_cell("trapezoid", 0.1) != growth_cell("trapezoid", 0.2)
    ps.solve(growth_cell("trapezoid", 0.2), params, 5, u0)
    assert [(kernel, len(kernel.signatures)) for kernel in _specialised.values()] == kernels


@every_scheme
def test_a_coarse_step_is_a_longer_step(scheme):
    cell, params = growth_cell(scheme, 0.125), {"rate": np.array([1.0])}
    assert cell.coarsened(params, 1) == (cell, params)
    assert cell.coarsened(params, 4) == (growth_cell(scheme, 0.5), params)
    assert cell.coarsened(params, 2)[0].coarsened(params, 2) == cell.coarsened(params, 4)


def test_coarse_grids_can_have_a_scheme_of_their_own():
    cell = growth_cell("rk4", 0.125, coarse_scheme="backward_euler")
    coarse, _ = cell.coarsened({}, 4)
    assert (coarse.scheme, coarse.dt) == ("backward_euler", 0.5)
    assert coarse.coarsened({}, 2)[0] == dataclasses.replace(coarse, dt=1.0)


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"rhs": "f"}, TypeError, "rhs must be a plain Python function .* got str"),
    ({"dt": 0.0}, ValueError, "dt must be positive and finite, got 0.0"),
    ({"dt": math.inf}, ValueError, "dt must be positive and finite, got inf"),
    ({"dt": "1"}, ValueError, "dt must be positive and finite, got '1'"),
    ({"scheme": "heun"}, ValueError, "scheme must be one of 'euler', .* got 'heun'"),
    ({"scheme": None}, ValueError, "scheme must be one of 'euler', .* got None"),
    ({"coarse_scheme": "heun"}, ValueError, "coarse_scheme must be one of 'euler', .* got 'heun'"),
    ({"state_size": 0}, ValueError, "state_size must be an integer of at least 1, got 0"),
    ({"input_size": -1}, ValueError, "input_size must be an integer of at least 0, got -1"),
    ({"parameters": {"dt": (1,)}}, ValueError, "names .* other than 'dt', got 'dt'"),
    ({"parameters": {"a": (0,)}}, ValueError, r"parameters\['a'\] must be a shape of positive integers"),
])
def test_bad_descriptions_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        ODE(**{"rhs": growth, "state_size": 2, "dt": 0.1} | changes)
