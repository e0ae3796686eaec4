"""Kernels on whole arrays, built offline."""

import numpy as np
import offline
import pytest

from pitsolve.backends.cuda import arrays, pointwise

IN_FLOAT64 = ("rows.products", "rows.square_sums")  # sums of products, whatever the dtype of the factors


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
def test_operations_on_arrays_need_few_registers(dtype, capability):
    values, rows, index = np.zeros((2, 3, 4), dtype), np.zeros((2, 4), dtype), np.arange(2)

    def verbs():
        pointwise.magnitude(values)
        arrays.copy(values)
        arrays.add_steps(values, values, 1)
        arrays.take(values, index, index)
        arrays.take(values, index, index - 1, rows)
        arrays.put(values, index, index, rows)
        arrays.spread(values, rows)
        arrays.clear_after(values, index)
        arrays.scale(values, 2.0)
        arrays.combine(1.0, rows, -1.0, rows)
        arrays.dot(rows, rows)
        arrays.squares(rows)
        arrays.largest(rows)
        arrays.mismatch(rows, rows)

    offline.check(verbs, capability, may_use_doubles=IN_FLOAT64)
