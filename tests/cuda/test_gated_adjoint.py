"""Gradients of gated cells on the device, against complex steps through the naive loop."""

import itertools

import numpy as np
import pytest
import reference

import pitsolve as ps
from pitsolve.backends.cuda import gated_adjoint, windows_adjoint
from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.launch import device

CELLS = {
    "gru": (ps.cells.GRU(3, 5), reference.gru),
    "one unit": (ps.cells.GRU(1, 1), reference.gru),
    "no input": (ps.cells.GRU(0, 4), reference.gru),
    "heads": (ps.cells.GRU(3, 6, heads=3), reference.gru),
    "heads of one": (ps.cells.GRU(2, 5, heads=5), reference.gru),
    "coarse": (ps.cells.GRU(2, 3, ratio=3), reference.coarse_gru(3)),
    "implicit": (ps.cells.ImplicitGRU(2, 3, ratio=2), reference.implicit_gru(2)),
    "lstm": (ps.cells.LSTM(2, 5), reference.lstm),
    "elman": (ps.cells.Elman(5, 9), reference.elman),
    "linear": (ps.cells.Linear(3, 2), reference.linear),
    "two slices": (ps.cells.GRU(2, 7), reference.gru),
    "tiles": (ps.cells.GRU(23, 12, heads=3), reference.gru),
    "streamed": (ps.cells.GRU(2, 6), reference.gru),
    "streamed lstm": (ps.cells.LSTM(2, 3), reference.lstm),
    "streamed heads": (ps.cells.GRU(2, 6, heads=2), reference.gru),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, request):
    """Few threads and few weights a thread, so that tiny cells take the ways of large ones."""
    name = request.node.callspec.params.get("name", "") if hasattr(request.node, "callspec") else ""
    monkeypatch.setattr(gated_adjoint, "_THREADS", 32)
    monkeypatch.setattr(gated_adjoint, "_STREAMED_THREADS", 32)
    monkeypatch.setattr("pitsolve.backends.cuda.tiles._SHARED", 1 << 10)
    if name == "two slices":
        monkeypatch.setattr("pitsolve.backends.cuda.tiles._REGISTERS", 24)
    if name.startswith("streamed"):
        monkeypatch.setattr("pitsolve.backends.cuda.tiles._ALL_REGISTERS", 0)


class Sequences:
    """Random sequences of different lengths, their states, and the gradient of a random linear loss, sequence by sequence."""

    def __init__(self, name, lengths, dtype=np.float64):
        self.cell, naive = CELLS[name]
        self.naive = naive
        random = np.random.default_rng(5)
        self.stop, steps = np.array(lengths), max(lengths)
        self.params = self.cell.init(1, np.float64)
        self.x = random.normal(size=(len(lengths), steps, self.cell.input_size))
        self.h0 = 0.5 * random.normal(size=(len(lengths), self.cell.state_size))
        self.dstates = random.normal(size=(len(lengths), steps, self.cell.state_size))
        self.states = reference.loop_batch(naive, self.params, self.x, self.h0, lengths)
        self.close = {"rtol": 1e-9, "atol": 1e-9} if dtype == np.float64 else {"rtol": 1e-4, "atol": 1e-4}
        self.model = GatedModel(self.cell, {name: value.astype(dtype) for name, value in self.params.items()})
        self.dx, self.dh0, self.by_params = np.zeros_like(self.x), np.zeros_like(self.h0), {}
        for b, end in enumerate(self.stop):
            expected = reference.gradient(naive, self.params, self.x[b, :end], self.h0[b], self.dstates[b, :end])
            self.dx[b, :end], self.dh0[b] = expected.pop("x"), expected.pop("h0")
            self.by_params = {key: self.by_params.get(key, 0) + value for key, value in expected.items()}
        past = np.arange(steps) >= self.stop[:, None]
        self.x[past] = self.dstates[past] = self.states[past] = np.nan  # no verb may look there
        self.device = [device().upload(values.astype(dtype)) for values in (self.x, self.states, self.h0, self.dstates)]
        self.device_dx = device().upload(np.zeros(self.x.shape, dtype))

    def check(self, gradients, dh0):
        download = device().download
        for key, value in self.by_params.items():
            np.testing.assert_allclose(download(gradients[key]), value, **self.close, err_msg=key)
        np.testing.assert_allclose(dh0, self.dh0, **self.close)
        if self.cell.input_size:
            np.testing.assert_allclose(download(self.device_dx), self.dx, **self.close)


def by_slabs(sequences, *bounds):
    """Back-propagation through time, slab by slab."""
    model, stop = sequences.model, sequences.stop
    x, states, h0, dstates = sequences.device
    totals, start = model.totals(sequences.device_dx), np.zeros_like(stop)
    carry = device().upload(np.zeros(h0.shape, h0.dtype))
    for begin, end in reversed(list(itertools.pairwise(bounds))):
        previous = h0 if begin == 0 else device().upload(device().download(states)[:, begin - 1])
        adjoint = device().upload(np.full((stop.size, end - begin, h0.shape[1]), np.nan, h0.dtype))
        partials = model.partials(x, states, previous, begin, end, start, stop)
        model.backward(partials, dstates, carry, adjoint, begin, start, stop)
        model.accumulate(totals, partials, x, states, previous, adjoint, begin, start, stop)
    return model.finish(totals), device().download(model.state(carry))


def by_windows(sequences, window, tol):
    """All windows at once from zero, then what their neighbours passed on, until that is below ``tol``."""
    verbs, stop = sequences.model.windows, sequences.stop
    x, states, h0, dstates = sequences.device
    pieces = [(b, t, min(t + window, end)) for b, end in enumerate(stop) for t in range(0, end, window)]
    row, first, last = np.array(pieces).T
    totals = verbs.totals(row.size, sequences.device_dx)
    new, before = np.zeros((row.size, h0.shape[1]), h0.dtype), dstates
    todo, dh0 = np.arange(row.size), np.zeros(h0.shape, h0.dtype)
    while todo.size:
        ends = np.zeros_like(new)
        ends[todo] = device().download(verbs.accumulate(totals, x, states, h0, device().upload(new[todo]), row[todo],
                                                        first[todo], last[todo], before, tol))
        dh0[row[first == 0]] += ends[first == 0]
        new, follow = np.zeros_like(ends), np.flatnonzero(first > 0)
        new[follow - 1] = ends[follow]
        todo, before = np.flatnonzero(np.abs(new).max(axis=1) > tol), None
    return verbs.finish(totals), dh0


def pull(sequences, row, first, last, before, after):
    """The verb on the host: c at every step (unspecified at the first one of a window) and c before every window."""
    cell = sequences.cell
    x, states, h0, dstates = sequences.device
    random = np.random.default_rng(8)
    starts = random.normal(size=(row.size, cell.state_size))
    source = random.normal(size=states.shape)
    carries = device().upload(np.zeros(states.shape, states.dtype))
    ends = sequences.model.windows.pull(x, states, h0, carries, device().upload(starts), row, first, last,
                                        dstates if before else None, device().upload(source) if after else None)
    return starts, source, device().download(carries), device().download(ends)


def naive_pull(sequences, b, t, c, g, a):
    """J_t^T (c + g_t) + a_t, by complex steps."""
    state = sequences.h0[b] if t == 0 else sequences.states[b, t - 1]
    by = reference.gradient(sequences.naive, sequences.params, sequences.x[b, t:t + 1], state, (c + g)[None])
    return by["h0"] + a


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_of_every_cell_is_that_of_the_loop(name):
    sequences = Sequences(name, [7, 0, 5] if name != "tiles" else [3, 2])
    sequences.check(*by_slabs(sequences, 0, 4, 7) if name != "tiles" else by_slabs(sequences, 0, 3))


@pytest.mark.parametrize("name", ["gru", "lstm", "streamed"])
def test_in_single_precision(name):
    sequences = Sequences(name, [6], np.float32)
    sequences.check(*by_slabs(sequences, 0, 6))


def test_sequences_of_many_lengths():
    sequences = Sequences("one unit", [257, 33, 32, 31, 1, 0])
    sequences.check(*by_slabs(sequences, 0, 256, 257))


def test_without_steps_the_gradient_is_zero():
    sequences = Sequences("gru", [0])
    gradients, dh0 = by_slabs(sequences, 0, 0)
    assert all(not device().download(value).any() for value in gradients.values()) and not dh0.any()
    verbs, nothing = sequences.model.windows, np.zeros(0, np.int64)
    x, states, h0, dstates = sequences.device
    totals = verbs.totals(0, sequences.device_dx)
    verbs.accumulate(totals, x, states, h0, device().upload(np.zeros((0, 5))), nothing, nothing, nothing, dstates)
    assert all(not device().download(value).any() for value in verbs.finish(totals).values())


@pytest.mark.parametrize("name", ["gru", "lstm", "elman", "heads", "two slices", "streamed"])
def test_windows_add_up_to_the_gradient_of_the_loop(name):
    sequences = Sequences(name, [7, 0, 5])
    sequences.check(*by_windows(sequences, 3, 0.0))


@pytest.mark.parametrize("name", ["one unit", "streamed lstm"])
def test_windows_that_stop_early_leave_out_what_is_small(name):
    sequences = Sequences(name, [60])
    sequences.check(*by_windows(sequences, 40, 1e-11))


def test_windows_in_pieces_of_little_memory_give_the_same_bits(monkeypatch):
    whole, pieces = [], []
    for results in (whole, pieces):
        sequences = Sequences("gru", [7, 0, 5])
        gradients, dh0 = by_windows(sequences, 2, 0.0)
        results += [device().download(sequences.device_dx), dh0]
        sequences.check(gradients, dh0)
        monkeypatch.setattr(windows_adjoint, "_MEMORY", 3 * 4 * 5 * 8)
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_array_equal(whole[1], pieces[1])


@pytest.mark.parametrize("name", ["gru", "lstm", "heads", "streamed lstm"])
@pytest.mark.parametrize("before, after", [(True, True), (True, False), (False, True), (False, False)])
def test_pull_applies_the_transposed_jacobians(name, before, after):
    sequences = Sequences(name, [5, 3])
    row, first, last = np.array([1, 0, 0, 1]), np.array([0, 2, 0, 2]), np.array([2, 5, 2, 2])
    starts, source, carries, ends = pull(sequences, row, first, last, before, after)
    for w in range(row.size):
        c, b = starts[w], row[w]
        for t in range(last[w] - 1, first[w] - 1, -1):
            c = naive_pull(sequences, b, t, c, sequences.dstates[b, t] if before else 0.0, source[b, t] if after else 0.0)
            if t > first[w]:
                np.testing.assert_allclose(carries[b, t], c, **sequences.close)
        np.testing.assert_allclose(ends[w], c, **sequences.close)
        assert not carries[b, first[w]].any()
