"""The two-body experiment: the network and its derivatives, the data, the trainings against each other, the command."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from bench.experiments import hamiltonian, neural_ode, two_body, two_body_data
from bench.experiments.two_body_training import METHODS, TOLERANCE, Batch, Network, Trainee

NETWORK = Network(two_body.QUICK.width, two_body.QUICK.layers)  # of the quick run, so that kernels are compiled once
TINY = 1e-30
every_method = pytest.mark.parametrize("method", METHODS)


def random_params(network=NETWORK, seed=4):
    random = np.random.default_rng(seed)
    params = hamiltonian.init(*network, seed)
    return {**params, "bias": 0.3 * random.normal(size=params["bias"].shape)}


def naive_energy(params, u):
    """H(u) by the definition; complex u takes complex steps."""
    a = u @ params["weight_in"]
    for layer, bias in enumerate(params["bias"]):
        a = np.log(1.0 + np.exp((a @ params["weight"][layer - 1] if layer else a) + bias))
    return a @ params["weight_out"]


def naive_field(params, u):
    """(dH/dp, -dH/dq) by complex steps."""
    gradient = np.array([naive_energy(params, u + 1j * TINY * row).imag / TINY for row in np.eye(8)])
    return np.concatenate([gradient[4:], -gradient[:4]])


def orbits(rows, points, horizon):
    """A batch of orbits, and their initial states."""
    data = two_body_data.generate(rows, points, horizon, seed=11)
    return Batch(data.states[:, 0], data.states[:, 1:], data.dt)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_vectorised_field_is_the_turned_gradient_of_the_energy(layers):
    params = random_params(Network(5, layers))
    u = np.random.default_rng(1).normal(size=(3, 8))
    assert_allclose(neural_ode.field(params, u)[0], [naive_field(params, row) for row in u], atol=1e-13)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_vectorised_pullback_is_that_of_the_field(layers):
    params, random = random_params(Network(5, layers)), np.random.default_rng(2)
    u, v = random.normal(size=(2, 3, 8))
    du, dtheta = neural_ode.pullback(params, u, neural_ode.field(params, u)[1], v)

    def slope(params, u):
        return np.sum(v * neural_ode.field(params, u)[0].imag) / TINY

    for index in np.ndindex(u.shape):
        moved = u.astype(complex)
        moved[index] += 1j * TINY
        assert_allclose(du[index], slope(params, moved), atol=1e-12)
    for name, array in params.items():
        for index in np.ndindex(array.shape):
            moved = array.astype(complex)
            moved[index] += 1j * TINY
            assert_allclose(dtheta[name][index], slope({**params, name: moved}, u), atol=1e-12)


def test_the_step_of_the_cell_is_the_midpoint_rule():
    params, dt = random_params(), 0.1
    u = np.random.default_rng(3).normal(size=8)
    found = ps.solve(hamiltonian.cell(*NETWORK), params, np.full((1, 1), dt), u, method="sequential").states[0]
    assert_allclose(found, u + dt * naive_field(params, u + 0.5 * dt * naive_field(params, u)), atol=1e-14)


def test_the_jacobian_and_the_pullback_of_the_cell_are_those_of_its_step():
    assert sorted(ps.cells.verify(hamiltonian.cell(*NETWORK), random_params())) == ["jacobian", "pullback"]


def test_energy_and_momentum_of_the_data_are_conserved():
    states = two_body_data.generate(4, 50, 5.0, seed=7).states
    energy = two_body_data.energy(states)
    assert_allclose(energy, np.broadcast_to(energy[:, :1], energy.shape), rtol=1e-6)
    assert_allclose(states[..., 4:6] + states[..., 6:], 0.0, atol=1e-12)
    assert np.ptp(states[..., :4], axis=1).min() > 0.1


def test_slower_than_on_a_circle_means_bound_orbits_that_begin_farthest_apart():
    states = two_body_data.generate(4, 50, 5.0, seed=7).states
    apart = np.hypot(*np.moveaxis(states[..., :2] - states[..., 2:4], -1, 0))
    assert np.all(two_body_data.energy(states) < 0.0)
    assert np.all(apart[:, 1:] < apart[:, :1])


def test_a_file_of_orbits_is_written_read_and_refused_when_it_holds_others(tmp_path):
    path = tmp_path / "new" / "orbits.npz"
    first = two_body_data.load(path, 2, 10, 1.0, seed=3)
    assert_array_equal(two_body_data.load(path, 2, 10, 1.0, seed=3).states, first.states)
    with pytest.raises(ValueError, match=r"orbits\.npz holds orbits of .*'seed': 3.* expected .*'seed': 4"):
        two_body_data.load(path, 2, 10, 1.0, seed=4)


@every_method
def test_the_gradient_of_the_loss_is_that_of_central_differences(method):
    params, batch, random = random_params(), orbits(2, 15, 1.5), np.random.default_rng(5)
    gradient = NETWORK.evaluate(method, params, batch).gradient
    for _ in range(3):
        direction = {name: random.normal(size=array.shape) for name, array in params.items()}
        ahead, behind = (NETWORK.evaluate(method, {name: params[name] + step * direction[name] for name in params}, batch).loss
                         for step in (1e-3, -1e-3))
        along = sum(np.sum(gradient[name] * direction[name]) for name in params)
        assert_allclose(along, (ahead - behind) / 2e-3, rtol=1e-4)


def test_deer_finds_loss_and_gradient_of_the_loop():
    params, batch = random_params(), orbits(3, 40, 4.0)
    deer, loop = (NETWORK.evaluate(method, params, batch) for method in ("deer", "sequential"))
    assert_allclose(deer.loss, loop.loss, rtol=1e-8)
    for name in params:
        assert_allclose(deer.gradient[name], loop.gradient[name], rtol=1e-7, atol=1e-10)
    assert deer.facts["fallbacks"] == 0 and deer.facts["iterations"] > 1


def test_unrolled_steps_and_the_adjoint_equation_have_the_same_gradient():
    params, batch = random_params(), orbits(3, 40, 4.0)
    adjoint, unrolled = (NETWORK.evaluate(method, params, batch) for method in ("rk45 adjoint", "rk45 unrolled"))
    assert adjoint.loss == unrolled.loss
    for name in params:
        assert_allclose(adjoint.gradient[name], unrolled.gradient[name], rtol=1e-5, atol=1e-7)
    assert adjoint.facts["pullbacks"] >= 7 * 40 > unrolled.facts["pullbacks"]


def test_states_of_the_midpoint_rule_and_of_rk45_differ_by_the_square_of_the_time_step():
    params, differences = random_params(), []
    for points in (20, 40):
        batch = orbits(3, points, 4.0)
        loop, other = (NETWORK.evaluate(method, params, batch) for method in ("sequential", "rk45 unrolled"))
        differences.append(np.abs(loop.states[:, -1] - other.states[:, -1]).max())
        assert abs(loop.loss - other.loss) < batch.dt**2 * other.loss
    assert 3.5 < differences[0] / differences[1] < 4.5


def test_a_warm_start_is_the_last_solution_of_the_row_and_saves_iterations():
    batch, rows = orbits(3, 40, 4.0), np.array([4, 0, 2])
    warm = np.zeros((5, 50, 8))
    warm[rows] = batch.u0[:, None]
    trainee = Trainee("deer", NETWORK, random_params(), ps.training.Adam(1e-6), warm)
    trainee.learn(batch, rows)
    trainee.learn(batch, rows)
    assert trainee.steps[1]["iterations"] < trainee.steps[0]["iterations"]
    assert_array_equal(warm[[1, 3]], 0.0)
    assert_array_equal(warm[rows][:, 40:], np.repeat(warm[rows][:, 39:40], 10, axis=1))


def test_the_command_writes_curves_that_agree_and_the_same_ones_again(tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--quick", "--epochs", "2", "--data", str(tmp_path / "orbits.npz"), "--output", str(tmp_path)]
    two_body.main(arguments)
    found = json.loads((tmp_path / "experiment-two_body.json").read_text())
    steps = two_body.QUICK.training // two_body.QUICK.batch * 2
    losses = {method: [step["loss"] for step in found["steps"][method]] for method in METHODS}
    assert all(len(losses[method]) == steps for method in METHODS)
    assert_allclose(losses["deer"], losses["sequential"], rtol=1e3 * TOLERANCE)
    for method in ("rk45 adjoint", "rk45 unrolled"):
        assert_allclose(losses[method], losses["sequential"], rtol=1e-5)
    assert [line["points"] for line in found["epochs"]] == [20, 40]
    assert {line["method"] for line in found["scaling"]} == {"deer, cold", *METHODS}
    assert (tmp_path / "experiment-two_body.png").stat().st_size > 0
    two_body.main([*arguments, "--figure", str(tmp_path / "other.png")])
    again = json.loads((tmp_path / "experiment-two_body.json").read_text())
    assert [step["loss"] for step in again["steps"]["deer"]] == losses["deer"]
    assert (tmp_path / "other.png").stat().st_size > 0


def test_no_epochs_are_refused(capsys):
    with pytest.raises(SystemExit):
        two_body.main(["--epochs", "0"])
    assert "--epochs: expected at least 1, got 0" in capsys.readouterr().err
