"""Residual networks on images, whole and torn: shapes, gradients, zero-preserving coarse networks, threads, a few steps."""

import numba
import numpy as np
import pytest

import pitsolve as ps
from pitsolve.networks import crop_and_flip, fit, loss_and_gradient, parareal, resnet


def small(subnetworks=3):
    """Two units a stage, with 8, 16 and 32 channels."""
    return parareal(resnet(20, classes=3, width=2), subnetworks, coarse_blocks=1)


def batch(dtype=np.float64, count=4, seed=5):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 8, 8, 3)).astype(dtype), random.integers(0, 3, count)


@pytest.mark.parametrize("depth", [11, 110, 1001])
def test_shapes_of_the_paper(depth):
    """9 k + 2 layers with weights; states 32 x 32 x 64, 16 x 16 x 128, 8 x 8 x 256; every way of tearing fits together."""
    net = resnet(depth)
    shape = net.pre.output_shape((32, 32, 3))
    shapes = []
    for block in net.blocks:
        shape = block.output_shape(shape)
        shapes.append(shape)
    units = (depth - 2) // 9
    assert shapes == [(32, 32, 64)] * units + [(16, 16, 128)] * units + [(8, 8, 256)] * units
    for subnetworks in (2, 3, 6, 7, 12, 18, 24):
        if subnetworks <= len(net.blocks):
            assert parareal(net, subnetworks).output_shape((32, 32, 3)) == (10,)


def test_surrogates_are_strided_1_x_1_convolutions():
    surrogates = parareal(resnet(29), 9).starts[1:]
    assert [(layer.size, layer.stride, layer.outputs) for layer in surrogates] == [
        (1, 1, 64), (1, 1, 64), (1, 1, 64), (1, 2, 128), (1, 2, 128), (1, 2, 128), (1, 4, 256), (1, 4, 256)]


@pytest.mark.parametrize("depth", [10, 2, 1000])
def test_depths_that_do_not_exist(depth):
    with pytest.raises(ValueError, match="depth must be 9 k"):
        resnet(depth)


def test_gradients_against_central_differences():
    """The largest entry of the gradient of some arrays of every kind of part."""
    net, (x, y) = small(), batch()
    params = net.init(5, np.float64)
    _, grads, _ = loss_and_gradient(net, params, x, y)
    assert sorted(grads) == sorted(net.shapes)
    for name in ("pre.weight", "pre2.weight", "0.conv2.weight", "2.shortcut.weight", "5.norm1.scale", "coarse1.2.conv3.weight",
                 "coarse2.4.norm1.scale", "post.norm.shift", "post.dense.weight"):
        index = np.unravel_index(np.argmax(abs(grads[name])), grads[name].shape)
        values = []
        for step in (1e-6, -1e-6):
            moved = params[name].copy()
            moved[index] += step
            values.append(ps.networks.cross_entropy(net.forward(params | {name: moved}, x, True)[0], y)[0])
        np.testing.assert_allclose(grads[name][index], (values[0] - values[1]) / 2e-6, rtol=1e-5, err_msg=name)


def test_coarse_networks_take_zero_to_zero():
    net = small()
    params = net.init(5, np.float64)
    for j, (correction, end) in enumerate(zip(net.corrections, ((8, 8, 8), (4, 4, 16)))):
        prefix, zero = f"coarse{j + 1}.", np.zeros((2, *end))
        own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
        assert not correction.forward(own, zero, True)[0].any() and not correction.infer(own, zero).any()


def test_same_bits_at_once_and_recomputed():
    net, (x, y) = small(), batch()
    params = net.init(5, np.float64)
    loss, grads, _ = loss_and_gradient(net, params, x, y, workers=1)
    for options in ({"workers": 2}, {"workers": 3}, {"recompute": True}):
        again, others, _ = loss_and_gradient(net, params, x, y, **options)
        assert again == loss and all(np.array_equal(grads[name], others[name]) for name in grads)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    again, others, _ = loss_and_gradient(net, params, x, y)
    numba.set_num_threads(threads)
    assert again == loss and all(np.array_equal(grads[name], others[name]) for name in grads)


def test_training_on_images():
    """A handful of images by heart, with running statistics good enough to show it."""
    net, (x, y) = small(2), batch(count=8)
    sgd, params = ps.training.SGD(0.05, 0.9, 1e-4), net.init(5, np.float64)
    run = fit(net, params, (x, y), optimizer=sgd, epochs=60, seed=5, validation=(x, y))
    assert run.history["loss"][-1] < 0.05 and run.history["validation_error"][-1] == 0
    augmented = fit(net, run.params, (x, y), optimizer=ps.training.SGD(0.01), epochs=1, seed=5, augment=crop_and_flip)
    assert augmented.history["loss"][0] > run.history["loss"][-1]
