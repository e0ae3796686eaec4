"""Whole Newton iterations of gated cells on the device, against the scan of the Jacobians of the naive cells."""

import numpy as np
import pytest
import reference

import pitsolve as ps
from pitsolve.backends.cuda import newton
from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.launch import device

BATCH = 2
CELLS = {
    "three units": (ps.cells.GRU(2, 3), reference.gru),
    "four units": (ps.cells.Elman(1, 4), reference.elman),
    "heads": (ps.cells.GRU(1, 6, heads=3), reference.gru),
    "two parts": (ps.cells.LSTM(1, 2), reference.lstm),
    "two parts of a unit": (ps.cells.LSTM(1, 1), reference.lstm),
    "coarse": (ps.cells.GRU(1, 2, ratio=3), reference.coarse_gru(3)),
}
TILED = {
    "one unit": (ps.cells.GRU(3, 1), reference.gru),
    "one unit, one input": (ps.cells.GRU(1, 1), reference.gru),
    "heads of one unit, by four": (ps.cells.GRU(1, 12, heads=12), reference.gru),
    "heads of one unit": (ps.cells.GRU(1, 3, heads=3), reference.gru),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(newton, "_THREADS", 32)
    monkeypatch.setattr(newton, "_TILE_THREADS", {4: 32, 8: 32})
    monkeypatch.setattr(newton, "_SHORTEST", 4)


class Case:
    """A cell, and states near to or far from those of the loop."""

    def __init__(self, name, dtype=np.float64, steps=19):
        self.cell, self.step = (CELLS | TILED)[name]
        self.stop = np.array([steps, steps - 5])
        random = np.random.default_rng(3)
        self.params = self.cell.init(3, dtype)
        self.x = random.normal(size=(BATCH, steps, self.cell.input_size)).astype(dtype)
        self.h0 = random.normal(size=(BATCH, self.cell.state_size)).astype(dtype)
        self.loop = reference.loop_batch(self.step, self.params, self.x, self.h0)
        self.states = (self.loop + 0.1 * random.normal(size=self.loop.shape)).astype(dtype)
        self.model = GatedModel(self.cell, self.params)

    def iteration(self, order, damping=0.0, max_memory=1 << 30):
        """The fused iteration, and its states on the device."""
        states = device().upload(self.states)
        x, h0 = device().upload(self.x), device().upload(self.h0)
        return newton.fused_newton(self.model, order, damping, x, h0, states, self.stop, max_memory), states

    def expected(self, diagonal, damping, start):
        """The states after one iteration, and per step the sizes of defect and change relative to the states."""
        states = self.states.astype(float)
        sizes, changes = np.zeros(states.shape[:2]), np.zeros(states.shape[:2])
        for b in range(BATCH):
            before = np.concatenate([self.h0[b:b + 1], self.states[b, :-1]]).astype(float)
            defect = np.stack([self.step(self.params, x, h) for x, h in zip(self.x[b], before, strict=True)]) - states[b]
            jacobian = np.stack([self.jacobian(x, h) for x, h in zip(self.x[b], before, strict=True)])
            if diagonal:
                jacobian = jacobian * np.eye(defect.shape[1])
            change = reference.affine_scan((1 - damping) * jacobian, defect, None, start=start[b], stop=self.stop[b])
            sizes[b] = (np.abs(defect) / np.maximum(1, np.abs(states[b]))).max(axis=1)
            states[b] += change
            changes[b] = (np.abs(change) / np.maximum(1, np.abs(states[b]))).max(axis=1)
        return states, sizes, changes

    def jacobian(self, x, h):
        units = np.eye(h.size)
        params = {name: value.astype(complex) for name, value in self.params.items()}
        return np.stack([self.step(params, x, h + 1e-150j * unit).imag / 1e-150 for unit in units], axis=1)


def check(case, diagonal, damping, start, max_memory=1 << 30):
    """One iteration of a case: states, norms and first steps beyond the tolerance."""
    iteration, states = case.iteration(case.model.DIAGONAL if diagonal else case.model.BLOCKS, damping, max_memory)
    norms, first, changes = iteration.sweep(0.05, start)
    iteration.finish()
    expected, sizes, steps = case.expected(diagonal, damping, start)
    np.testing.assert_allclose(device().download(states), expected, rtol=1e-12, atol=1e-12)
    for b in range(BATCH):
        mine = sizes[b, start[b]:case.stop[b]]
        assert norms[b] == pytest.approx(mine.max(initial=0.0), rel=1e-12)
        assert changes[b] == pytest.approx(steps[b].max(), rel=1e-12)
        assert first[b] == min([*start[b] + np.flatnonzero(mine > 0.05), case.stop[b]])


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_an_iteration_in_chunks(name, diagonal):
    case = Case(name)
    check(case, diagonal, 0.0, np.array([0, 0]))
    check(case, diagonal, 0.25, np.array([6, 14]))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("name", ["three units", "heads", "two parts"])
def test_an_iteration_slab_by_slab(name, diagonal):
    case = Case(name)
    check(case, diagonal, 0.0, np.array([0, 0]), max_memory=0)
    check(case, diagonal, 0.25, np.array([9, 14]), max_memory=0)


def test_tiles_that_do_not_fit_become_chunks_in_slabs():
    case = Case("heads of one unit", steps=131)
    assert isinstance(case.iteration(case.model.BLOCKS, max_memory=1 << 20)[0], newton.InTiles)
    assert isinstance(case.iteration(case.model.BLOCKS, max_memory=5000)[0], newton.InChunks)
    check(case, True, 0.0, np.array([0, 0]), max_memory=5000)


@pytest.mark.parametrize("name", TILED)
def test_an_iteration_in_tiles(name):
    case = Case(name, steps=131)
    check(case, True, 0.0, np.array([0, 0]))
    check(case, False, 0.25, np.array([70, 126]))


@pytest.mark.parametrize("name", ["one unit", "heads of one unit", "two parts"])
def test_iterations_converge_to_the_loop(name):
    case = Case(name, np.float32, 66)
    iteration, states = case.iteration(case.model.BLOCKS)
    start = np.zeros(BATCH, np.int64)
    for _ in range(5):
        norms, start, _ = iteration.sweep(1e-6, start)
    np.testing.assert_array_equal(start, case.stop)
    assert (norms < 1e-6).all()
    for b in range(BATCH):
        np.testing.assert_allclose(device().download(states)[b, :case.stop[b]], case.loop[b, :case.stop[b]], atol=1e-6)


def test_what_is_not_finite_is_repaired():
    case = Case("three units")
    case.states[0, 7, 1], case.states[1, 5, 0] = np.nan, 1e300
    iteration, states = case.iteration(case.model.BLOCKS)
    norms, first, _ = iteration.sweep(0.5, np.zeros(BATCH, np.int64))
    assert norms[0] == np.inf
    assert first[0] == 7
    states = device().download(states)
    assert np.isfinite(states).all() and np.abs(states).max() <= 1e8


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["one unit", "heads of one unit, by four", "three units"])
def test_products_of_jacobians_may_overflow(name):
    case = Case(name, np.float32, 131)
    case.params = {key: np.full_like(value, 1e4 * (key == "weight_hh")) for key, value in case.params.items()}
    case.params["weight_ih"][:] = 1.0
    case.x[:], case.h0[:], case.states[:] = 0.0, 0.0, 0.0
    case.x[:, -9] = 0.3
    case.model = GatedModel(case.cell, case.params)
    iteration, states = case.iteration(case.model.BLOCKS)
    iteration.sweep(1e-5, np.zeros(BATCH, np.int64))
    expected = case.expected(False, 0.0, np.zeros(BATCH, np.int64))[0].clip(-1e8, 1e8)
    np.testing.assert_allclose(device().download(states), expected, rtol=1e-4)
