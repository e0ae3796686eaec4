"""The Kalman gains behind ELK on the device, against the textbook filter in NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pitsolve.backends.cuda import filter
from pitsolve.backends.cuda.launch import device

START, STOP, STEPS = np.array([0, 2]), np.array([5, 3]), 6


def textbook_gains(J, defect, covariance, trust):
    """(I - K) J and (I - K) defect at every step of one sequence, and the last covariance."""
    gained_J, gained_defect = np.empty_like(J), np.empty_like(defect)
    identity = np.eye(J.shape[-1])
    for t in range(len(J)):
        prior = J[t] @ covariance @ J[t].T + identity
        gain = prior @ np.linalg.inv(prior + trust * identity)
        covariance = (identity - gain) @ prior
        gained_J[t], gained_defect[t] = (identity - gain) @ J[t], (identity - gain) @ defect[t]
    return gained_J, gained_defect, covariance


def check(m, heads, dtype, diagonal):
    random = np.random.default_rng(23)
    trust = np.array([0.3, 1e4], dtype)
    J, defect = (random.normal(size=(2, STEPS, *shape)).astype(dtype) for shape in ((heads, m, m), (heads * m,)))
    half = random.normal(size=(2, heads, m, m))
    covariance = (half @ half.transpose(0, 1, 3, 2)).astype(dtype)
    arrays = [J[..., 0, 0] if diagonal else J, defect, covariance[..., 0, 0] if diagonal else covariance]
    arrays = [device().upload(array.copy()) for array in arrays]
    filter.gains(*arrays, trust, START, STOP)
    likes = J, defect, covariance
    results = [device().download(array).reshape(like.shape) for array, like in zip(arrays, likes, strict=True)]
    tolerance = 2e-4 if dtype == np.float32 else 1e-10
    for b in range(2):
        inside = slice(START[b], STOP[b])
        for k in range(heads):
            part = slice(k * m, (k + 1) * m)
            expected = textbook_gains(*(x.astype(float) for x in (J[b, inside, k], defect[b, inside, part], covariance[b, k])),
                                      float(trust[b]))
            for actual, wanted in zip((results[0][b, inside, k], results[1][b, inside, part], results[2][b, k]), expected,
                                      strict=True):
                assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance)
        outside = np.ones(STEPS, bool)
        outside[inside] = False
        assert_array_equal(results[0][b, outside], J[b, outside])
        assert_array_equal(results[1][b, outside], defect[b, outside])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_shared", [True, False])
@pytest.mark.parametrize("m", [1, 2, 5])
def test_block_gains_are_those_of_the_kalman_filter(m, in_shared, dtype, monkeypatch):
    monkeypatch.setattr(filter, "_THREADS", 8)
    monkeypatch.setattr(filter, "_SHARED_BYTES", 1 << 16 if in_shared else 0)
    check(m, 2, dtype, False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [2, 8])
def test_diagonal_gains_are_those_of_scalar_filters(depth, dtype, monkeypatch):
    monkeypatch.setattr(filter, "_THREADS", 4)
    monkeypatch.setattr(filter, "_DEPTH", depth)
    check(1, 3, dtype, True)
