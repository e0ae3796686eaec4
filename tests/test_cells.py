"""Cells: states against naive loops and PyTorch, initialisation, errors."""

from pathlib import Path

import numpy as np
import pytest
import reference
from models import METHODS
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.cells import GRU, LEM, LSTM, ODE, Elman, ImplicitGRU, Linear

F32, F64 = np.float32, np.float64
STATES = [
    (GRU(3, 1), reference.gru, F32), (GRU(2, 33), reference.gru, F32), (GRU(3, 5), reference.gru, F64),
    (GRU(3, 6, heads=6), reference.gru, F64), (GRU(3, 6, heads=2), reference.gru, F64),
    (GRU(4, 40, heads=10), reference.gru, F32),
    (Elman(3, 1), reference.elman, F32), (Elman(3, 5), reference.elman, F64),
    (LSTM(3, 3), reference.lstm, F32), (LSTM(5, 17), reference.lstm, F64), (LEM(3, 3, dt=0.5), reference.lem(0.5), F32),
    (ImplicitGRU(3, 5), reference.implicit_gru(1), F32), (Linear(3, 5), reference.linear, F32),
]
COARSE = {
    "gru": (GRU(3, 5, ratio=4), reference.coarse_gru(4)), "implicit": (ImplicitGRU(3, 5), reference.implicit_gru(1)),
    "implicit-16": (ImplicitGRU(3, 5, ratio=16), reference.implicit_gru(16)), "linear": (Linear(3, 5), reference.linear),
}
IDS = [f"{cell}-{dtype.__name__}".replace("_size", "").replace(" ", "") for cell, _, dtype in STATES]
TORCH = np.load(Path(__file__).parent / "data" / "torch_reference.npz")
LAYERS = {"rnn": Elman(3, 5), "gru": GRU(3, 5), "lstm": LSTM(3, 5)}


def problem(cell, dtype, steps=40, seed=11):
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, steps, cell.input_size)).astype(dtype)
    return cell.init(seed, dtype), x, random.normal(size=(2, cell.state_size)).astype(dtype)


@pytest.mark.parametrize(("cell", "naive", "dtype"), STATES, ids=IDS)
def test_states_equal_the_naive_loop(cell, naive, dtype):
    tolerance = 5e-6 if dtype == F32 else 1e-13
    params, x, h0 = problem(cell, dtype)
    batch = ps.solve(cell, params, x, h0).states
    assert batch.dtype == dtype
    assert_allclose(batch, reference.loop_batch(naive, params, x, h0), rtol=tolerance, atol=tolerance)
    one = ps.solve(cell, params, x[1]).states
    assert_allclose(one, reference.loop(naive, params, x[1], 0 * h0[1]), rtol=tolerance, atol=tolerance)


def test_large_pre_activations_saturate():
    cell = GRU(3, 5)
    for dtype in (F32, F64):
        params, x, h0 = problem(cell, dtype)
        params = {name: dtype(1e3) * value for name, value in params.items()}
        # One step at a time: the loop itself amplifies rounding.
        before = ps.solve(cell, params, x[0], h0[0]).states[:-1]
        after = ps.solve(cell, params, np.ascontiguousarray(x[0, 1:, None]), before).states[:, 0]
        tolerance = 2e-3 if dtype == F32 else 1e-11  # rounding of pre-activations of size 1e3
        for t in range(len(before)):
            assert_allclose(after[t], reference.loop(reference.gru, params, x[0, t + 1:t + 2], before[t])[0],
                            rtol=tolerance, atol=tolerance)


def test_a_gru_without_inputs_takes_the_number_of_steps():
    cell = GRU(0, 5)
    params = cell.init(3)
    h0 = np.linspace(-1, 1, 5)
    solution = ps.solve(cell, params, 20, h0)
    assert_allclose(solution.states, reference.loop(reference.gru, params, np.zeros((20, 0)), h0), rtol=1e-13, atol=1e-13)
    batch = ps.solve(cell, params, 20, np.stack([h0, -h0]))
    assert_array_equal(batch.states[0], solution.states)


@pytest.mark.parametrize("layer", LAYERS)
def test_states_and_gradients_are_those_of_torch(layer):
    cell = LAYERS[layer]
    stored = {key.removeprefix(f"{layer}/"): value for key, value in TORCH.items() if key.startswith(f"{layer}/")}
    params = {name: stored[name] for name in cell.shapes}
    solution = ps.solve(cell, params, stored["x"], stored["h0"])
    assert_allclose(solution.states, stored["states"], rtol=1e-13, atol=1e-13)
    gradient = ps.gradient(cell, params, stored["x"], solution, stored["dstates"], stored["h0"])
    for name, value in {**gradient.params, "x": gradient.x, "h0": gradient.h0}.items():
        assert_allclose(value, stored[f"grad/{name}"], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", COARSE)
def test_methods_and_gradients_of_cells_that_coarsen(name):
    cell, naive = COARSE[name]
    params, x, h0 = problem(cell, F64, steps=12)
    expected = reference.loop_batch(naive, params, x, h0)
    for method in ("sequential", "deer") if name != "implicit" else METHODS:
        solution = ps.solve(cell, params, x, h0, method=method, on_failure="raise")
        assert_allclose(solution.states, expected, rtol=1e-12, atol=1e-12, err_msg=method)
    dstates = np.random.default_rng(8).normal(size=expected.shape)
    parts = [reference.gradient(naive, params, x[b], h0[b], dstates[b]) for b in range(2)]
    gradient = ps.gradient(cell, params, x, solution, dstates, h0)
    for key, value in gradient.params.items():
        assert_allclose(value, parts[0][key] + parts[1][key], rtol=1e-10, atol=1e-10, err_msg=key)
    assert_allclose(gradient.x, [part["x"] for part in parts], rtol=1e-10, atol=1e-10)
    assert_allclose(gradient.h0, [part["h0"] for part in parts], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", [GRU(3, 5), ImplicitGRU(3, 5)], ids=lambda cell: type(cell).__name__)
def test_coarsening_gated_cells_multiplies_their_ratio(cell):
    params = cell.init(3)
    assert cell.coarsened(params, 1) == (cell, params)
    coarse, same = cell.coarsened(params, 4)
    assert coarse == type(cell)(3, 5, ratio=4) and same is params
    assert coarse.coarsened(params, 3)[0] == cell.coarsened(params, 12)[0]


@pytest.mark.parametrize("cell", [GRU(3, 5, ratio=4**8), ImplicitGRU(3, 5, ratio=4**8)], ids=lambda cell: type(cell).__name__)
def test_steps_of_any_ratio_stay_within_the_old_state_and_one(cell):
    params, x, _ = problem(cell, F64)
    params = {name: 20.0 * value for name, value in params.items()}
    states = ps.solve(cell, params, x, np.full((2, 5), 3.0)).states
    assert abs(states).max() <= 3.0 and abs(states[:, -1]).max() > 0.1


@pytest.mark.parametrize("dtype", [F32, F64])
def test_coarse_linear_step_is_the_literal_number_of_steps(dtype):
    cell = Linear(3, 5)
    params, x, h0 = problem(cell, dtype, steps=1)
    assert all(value.dtype == dtype for value in cell.coarsened(params, 3)[1].values())
    for ratio in (1, 2, 5, 16):
        same, coarse = cell.coarsened(params, ratio)
        assert same == cell and {name: value.shape for name, value in coarse.items()} == cell.shapes
        expected = reference.loop(reference.linear, params, np.repeat(x[0], ratio, axis=0), h0[0])[-1]
        tolerance = 1e-5 if dtype == F32 else 1e-13
        assert_allclose(ps.solve(cell, coarse, x[0], h0[0]).states[0], expected, rtol=tolerance, atol=tolerance)
    twice, once = cell.coarsened(cell.coarsened(params, 3)[1], 4)[1], cell.coarsened(params, 12)[1]
    for name in params:
        assert_allclose(twice[name], once[name], rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("cell", [Elman(3, 5), LSTM(3, 5), LEM(3, 5)], ids=lambda cell: type(cell).__name__)
def test_cells_without_a_coarse_step_say_so(cell):
    with pytest.raises(TypeError, match=f"{type(cell).__name__}.* does not say how its steps coarsen"):
        cell.coarsened(cell.init(3), 2)


CELLS = [Elman(3, 4), GRU(3, 4), GRU(3, 4, heads=2), ImplicitGRU(3, 4), Linear(3, 4), LSTM(3, 4), LEM(3, 4), ps.cells.custom(
    lambda p, x, h, new: None, 4, 1, parameters={"a": (4, 2), "b": (3,)}), ODE(
    lambda p, x, u, out: None, 4, 0.1, parameters={"a": (4, 2), "b": (3,)})]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
def test_init_is_reproducible_and_bounded_by_the_hidden_size(cell):
    params, again, other = cell.init(5), cell.init(5), cell.init(6)
    single = cell.init(5, F32)
    assert {name: value.shape for name, value in params.items()} == cell.shapes
    for name, value in params.items():
        assert value.dtype == F64 and single[name].dtype == F32
        assert_array_equal(value, again[name])
        assert_array_equal(value.astype(F32), single[name])
        assert (value != other[name]).any()
    largest = max(abs(value).max() for value in params.values())
    assert 0.4 < largest <= 0.5  # 1 / sqrt(4)


def test_a_cell_is_a_value():
    assert GRU(3, 4) == GRU(3, 4) and hash(GRU(3, 4)) == hash(GRU(3, 4))
    assert GRU(3, 4) != GRU(3, 4, heads=2)
    with pytest.raises(AttributeError):
        GRU(3, 4).hidden_size = 5


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: GRU(3, 0), ValueError, "hidden_size must be an integer of at least 1, got 0"),
    (lambda: GRU(-1, 4), ValueError, "input_size must be an integer of at least 0, got -1"),
    (lambda: Elman(3, 4.0), ValueError, "hidden_size must be an integer of at least 1, got 4.0"),
    (lambda: LSTM("3", 4), ValueError, "input_size must be an integer of at least 0, got '3'"),
    (lambda: Elman(True, 4), ValueError, "input_size must be an integer .* got True"),
    (lambda: GRU(3, 4, heads=0), ValueError, "heads must be an integer of at least 1, got 0"),
    (lambda: GRU(3, 4, heads=3), ValueError, "heads must divide hidden_size = 4, got 3"),
    (lambda: ImplicitGRU(3, 4, ratio=0), ValueError, "ratio must be an integer of at least 1, got 0"),
    (lambda: Linear(3, 0), ValueError, "hidden_size must be an integer of at least 1, got 0"),
    (lambda: LEM(3, 4, dt=0.0), ValueError, "dt must be positive and finite, got 0.0"),
    (lambda: LEM(3, 4, dt=float("nan")), ValueError, "dt must be positive and finite, got nan"),
    (lambda: GRU(3, 4).init(1, np.float16), TypeError, "dtype must be float32 or float64, got float16"),
    (lambda: GRU(3, 4).init(1, int), TypeError, "dtype must be float32 or float64, got int64"),
])
def test_bad_sizes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
