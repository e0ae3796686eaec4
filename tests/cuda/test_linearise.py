"""f and its derivatives at every step of a slab, for gated cells on the device."""

import numpy as np
import pytest
import reference

import pitsolve as ps
from pitsolve.backends.cuda import gated_linearise
from pitsolve.backends.cuda.gated_model import GatedModel
from pitsolve.backends.cuda.launch import SIMULATED, device

BATCH, STEPS, BEGIN, END = 3, 11, 2, 9
START, STOP = np.array([0, 4, 9]), np.array([11, 8, 11])
CELLS = {
    "a unit": (ps.cells.GRU(2, 1), reference.gru),
    "three units": (ps.cells.GRU(2, 3), reference.gru),
    "four units": (ps.cells.Linear(2, 4), reference.linear),
    "two tiles of units": (ps.cells.Elman(1, 12), reference.elman),
    "heads": (ps.cells.GRU(1, 12, heads=3), reference.gru),
    "heads of one unit": (ps.cells.GRU(1, 3, heads=3), reference.gru),
    "two parts": (ps.cells.LSTM(1, 5), reference.lstm),
    "coarse": (ps.cells.GRU(1, 3, ratio=5), reference.coarse_gru(5)),
    "implicit": (ps.cells.ImplicitGRU(1, 2, ratio=3), reference.implicit_gru(3)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(gated_linearise, "THREADS", 8)


class Case:
    """A cell, random states and the slab [BEGIN, END) of them, of which each sequence wants [START, STOP)."""

    def __init__(self, name, dtype=np.float64):
        self.cell, self.step = CELLS[name]
        random = np.random.default_rng(3)
        self.params = self.cell.init(3, dtype)
        self.x = random.normal(size=(BATCH, STEPS, self.cell.input_size)).astype(dtype)
        self.states = random.normal(size=(BATCH, STEPS, self.cell.state_size)).astype(dtype)
        self.before = random.normal(size=self.states[:, 0].shape).astype(dtype)
        self.model = GatedModel(self.cell, self.params)
        self.close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}

    def call(self, verb, *order):
        """What a verb returns for the slab, on the host."""
        results = verb(*order, *map(device().upload, (self.x, self.states, self.before)), BEGIN, END, START, STOP)
        return [device().download(result) for result in results]

    def wanted(self):
        """(b, t, the state before step t) of every step of the slab."""
        for b in range(BATCH):
            for t in range(max(BEGIN, START[b]), min(END, STOP[b])):
                yield b, t, (self.before[b] if t == BEGIN else self.states[b, t - 1]).astype(float)

    def slopes(self, b, t, state, name, k):
        """Derivative of the step by entry k of the state (``name`` None) or of a parameter."""
        params = {key: value.astype(complex) for key, value in self.params.items()}
        state = state.astype(complex)
        (state if name is None else params[name])[k] += 1e-150j
        return self.step(params, self.x[b, t], state).imag / 1e-150


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CELLS)
def test_defect_and_jacobian(name, dtype):
    case = Case(name, dtype)
    defect, diagonal = case.call(case.model.linearise, case.model.DIAGONAL)
    same, blocks = case.call(case.model.linearise, case.model.BLOCKS)
    alone, _ = case.call(case.model.linearise, case.model.VALUE)
    expected = np.zeros_like(defect)
    for b, t, state in case.wanted():
        expected[b, t - BEGIN] = case.step(case.params, case.x[b, t], state) - case.states[b, t]
        jacobian = np.stack([case.slopes(b, t, state, None, j) for j in range(state.size)], axis=1)
        np.testing.assert_allclose(reference.dense_matrix(blocks[b, t - BEGIN], state.size), jacobian, **case.close)
        np.testing.assert_allclose(diagonal[b, t - BEGIN], np.diag(jacobian), **case.close)
    for found in (defect, same, alone):
        np.testing.assert_allclose(found, expected, **case.close)
        if SIMULATED:  # elsewhere they are three kernels, in each of which the compiler fuses other multiply-adds
            np.testing.assert_array_equal(found, defect)


def test_a_sequence_of_one_step_reads_no_state_before_it():
    cell = ps.cells.Linear(2, 4)
    params, x, states = cell.init(3, np.float64), np.ones((1, 1, 2)), np.zeros((1, 1, 4))
    before, whole = np.ones((1, 4)), (np.zeros(1, np.int64), np.ones(1, np.int64))
    model = GatedModel(cell, params)
    defect, _ = model.linearise(model.VALUE, *map(device().upload, (x, states, before)), 0, 1, *whole)
    np.testing.assert_allclose(device().download(defect)[0, 0], reference.linear(params, x[0, 0], before[0]), rtol=1e-12)
