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


@pytest.mark.parametrize("cell", [ps.cells.GRU(6, 8), ps.cells.GRU(6, 8, heads=4)], ids=str)
def test_windows_that_merge_keep_the_barriers_of_a_warp(cell):
    """Whether they merge is put to a vote, in which threads meet, but which orders no memory."""
    model = GatedModel(cell, cell.init(1, np.float32))
    x, states = np.zeros((2, 9, 6), np.float32), np.zeros((2, 9, 8), np.float32)
    windows = states[:, 0].copy(), np.array([0, 1]), np.array([0, 0]), np.array([9, 5])
    barriers = []
    for verb, more in ((model.windows.sweep, ()), (model.windows.merge, (1e-5, states[:, 0].copy()))):
        launches = offline.record(lambda: verb(x, states, *windows, *more))  # noqa: B023
        kernel, signature = next(launch for launch in launches if launch[0].name == "windows.advance")
        barriers.append(offline.ptx(kernel, signature).count("bar.warp.sync"))
    assert barriers[1] == barriers[0] > 0
