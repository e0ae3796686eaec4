"""The kernels of gated cells on slabs and windows, built offline."""

import numpy as np
import offline
import pytest

import pitsolve as ps
from pitsolve.backends.cuda.gated_model import GatedModel

SINGLE = [ps.cells.GRU(6, 1), ps.cells.GRU(6, 32), ps.cells.GRU(6, 64), ps.cells.GRU(6, 128), ps.cells.GRU(3, 200, ratio=4),
          ps.cells.LSTM(6, 50)]
DOUBLE = [ps.cells.GRU(6, 1), ps.cells.GRU(6, 64), ps.cells.GRU(6, 128)]
MODELS = [(cell, np.float32) for cell in SINGLE] + [(cell, np.float64) for cell in DOUBLE]


@pytest.mark.parametrize(("cell", "dtype"), MODELS)
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
def test_the_loop_spills_no_weights(cell, dtype, capability):
    model = GatedModel(cell, cell.init(1, dtype))
    x, states = np.zeros((2, 9, cell.input_size), dtype), np.zeros((2, 9, cell.state_size), dtype)
    starts, bounds = np.zeros((2, cell.state_size), dtype), (np.array([0, 0]), np.array([9, 5]))

    def verbs():
        model.project(x, 0, 9, *bounds)
        model.propagate(x, starts, states, 0, 9, *bounds, states)
        model.windows.merge(x, states, starts, np.array([0, 1]), *bounds, 1e-5, starts)

    offline.check(verbs, capability)
