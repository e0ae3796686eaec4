"""Kernels on whole arrays, built offline."""

import numpy as np
import offline
import pytest

from pitsolve.backends.cuda import pointwise


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("capability", offline.ARCHITECTURES)
def test_norms_need_few_registers(dtype, capability):
    offline.check(lambda: pointwise.magnitude(np.zeros((3, 4), dtype)), capability)
