"""The twin of multigrid in time against PyMGRIT's histories and against the theory, so that other tests may trust it."""

import numpy as np
import pytest
import reference
import reference_multigrid as twin
from pymgrit_histories import HISTORIES, gru_problem

CELLS = {"implicit": twin.implicit_gru, "power": twin.power_gru}
COARSENING = (4, 4)


def problem_of(setting):
    """The steps of every level and u_0."""
    if setting.problem == "dahlquist":
        return twin.backward_euler(-1.0, setting.end / setting.steps, setting.coarsening), np.array(1.0)
    params, x, h0 = gru_problem(setting.steps)
    return twin.cell_steps(CELLS[setting.problem], params, x, setting.coarsening), h0


def gru_loss(steps=48):
    """An implicit GRU: params, x, steps of all levels, exact states and dL/dh_0 ... dL/dh_T of a loss of all states."""
    params, x, h0 = gru_problem(steps)
    phi = twin.cell_steps(twin.implicit_gru, params, x, COARSENING)
    states = twin.serial(phi[0], h0, steps)
    return params, x, phi, states, np.random.default_rng(1).standard_normal(states.shape)


@pytest.mark.parametrize("setting", HISTORIES, ids=lambda s: "-".join(map(str, s[:-2])))
def test_histories_are_those_of_pymgrit(setting):
    steps, u0 = problem_of(setting)
    _, history = twin.mgrit(steps, setting.coarsening, u0, setting.steps, cycle=setting.cycle, weight=setting.weight,
                            relaxations=setting.relaxations, nested=setting.nested, tol=setting.tol, cycles=setting.cycles)
    np.testing.assert_allclose(history, HISTORIES[setting], rtol=0, atol=1e-14)


def test_two_levels_with_f_relaxation_are_parareal():
    steps = [lambda u, i, dt=dt: np.linalg.solve(np.array([[1, -dt], [dt, 1]]), u) for dt in (0.1, 0.4)]
    u0 = np.array([1.0, 0.5])
    iterates = twin.parareal(lambda u, n: twin.serial(steps[0], u, 4)[-1], steps[1], u0, 8, 5)
    for k in range(1, 6):
        states, _ = twin.mgrit(steps, (4,), u0, 32, relaxations=0, cycles=k)
        np.testing.assert_allclose(states[::4], iterates[k], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("relaxations", "exact_per_cycle"), [(0, 1), (1, 2)])
def test_each_cycle_makes_one_or_two_more_c_points_exact(relaxations, exact_per_cycle):
    _, _, phi, exact, _ = gru_loss()
    for k in (1, 3):
        states, _ = twin.mgrit(phi[:2], (4,), exact[0], 48, relaxations=relaxations, nested=False, cycles=k)
        error = np.abs(states - exact).max(axis=1)
        done = exact_per_cycle * k * 4
        assert error[:done + 1].max() < 1e-15 < error[done + 4]


def test_the_serial_solution_is_a_fixed_point_up_to_rounding():
    _, _, phi, exact, _ = gru_loss()
    states, history = twin.mgrit(phi, COARSENING, exact[0], 48, nested=False, guess=exact, cycles=1)
    assert history[0] < 1e-15  # not zero: (v_k - phi(v_{k-1})) + phi(v_{k-1}) rounds
    np.testing.assert_allclose(states, exact, rtol=0, atol=1e-15)


def test_skipping_the_first_down_cycle_is_a_walk_up_from_the_coarsest_level():
    _, _, phi, exact, _ = gru_loss()
    states, _ = twin.mgrit(phi, COARSENING, exact[0], 48, nested=False, skip=True, cycles=1)
    coarse = twin.serial(lambda u, k: phi[2](u, 16 * k), exact[0], 3)
    for k in range(3):
        h = coarse[k]
        for j in range(4):
            assert np.abs(states[16 * k + 4 * j] - h).max() < 1e-15
            h = phi[1](h, 16 * k + 4 * j)


def test_errors_of_parareal_follow_the_formula_and_its_bounds():
    f, R, windows = np.exp(-0.5), 1 / 1.5, 20
    exact = f**np.arange(windows + 1)
    iterates = twin.parareal(lambda u, n: f * u, lambda u, n: R * u, np.array(1.0), windows, 6)
    start = exact - iterates[0]
    for k in range(1, 7):
        error = exact - iterates[k]
        np.testing.assert_allclose(error, twin.parareal_error(f, R, start, k), rtol=0, atol=1e-15)
        for factor in (twin.superlinear_bound(f, R, windows, k), twin.linear_bound(f, R, k)):
            assert np.abs(error).max() <= factor * np.abs(start).max()


@pytest.mark.parametrize("relaxation", ["F", "FCF"])
def test_errors_of_two_levels_follow_the_error_matrix_within_its_bound(relaxation):
    lam, mu, m, intervals = 0.99, 1 / 1.04, 4, 16
    matrix = twin.error_matrix(lam, mu, m, intervals, relaxation)
    steps = [lambda u, i: lam * u, lambda u, i: mu * u]
    error = lam**(m * np.arange(1, intervals + 1))
    for k in range(1, 5):
        states, _ = twin.mgrit(steps, (m,), np.array(1.0), m * intervals, nested=False, cycles=k,
                               relaxations=0 if relaxation == "F" else 1)
        error = matrix @ error
        np.testing.assert_allclose(lam**(m * np.arange(1, intervals + 1)) - states[m::m], error, rtol=0, atol=1e-14)
    assert np.linalg.norm(matrix, 2) <= twin.error_norm_bound(lam, mu, m, intervals, relaxation)


def test_adjoint_multigrid_converges_to_back_propagation():
    params, x, phi, states, dstates = gru_loss(24)
    adjoint, _ = twin.adjoint_mgrit(phi, COARSENING, states, dstates, nested=False, cycles=3)
    exact = reference.gradient(twin.implicit_gru, params, x, states[0], dstates[1:])
    found = twin.parameter_gradient(twin.implicit_gru, params, x, states, adjoint)
    for name, value in found.items():
        np.testing.assert_allclose(value, exact[name], rtol=0, atol=1e-12)
    np.testing.assert_allclose(adjoint[0] - dstates[0], exact["h0"], rtol=0, atol=1e-12)
