"""Residual norms and repaired updates on the device, against NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pitsolve.backends.cuda import pointwise
from pitsolve.backends.cuda.launch import device

BEGIN, START, STOP = 3, np.array([0, 5, 4, 12]), np.array([17, 9, 4, 14])  # a slab of 8 steps out of 17


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Several blocks a sequence."""
    monkeypatch.setattr(pointwise, "_THREADS", 8)
    monkeypatch.setattr(pointwise, "_PARTS", 10)


def draw(dtype):
    random = np.random.default_rng(5)
    return (3 * random.normal(size=(4, 17, 3))).astype(dtype), (0.1 * random.normal(size=(4, 8, 3))).astype(dtype)


def in_range(r):
    """Steps of the slab that count for a row, as a slice of the sequence and as a slice of the slab."""
    low, high = max(BEGIN, START[r]), min(BEGIN + 8, STOP[r])
    return slice(low, high), slice(low - BEGIN, high - BEGIN)


def ratios(change, states):
    return np.abs(change) / np.maximum(1.0, np.abs(states))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tol", [0.0, 0.15, 9.0])
def test_measure_is_the_largest_relative_defect_and_its_first_step_beyond_the_tolerance(tol, dtype):
    states, defect = draw(dtype)
    norms, firsts = pointwise.measure(*map(device().upload, (defect, states)), tol, BEGIN, START, STOP)
    for r in range(4):
        steps, part = in_range(r)
        sizes = ratios(defect[r, part], states[r, steps])
        assert_allclose(norms[r], sizes.max(initial=0.0), rtol=1e-6 if dtype == np.float32 else 1e-15)
        beyond = np.flatnonzero((sizes > tol).any(axis=1))
        assert firsts[r] == (steps.start + beyond[0] if beyond.size else STOP[r])


def test_a_residual_equal_to_the_tolerance_is_not_beyond_it():
    """Whether the tolerance is rounded up or down on its way into the kernel."""
    states, defect = np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), 0.1, np.float32)
    arrays, size = (device().upload(defect), device().upload(states)), float(defect.max())
    for tol, first in ((size, 1), (np.nextafter(size, 0.0), 0)):
        assert pointwise.measure(*arrays, tol, 0, np.array([0]), np.array([1]))[1] == first


def test_measure_of_nan_is_infinite_and_beyond_every_tolerance():
    states, defect = draw(np.float64)
    defect[0, 4, 1] = -np.nan
    norms, firsts = pointwise.measure(*map(device().upload, (defect, states)), 1e300, BEGIN, START, STOP)
    assert_array_equal(np.isinf(norms), [True, False, False, False])
    assert_array_equal(firsts, [BEGIN + 4, *STOP[1:]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_update_adds_in_range_and_repairs(dtype):
    states, change = draw(dtype)
    change[0, 2], change[3, 0] = [np.nan, 3e9, -np.inf], np.nan  # the last is outside the range
    on_card = device().upload(states)
    norms = pointwise.update(on_card, device().upload(change), BEGIN, START, STOP)
    expected = states.copy()
    for r in range(4):
        steps, part = in_range(r)
        expected[r, steps] = np.clip(np.nan_to_num(states[r, steps] + change[r, part], nan=0.0, posinf=1e8), -1e8, 1e8)
        with np.errstate(invalid="ignore"):
            size = ratios(change[r, part], expected[r, steps]).max(initial=0.0)
        assert_allclose(norms[r], size, rtol=1e-6)
    assert np.isnan(norms[0])
    assert_array_equal(device().download(on_card), expected)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3)])
def test_an_empty_slab_has_no_residual(shape):
    stop = np.full(shape[0], shape[1])
    empty = device().upload(np.zeros(shape))
    norms, firsts = pointwise.measure(empty, empty, 1e-6, 0, 0 * stop, stop)
    assert (norms == 0).all() and (firsts == stop).all()
    assert (pointwise.update(empty, empty, 0, 0 * stop, stop) == 0).all()
