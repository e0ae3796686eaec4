"""Whole Newton iterations of gated cells on the device, against the scan of the Jacobians of the naive cells."""

import numpy as np
import pytest
import reference
import stub_scan

import pitsolve as ps
from pitsolve.backends.cuda import newton
from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.launch import device

BATCH, STEPS = 2, 19
STOP = np.array([19, 14])
CELLS = {
    "three units": (ps.cells.GRU(2, 3), reference.gru),
    "four units": (ps.cells.Elman(1, 4), reference.elman),
    "heads": (ps.cells.GRU(1, 6, heads=3), reference.gru),
    "two parts": (ps.cells.LSTM(1, 2), reference.lstm),
    "two parts of a unit": (ps.cells.LSTM(1, 1), reference.lstm),
    "coarse": (ps.cells.GRU(1, 2, ratio=3), reference.coarse_gru(3)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(newton, "_THREADS", 32)
    monkeypatch.setattr(newton, "_SHORTEST", 4)


class Case:
    """A cell, and states near to or far from those of the loop."""

    def __init__(self, name, dtype=np.float64, noise=0.1):
        self.cell, self.step = CELLS[name]
        random = np.random.default_rng(3)
        self.params = self.cell.init(3, dtype)
        self.x = random.normal(size=(BATCH, STEPS, self.cell.input_size)).astype(dtype)
        self.h0 = random.normal(size=(BATCH, self.cell.state_size)).astype(dtype)
        self.loop = reference.loop_batch(self.step, self.params, self.x, self.h0)
        self.states = (self.loop + noise * random.normal(size=self.loop.shape)).astype(dtype)
        self.model = GatedModel(self.cell, self.params)

    def iteration(self, order, damping=0.0):
        """The fused iteration, and its states on the device."""
        states = device().upload(self.states)
        x, h0 = device().upload(self.x), device().upload(self.h0)
        return newton.fused_newton(self.model, order, damping, x, h0, states, STOP), states

    def expected(self, diagonal, damping, start):
        """The states after one iteration, and per step the sizes of defect and change relative to the states."""
        states = self.states.astype(float)
        sizes, changes = np.zeros((BATCH, STEPS)), np.zeros((BATCH, STEPS))
        for b in range(BATCH):
            before = np.concatenate([self.h0[b:b + 1], self.states[b, :-1]]).astype(float)
            defect = np.stack([self.step(self.params, x, h) for x, h in zip(self.x[b], before, strict=True)]) - states[b]
            jacobian = np.stack([self.jacobian(x, h) for x, h in zip(self.x[b], before, strict=True)])
            if diagonal:
                jacobian = jacobian * np.eye(defect.shape[1])
            change = reference.affine_scan((1 - damping) * jacobian, defect, None, start=start[b], stop=STOP[b])
            sizes[b] = (np.abs(defect) / np.maximum(1, np.abs(states[b]))).max(axis=1)
            states[b] += change
            changes[b] = (np.abs(change) / np.maximum(1, np.abs(states[b]))).max(axis=1)
        return states, sizes, changes

    def jacobian(self, x, h):
        units = np.eye(h.size)
        params = {name: value.astype(complex) for name, value in self.params.items()}
        return np.stack([self.step(params, x, h + 1e-150j * unit).imag / 1e-150 for unit in units], axis=1)


@pytest.mark.parametrize("order", ["dense", "diagonal"])
@pytest.mark.parametrize("name", CELLS)
def test_one_iteration(name, order):
    case = Case(name)
    diagonal = order == "diagonal"
    for damping, start in ((0.0, np.array([0, 0])), (0.25, np.array([6, 14]))):
        iteration, states = case.iteration(case.model.DIAGONAL if diagonal else case.model.BLOCKS, damping)
        norms, first, changes = iteration.sweep(0.05, start)
        iteration.finish()
        expected, sizes, steps = case.expected(diagonal, damping, start)
        np.testing.assert_allclose(device().download(states), expected, rtol=1e-12, atol=1e-12)
        for b in range(BATCH):
            mine = sizes[b, start[b]:STOP[b]]
            assert norms[b] == pytest.approx(mine.max(initial=0.0), rel=1e-12)
            assert changes[b] == pytest.approx(steps[b].max(), rel=1e-12)
            assert first[b] == min([*start[b] + np.flatnonzero(mine > 0.05), STOP[b]])


def test_float32_converges_to_the_loop():
    case = Case("three units", np.float32)
    iteration, states = case.iteration(case.model.BLOCKS)
    start = np.zeros(BATCH, np.int64)
    for _ in range(4):
        norms, start, _ = iteration.sweep(1e-5, start)
    for b in range(BATCH):
        np.testing.assert_allclose(device().download(states)[b, :STOP[b]], case.loop[b, :STOP[b]], atol=1e-6)
    np.testing.assert_array_equal(start, STOP)
    assert (norms < 1e-5).all()


def test_what_is_not_finite_is_repaired():
    case = Case("three units")
    case.states[0, 7, 1], case.states[1, 5, 0] = np.nan, 1e300
    iteration, states = case.iteration(case.model.BLOCKS)
    norms, first, _ = iteration.sweep(0.5, np.zeros(BATCH, np.int64))
    assert norms[0] == np.inf and first[0] == 7
    states = device().download(states)
    assert np.isfinite(states).all() and np.abs(states).max() <= 1e8
