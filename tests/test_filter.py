"""The Kalman gains behind ELK, against the textbook filter in NumPy."""

import numpy as np
import pytest

from pitsolve.backends.cpu import filter
from pitsolve.compile import specialise


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


@pytest.mark.parametrize("trust", [0.3, 1e4])
@pytest.mark.parametrize("m", [1, 3, 5])
def test_block_gains_are_those_of_the_kalman_filter(m, trust):
    random = np.random.default_rng(23)
    heads, steps = 2, 6
    J, defect = random.normal(size=(1, steps, heads, m, m)), random.normal(size=(1, steps, heads * m))
    start = random.normal(size=(1, heads, m, m))
    covariance = start @ start.transpose(0, 1, 3, 2)
    expected = [textbook_gains(J[0, :, k], defect[0, :, k * m:(k + 1) * m], covariance[0, k], trust) for k in range(heads)]
    work = np.empty((heads, 2, m, m))
    specialise(filter.block_gains)(J, defect, covariance, work, np.array([trust]), np.array([0]), np.array([steps]))
    for k, (gained_J, gained_defect, last) in enumerate(expected):
        np.testing.assert_allclose(J[0, :, k], gained_J, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(defect[0, :, k * m:(k + 1) * m], gained_defect, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(covariance[0, k], last, rtol=1e-10, atol=1e-12)


def test_diagonal_gains_are_those_of_scalar_filters():
    random = np.random.default_rng(29)
    steps, n, trust = 7, 20, 2.5
    J, defect, covariance = random.normal(size=(1, steps, n)), random.normal(size=(1, steps, n)), random.random((1, n))
    expected = [textbook_gains(J[0, :, i, None, None], defect[0, :, i, None], covariance[0, i, None, None], trust)
                for i in range(n)]
    specialise(filter.diagonal_gains)(J, defect, covariance, np.array([trust]), np.array([0]), np.array([steps]))
    for i, (gained_J, gained_defect, last) in enumerate(expected):
        np.testing.assert_allclose(J[0, :, i], gained_J[:, 0, 0], rtol=1e-12)
        np.testing.assert_allclose(defect[0, :, i], gained_defect[:, 0], rtol=1e-12)
        np.testing.assert_allclose(covariance[0, i], last[0, 0], rtol=1e-12)
