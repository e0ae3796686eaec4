"""The kernels of Newton's method for gated cells, built offline."""

import numpy as np
import offline
import pytest

import pitsolve as ps
from pitsolve.backends.cuda.gated_model import GatedModel

CELLS = [ps.cells.GRU(6, 1), ps.cells.GRU(6, 8), ps.cells.GRU(6, 5), ps.cells.GRU(6, 300), ps.cells.GRU(6, 32, heads=8),
         ps.cells.LSTM(6, 16), ps.cells.GRU(6, 32, ratio=4), ps.cells.ImplicitGRU(6, 32)]


class WithoutInputs(GatedModel):
    """A model whose input products are zero: their kernels are those of another file."""

    def project(self, x, begin, end, start, stop):
        return np.zeros((x.shape[0], end - begin, self.cell.GATES * self.cell.hidden_size), self.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_linearise_stays_in_registers(cell, capability, dtype):
    model = WithoutInputs(cell, cell.init(1, dtype))
    x, states, previous = (np.zeros(shape, dtype) for shape in ((2, 9, 6), (2, 9, cell.state_size), (2, cell.state_size)))
    slab = x, states, previous, 0, 9, np.array([0, 0]), np.array([9, 5])

    def verbs():
        for order in (model.VALUE, model.DIAGONAL, model.BLOCKS):
            model.linearise(order, *slab)
        model.partials(*slab)

    offline.check(verbs, capability)
