"""Gradients of gated cells on the device, against complex steps through the naive loop."""

import numpy as np
import pytest
import reference

import pitsolve as ps
from pitsolve.backends.cuda import gated_adjoint
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
    "wide": (ps.cells.GRU(2, 6), reference.gru),
    "wide lstm": (ps.cells.LSTM(2, 3), reference.lstm),
    "wide heads": (ps.cells.GRU(2, 6, heads=2), reference.gru),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, request):
    """Few threads and few weights a thread, so that tiny cells take the ways of large ones."""
    name = request.node.callspec.params.get("name", "") if hasattr(request.node, "callspec") else ""
    monkeypatch.setattr(gated_adjoint, "_THREADS", 32)
    monkeypatch.setattr(gated_adjoint, "_STREAMED_THREADS", 32)
    if name == "two slices":
        monkeypatch.setattr("pitsolve.backends.cuda.tiles._REGISTERS", 24)
    if name.startswith("wide"):
        monkeypatch.setattr("pitsolve.backends.cuda.tiles._ALL_REGISTERS", 0)


class Sequences:
    """Random sequences of different lengths, their states, and the gradient of a random linear loss, sequence by sequence."""

    def __init__(self, name, lengths, dtype=np.float64):
        self.cell, naive = CELLS[name]
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
    for begin, end in reversed(list(zip(bounds, bounds[1:]))):
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


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_of_every_cell_is_that_of_the_loop(name):
    sequences = Sequences(name, [7, 0, 5])
    sequences.check(*by_slabs(sequences, 0, 4, 7))


@pytest.mark.parametrize("name", ["gru", "lstm", "wide"])
def test_in_single_precision(name):
    sequences = Sequences(name, [6], np.float32)
    sequences.check(*by_slabs(sequences, 0, 6))


@pytest.mark.parametrize("name", ["gru", "lstm", "elman", "heads", "two slices", "wide"])
def test_windows_add_up_to_the_gradient_of_the_loop(name):
    sequences = Sequences(name, [7, 0, 5])
    sequences.check(*by_windows(sequences, 3, 0.0))
