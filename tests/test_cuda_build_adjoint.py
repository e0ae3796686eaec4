"""The backward kernels of gated cells, built offline."""

import numpy as np
import offline
import pytest

import pitsolve as ps
from pitsolve.backends.cuda.gated_model import GatedModel

CELLS = [ps.cells.GRU(1, 1), ps.cells.GRU(40, 32, ratio=3), ps.cells.LSTM(6, 32),
         ps.cells.ImplicitGRU(6, 128), ps.cells.GRU(2, 12, heads=6), ps.cells.Elman(6, 50)]
IN_DOUBLE_PRECISION = ("parameter_gradients.add_up", "parameter_gradients.settle")  # the sums over all blocks, on purpose


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_adjoint_stays_in_registers(cell, capability, dtype):
    model, steps = GatedModel(cell, cell.init(1, dtype)), 9
    x, states = np.zeros((2, steps, cell.input_size), dtype), np.zeros((2, steps, cell.state_size), dtype)
    h0, start, stop = np.zeros((2, cell.state_size), dtype), np.array([0, 0]), np.array([steps, 5])

    def verbs():
        totals = model.totals(x)
        partials = model.partials(x, states, h0, 0, steps, start, stop)
        model.backward(partials, states, h0, states, 0, start, stop)
        model.accumulate(totals, partials, x, states, h0, states, 0, start, stop)
        model.finish(totals)
        windows = np.array([0, 1]), start, stop
        model.windows.pull(x, states, h0, states, h0, *windows, states, states)
        totals = model.windows.totals(2, x)
        model.windows.accumulate(totals, x, states, h0, h0, *windows, states)
        model.windows.accumulate(totals, x, states, h0, h0, *windows, None, 1e-3)

    offline.check(verbs, capability, IN_DOUBLE_PRECISION)
