"""The loop of gated cells on the device, over whole sequences and over windows of time."""

import numpy as np
import pytest
import reference

import pitsolve as ps
from pitsolve.backends.cuda import gated_model, gated_windows
from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.launch import device

CELLS = {
    "elman": (ps.cells.Elman(3, 5), reference.elman),
    "linear": (ps.cells.Linear(2, 4), reference.linear),
    "gru": (ps.cells.GRU(3, 7), reference.gru),
    "gru-1": (ps.cells.GRU(2, 1), reference.gru),
    "heads": (ps.cells.GRU(2, 6, heads=3), reference.gru),
    "many heads": (ps.cells.GRU(2, 3, heads=3), reference.gru),
    "coarse gru": (ps.cells.GRU(2, 3, ratio=5), reference.coarse_gru(5)),
    "implicit gru": (ps.cells.ImplicitGRU(2, 3, ratio=2), reference.implicit_gru(2)),
    "lstm": (ps.cells.LSTM(3, 5), reference.lstm),
    "no inputs": (ps.cells.GRU(0, 3), reference.gru),
    "many inputs": (ps.cells.Elman(100, 2), reference.elman),
    "a warp": (ps.cells.GRU(1, 17), reference.gru),
    "several warps": (ps.cells.Elman(1, 33), reference.elman),
}


@pytest.fixture(params=["registers", "memory"])
def weights_in(request, monkeypatch):
    """Where the weights stay: each kernel must do every cell. Few blocks, so that one takes many windows."""
    monkeypatch.setattr(gated_windows, "_RESIDENT_THREADS", 1)
    if request.param == "memory":
        monkeypatch.setattr(gated_windows, "mapping", lambda *sizes: None)


class Case:
    """A cell with random parameters, inputs and starts, here and on the device."""

    def __init__(self, name, batch, steps, dtype=np.float64, seed=2):
        self.cell, self.step = CELLS[name]
        random = np.random.default_rng(seed)
        self.params = self.cell.init(seed, dtype)
        self.x = random.normal(size=(batch, steps, self.cell.input_size)).astype(dtype)
        self.h0 = random.normal(size=(batch, self.cell.state_size)).astype(dtype)
        self.source = random.normal(size=(batch, steps, self.cell.state_size)).astype(dtype)
        self.model = GatedModel(self.cell, self.params)
        self.on_device = device().upload(self.x)
        self.tolerance = {"rtol": 0, "atol": 1e-12 if dtype == np.float64 else 2e-6}

    def states(self):
        """Memory that is recognised where nothing was written."""
        return device().upload(np.full((*self.x.shape[:2], self.h0.shape[1]), 99, self.x.dtype))

    def loop(self, row, first, last, state, source=None):
        """The states of the steps [first, last) of one sequence."""
        states = np.empty((last - first, state.size))
        for t in range(first, last):
            state = self.step(self.params, self.x[row, t], state.astype(np.float64))
            if source is not None:
                state = state + source[row, t]
            states[t - first] = state
        return states


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CELLS)
def test_propagate_is_the_loop(name, dtype, weights_in):
    case = Case(name, 2, 11, dtype)
    states, carry = case.states(), case.model.carry(device().upload(case.h0))
    start, stop = np.array([0, 0]), np.array([11, 9])
    case.model.propagate(case.on_device, carry, states, 0, 11, start, stop)
    for b in range(2):
        expected = case.loop(b, 0, stop[b], case.h0[b])
        np.testing.assert_allclose(device().download(states)[b, :stop[b]], expected, **case.tolerance)
        np.testing.assert_allclose(device().download(carry)[b], expected[-1], **case.tolerance)
    assert (device().download(states)[1, 9:] == 99).all()


@pytest.mark.parametrize("steps", [0, 1, 31, 32, 33, 257])
def test_propagate_takes_any_number_of_steps(steps):
    case = Case("gru-1", 1, steps)
    states = case.states()
    bounds = np.zeros(1, np.int64), np.array([steps])
    case.model.propagate(case.on_device, case.model.carry(device().upload(case.h0)), states, 0, steps, *bounds)
    np.testing.assert_allclose(device().download(states)[0], case.loop(0, 0, steps, case.h0[0]), **case.tolerance)


def test_propagate_goes_on_where_the_slab_before_ended():
    case = Case("lstm", 3, 13)
    start, stop = np.array([0, 3, 7]), np.array([13, 10, 7])
    h0 = device().upload(case.h0)
    states, carry = case.states(), case.model.carry(h0)
    for begin, end in [(0, 5), (5, 6), (6, 13)]:
        case.model.propagate(case.on_device, carry, states, begin, end, start, stop)
    result = device().download(states)
    for b in range(3):
        np.testing.assert_allclose(result[b, start[b]:stop[b]], case.loop(b, start[b], stop[b], case.h0[b]), **case.tolerance)
        assert (result[b, :start[b]] == 99).all() and (result[b, stop[b]:] == 99).all()
    assert (device().download(h0) == case.h0).all()


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_propagate_adds_the_source(name, weights_in):
    case = Case(name, 2, 6)
    states, bounds = case.states(), (np.zeros(2, np.int64), np.array([6, 4]))
    case.model.propagate(case.on_device, case.model.carry(device().upload(case.h0)), states, 0, 6, *bounds,
                         device().upload(case.source))
    for b in range(2):
        expected = case.loop(b, 0, bounds[1][b], case.h0[b], case.source)
        np.testing.assert_allclose(device().download(states)[b, :bounds[1][b]], expected, **case.tolerance)


WINDOWS = np.array([[0, 0, 5], [0, 5, 9], [0, 9, 13], [1, 0, 1], [1, 3, 12], [1, 12, 12]])
MANY = np.array([[b, t, t + 2] for b in range(2) for t in range(0, 12, 2)])  # more than a block holds


@pytest.mark.parametrize("table", [WINDOWS, MANY], ids=["some", "many"])
@pytest.mark.parametrize("name", ["heads", "gru", "lstm", "a warp"])
@pytest.mark.parametrize("sourced", [False, True])
def test_sweep_runs_every_window_and_keeps_its_end_apart(name, sourced, table, weights_in):
    case = Case(name, 2, 13)
    row, first, last = table.T
    starts = np.random.default_rng(5).normal(size=(row.size, case.h0.shape[1]))
    states, source = case.states(), case.source if sourced else None
    ends = case.model.windows.sweep(case.on_device, states, device().upload(starts), row, first, last,
                                    device().upload(source) if sourced else None)
    expected, expected_ends = np.full((2, 13, starts.shape[1]), 99.0), starts.copy()
    for w in range(row.size):
        if first[w] < last[w]:
            inside = case.loop(row[w], first[w], last[w], starts[w], source)
            expected[row[w], first[w]:last[w] - 1], expected_ends[w] = inside[:-1], inside[-1]
    np.testing.assert_allclose(device().download(states), expected, **case.tolerance)
    np.testing.assert_allclose(device().download(ends), expected_ends, **case.tolerance)


def merged(case, states, starts, table, tol):
    """What merging windows does, one window after the other."""
    ends, done, differences = np.full(starts.shape, 7.0), [], []
    for w, (row, first, last) in enumerate(table):
        inside, difference, steps = case.loop(row, first, last, starts[w]), 0.0, last - first
        for t in range(first, last):
            stored = states[row, t]
            change = (np.abs(inside[t - first] - stored) / np.maximum(1, np.abs(stored))).max()
            if change <= tol:
                difference, steps = change, t + 1 - first
                break
            if t < last - 1:
                states[row, t] = inside[t - first]
        else:
            ends[w] = inside[-1]
        done.append(steps)
        differences.append(difference)
    return ends, np.array(done), np.array(differences)


TABLE = np.array([[0, 0, 6], [0, 6, 13], [1, 0, 2], [1, 3, 13]])
MOVES = np.array([0.0, 1e-3, 2.0, 0.03])  # windows that merge at once, twice, not before their end, and in time


def swept(case):
    """Starts of the windows of TABLE and the states of a sweep from them, here; then starts that have moved."""
    dtype = case.x.dtype
    starts = np.random.default_rng(5).normal(size=(4, case.h0.shape[1])).astype(dtype)
    states = case.states()
    ends = case.model.windows.sweep(case.on_device, states, device().upload(starts), *TABLE.T)
    result = device().download(states)
    result[TABLE[:, 0], TABLE[:, 2] - 1] = device().download(ends)
    return result, (starts + MOVES[:, None]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["gru", "gru-1", "lstm", "a warp", "several warps"])
def test_a_merge_stops_where_the_states_agree(name, dtype):
    """Each window as if it were alone."""
    case = Case(name, 2, 13, dtype)
    states, moved = swept(case)
    expected = states.copy()
    expected_ends, steps, differences = merged(case, expected, moved, TABLE, 0.01)
    given, ends = device().upload(states), device().upload(np.full(moved.shape, 7, dtype))
    done, found = case.model.windows.merge(case.on_device, given, device().upload(moved), *TABLE.T, 0.01, ends)
    assert done.dtype == np.int64 and found.dtype == np.float64
    assert (*steps[:3],) == (1, 1, 2) and 1 < steps[3] < 10
    np.testing.assert_array_equal(done, steps)
    np.testing.assert_allclose(found, differences, **case.tolerance)
    np.testing.assert_allclose(device().download(given), expected, **case.tolerance)
    np.testing.assert_allclose(device().download(ends), expected_ends, **case.tolerance)


@pytest.mark.parametrize("name", ["gru", "lstm", "a warp"])
def test_the_difference_of_a_merge_is_the_residual_that_remains(name, weights_in):
    case = Case(name, 2, 13)
    states, moved = swept(case)
    given, ends = device().upload(states), device().upload(np.full(moved.shape, 7.0))
    done, differences = case.model.windows.merge(case.on_device, given, device().upload(moved), *TABLE.T, 0.01, ends)
    new = device().download(given)
    for w, (row, first, last) in enumerate(TABLE):
        if (device().download(ends)[w] != 7).any():
            new[row, last - 1] = device().download(ends)[w]
            assert done[w] == last - first and differences[w] == 0
        before = np.concatenate([moved[w:w + 1], new[row, first:last - 1]])
        step = np.array([case.loop(row, t, t + 1, before[t - first])[0] for t in range(first, last)])
        residual = (np.abs(step - new[row, first:last]) / np.maximum(1, np.abs(new[row, first:last]))).max()
        np.testing.assert_allclose(residual, differences[w], **case.tolerance)
    assert 0 < differences.max() <= 0.01 and (done < TABLE[:, 2] - TABLE[:, 1]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["elman", "gru", "gru-1", "no inputs", "many inputs", "several warps"])
def test_project_multiplies_the_inputs_of_a_slab(name, dtype, monkeypatch):
    monkeypatch.setattr(gated_model, "_THREADS", 32)
    monkeypatch.setattr(gated_model, "_MOST_ROWS", 1)
    case = Case(name, 2, 75, dtype)
    start, stop = np.array([0, 68]), np.array([40, 70])
    drive = device().download(case.model.project(case.on_device, 1, 73, start, stop))
    p = {name: value.astype(float) for name, value in case.params.items()}
    expected = case.x[:, 1:73] @ p["weight_ih"].T + p["bias_ih"]
    for b, steps in enumerate([slice(0, 39), slice(67, 69)]):
        np.testing.assert_allclose(drive[b, steps], expected[b, steps], rtol=1e-6, atol=case.tolerance["atol"])
