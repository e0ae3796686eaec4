"""Cells: states against naive loops and PyTorch, initialisation, errors."""

from pathlib import Path

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.cells import GRU, LEM, LSTM, Elman

F32, F64 = np.float32, np.float64
STATES = [
    (GRU(3, 1), reference.gru, F32), (GRU(2, 33), reference.gru, F32), (GRU(3, 5), reference.gru, F64),
    (GRU(3, 6, heads=6), reference.gru, F64), (GRU(3, 6, heads=2), reference.gru, F64),
    (GRU(4, 40, heads=10), reference.gru, F32),
    (Elman(3, 1), reference.elman, F32), (Elman(3, 5), reference.elman, F64),
    (LSTM(3, 3), reference.lstm, F32), (LSTM(5, 17), reference.lstm, F64), (LEM(3, 3, dt=0.5), reference.lem(0.5), F32),
]
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


CELLS = [Elman(3, 4), GRU(3, 4), GRU(3, 4, heads=2), LSTM(3, 4), LEM(3, 4), ps.cells.custom(
    lambda p, x, h, new: None, 4, 1, parameters={"a": (4, 2), "b": (3,)})]


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
    (lambda: LEM(3, 4, dt=0.0), ValueError, "dt must be positive and finite, got 0.0"),
    (lambda: LEM(3, 4, dt=float("nan")), ValueError, "dt must be positive and finite, got nan"),
    (lambda: GRU(3, 4).init(1, np.float16), TypeError, "dtype must be float32 or float64, got float16"),
    (lambda: GRU(3, 4).init(1, int), TypeError, "dtype must be float32 or float64, got int64"),
])
def test_bad_sizes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
