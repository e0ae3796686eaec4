"""Losses: what is not counted changes nothing, and gradients agree with central differences."""

import numpy as np
import pytest

from pitsolve.training import cross_entropy, mean_squared

LABELS = np.array([[2, -1, 0], [-7, 3, 1]])
RANDOM = np.random.default_rng(5)
OUTPUTS, TARGETS = RANDOM.standard_normal((2, 3, 4)), RANDOM.standard_normal((2, 3, 4))


def assert_gradient(loss, outputs):
    """The second result of ``loss`` against central differences of the first."""
    differences = np.empty_like(outputs)
    for index in np.ndindex(outputs.shape):
        step = np.zeros_like(outputs)
        step[index] = 1e-6
        differences[index] = (loss(outputs + step)[0] - loss(outputs - step)[0]) / 2e-6
    np.testing.assert_allclose(loss(outputs)[1], differences, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", [lambda y: cross_entropy(y, LABELS), lambda y: mean_squared(y, TARGETS),
                                  lambda y: mean_squared(y, TARGETS, LABELS >= 0),
                                  lambda y: mean_squared(y, TARGETS, LABELS[:, 0] >= 0)])
def test_gradients_agree_with_central_differences(loss):
    assert_gradient(loss, OUTPUTS)


def test_only_labels_from_zero_are_counted():
    counted = LABELS >= 0
    loss, doutputs = cross_entropy(OUTPUTS, LABELS)
    alone, dalone = cross_entropy(OUTPUTS[counted], LABELS[counted])
    assert loss == alone and np.array_equal(doutputs[counted], dalone) and not doutputs[~counted].any()


def test_only_the_mask_is_counted():
    counted = LABELS >= 0
    loss, doutputs = mean_squared(OUTPUTS, TARGETS, counted)
    assert loss == pytest.approx(((OUTPUTS - TARGETS)[counted]**2).mean(), rel=1e-14)
    assert doutputs[counted].all() and not doutputs[~counted].any()


def test_what_is_not_counted_may_be_anything():
    outputs = np.where((LABELS >= 0)[..., None], OUTPUTS, np.nan)
    for loss in (lambda y: cross_entropy(y, LABELS), lambda y: mean_squared(y, TARGETS, LABELS >= 0)):
        (value, doutputs), (same, dsame) = loss(outputs), loss(OUTPUTS)
        assert value == same and np.array_equal(doutputs, dsame)


def test_nothing_counted_is_no_loss():
    for loss, doutputs in (cross_entropy(OUTPUTS, np.full((2, 3), -1)),
                           mean_squared(OUTPUTS, TARGETS, np.zeros((2, 3), bool))):
        assert loss == 0.0 and doutputs.shape == OUTPUTS.shape and not doutputs.any()


def test_steps_of_a_batch_are_rows():
    labels = np.abs(LABELS) % 4
    loss, doutputs = cross_entropy(OUTPUTS, labels)
    flat, dflat = cross_entropy(OUTPUTS.reshape(6, 4), labels.reshape(6))
    assert loss == flat and np.array_equal(doutputs.reshape(6, 4), dflat)


@pytest.mark.parametrize("call, error, message", [
    (lambda: cross_entropy(OUTPUTS, LABELS.astype(float)), TypeError, "labels must be integers"),
    (lambda: cross_entropy(OUTPUTS, LABELS[0]), ValueError, r"labels must have shape \(2, 3\)"),
    (lambda: cross_entropy(OUTPUTS, LABELS + 1), ValueError, "labels must be below the 4 classes of the outputs, got 4"),
    (lambda: mean_squared(OUTPUTS, TARGETS[0]), ValueError, r"targets must have shape \(2, 3, 4\)"),
    (lambda: mean_squared(OUTPUTS, TARGETS, LABELS), TypeError, "counted must be an array of bool"),
    (lambda: mean_squared(OUTPUTS, TARGETS, LABELS[0] >= 0), ValueError, r"counted must have shape \(2,\)"),
])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
