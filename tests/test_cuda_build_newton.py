"""The kernels of Newton's method for gated cells, built offline."""

import numpy as np
import offline
import pytest

import pitsolve as ps
from pitsolve.backends.cuda import newton
from pitsolve.backends.cuda.gated_model import GatedModel

CELLS = [ps.cells.GRU(6, 8), ps.cells.GRU(6, 300), ps.cells.GRU(6, 10, heads=2), ps.cells.LSTM(6, 16),
         ps.cells.GRU(6, 32, ratio=4)]
SMALL = [ps.cells.GRU(1, 1), ps.cells.GRU(6, 8, heads=8), ps.cells.GRU(6, 3, heads=3), ps.cells.GRU(6, 2), ps.cells.GRU(6, 8)]
DENSE = [*((cell, dtype) for cell in SMALL for dtype in (np.float32, np.float64)),
         (ps.cells.GRU(6, 16), np.float32), (ps.cells.LSTM(6, 4), np.float32), (ps.cells.LSTM(6, 2), np.float64)]
DIAGONAL = [(ps.cells.GRU(6, 32), np.float32), (ps.cells.GRU(6, 16), np.float64)]


def arrays(cell, dtype, steps):
    """x, a state and states."""
    shapes = (2, steps, cell.input_size), (2, cell.state_size), (2, steps, cell.state_size)
    return (np.zeros(shape, dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_linearise_stays_in_registers(cell, capability, dtype, monkeypatch):
    monkeypatch.setattr(GatedModel, "project", lambda self, x, *rest: x)  # its kernel is that of another file
    model = GatedModel(cell, cell.init(1, dtype))
    x, previous, states = arrays(cell, dtype, 9)
    slab = x, states, previous, 0, 9, np.array([0, 0]), np.array([9, 5])

    def verbs():
        model.linearise(model.DIAGONAL, *slab)
        model.linearise(model.BLOCKS, *slab)

    offline.check(verbs, capability)


@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
@pytest.mark.parametrize(("cell", "dtype"), [*DENSE, *DIAGONAL], ids=str)
def test_whole_iterations_stay_in_registers(cell, dtype, capability, monkeypatch):
    monkeypatch.setattr(newton, "scan", lambda *arguments: None)  # of other files
    monkeypatch.setattr(GatedModel, "project", lambda self, x, *rest: x)
    model = GatedModel(cell, cell.init(1, dtype))
    x, h0, states = arrays(cell, dtype, 99)

    def verbs():
        order = model.BLOCKS if (cell, dtype) in DENSE else model.DIAGONAL
        newton.fused_newton(model, order, 0.0, x, h0, states, np.array([99, 5]), 1 << 30).sweep(1e-5, np.array([0, 0]))

    offline.check(verbs, capability)


@pytest.mark.parametrize(("cell", "dtype"), [(ps.cells.GRU(1, 17), np.float32), (ps.cells.GRU(1, 9), np.float64),
                                             (ps.cells.LSTM(1, 5), np.float32)], ids=str)
def test_larger_states_have_no_whole_iterations(cell, dtype):
    model = GatedModel(cell, cell.init(1, dtype))
    assert newton.fused_newton(model, model.BLOCKS, 0.0, *arrays(cell, dtype, 9), np.array([9, 5]), 1 << 30) is None
