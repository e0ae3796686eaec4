"""Operations on whole arrays on the device."""

import numpy as np
import pytest

from pitsolve.backends.cuda import pointwise
from pitsolve.backends.cuda.launch import device


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 31, 257])
def test_magnitude_is_the_largest_absolute_value(dtype, size):
    values = np.random.default_rng(3).normal(size=size).astype(dtype)
    assert pointwise.magnitude(device().upload(values)) == np.abs(values).max()


def test_magnitude_of_nan_is_nan():
    assert np.isnan(pointwise.magnitude(device().upload(np.array([1.0, -np.nan, np.inf]))))
