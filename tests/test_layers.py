"""Layers on images: values against naive twins, SciPy and PyTorch, gradients against central differences."""

from pathlib import Path

import numba
import numpy as np
import pytest
import reference_networks as reference
from scipy.signal import correlate

import pitsolve as ps
from pitsolve.networks import Activation, BatchNorm, Bottleneck, Convolution, Dense, GlobalAveragePooling, Sequence

TORCH = Path(__file__).parent / "data" / "bottleneck_torch.npz"
LAYERS = {
    "convolution 3": (Convolution(5, 3), (2, 5, 7, 5)),
    "convolution 1, stride": (Convolution(5, 12, 1, 2), (2, 5, 7, 5)),
    "convolution 5, stride": (Convolution(5, 3, 5, 3), (1, 5, 8, 5)),
    "norm": (BatchNorm(5), (3, 5, 2, 5)),
    "norm, not centred": (BatchNorm(5, centred=False), (3, 5, 2, 5)),
    "pooling": (GlobalAveragePooling(), (2, 3, 4, 5)),
    "unit": (Bottleneck(12, 3), (3, 5, 8, 12)),
    "unit, stride": (Bottleneck(5, 3, 2), (3, 5, 6, 5)),
    "unit, one sample": (Bottleneck(12, 3), (1, 3, 3, 12)),
    "unit, not centred": (Bottleneck(12, 3, 2, centred=False), (2, 5, 4, 12)),
    "network": (Sequence((("conv", Convolution(5, 3)), ("norm", BatchNorm(3)), ("relu", Activation("relu")),
                          ("pool", GlobalAveragePooling()), ("dense", Dense(3, 4)))), (2, 5, 4, 5)),
}


def start(layer, shape, dtype=np.float64):
    """Parameters away from the special values of a fresh layer, and a batch."""
    random = np.random.default_rng(5)
    p = layer.init(random, dtype)
    p = {name: value + (0.5 * random.random(value.shape)).astype(dtype) for name, value in p.items()}
    return p, (1.0 + 2.0 * random.standard_normal(shape)).astype(dtype), random


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_agree_with_central_differences(name, training):
    layer, shape = LAYERS[name]
    p, x, random = start(layer, shape)
    y, saved = layer.forward(p, x, training)
    dy = random.standard_normal(y.shape)
    dx, grads = layer.backward(p, saved, dy)
    assert set(grads) == set(layer.shapes)
    for key in ["x", *(key for key in layer.shapes if key not in layer.statistics)]:
        direction = random.standard_normal((x if key == "x" else p[key]).shape)

        def loss(step, key=key, direction=direction):
            moved = p if key == "x" else p | {key: p[key] + step * direction}
            return float((layer.forward(moved, x + step * direction if key == "x" else x, training)[0] * dy).sum())

        differences = (loss(1e-6) - loss(-1e-6)) / 2e-6
        assert (direction * (dx if key == "x" else grads[key])).sum() == pytest.approx(differences, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("size, stride, shape", [(1, 1, (2, 5, 7, 5)), (3, 1, (2, 5, 7, 5)), (3, 2, (1, 6, 5, 5)),
                                                  (5, 3, (2, 4, 9, 5)), (3, 2, (2, 1, 1, 5))])
def test_convolution_is_a_correlation(size, stride, shape):
    layer = Convolution(5, 3, size, stride)
    p, x, _ = start(layer, shape)
    y, _ = layer.forward(p, x, training=True)
    for b in range(shape[0]):
        for k in range(3):
            padded = np.pad(x[b], ((size // 2, size // 2), (size // 2, size // 2), (0, 0)))
            expected = correlate(padded, p["weight"][:, :, :, k], mode="valid")[::stride, ::stride, 0]
            np.testing.assert_allclose(y[b, :, :, k], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y, reference.convolution(x, p["weight"], stride), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_agrees_with_its_twin(training, centred):
    layer = BatchNorm(5, centred)
    p, x, _ = start(layer, (3, 5, 2, 5))
    y, saved = layer.forward(p, x, training)
    np.testing.assert_allclose(y, reference.batch_norm(x, p, training, centred), rtol=1e-12, atol=1e-12)
    grads = layer.backward(p, saved, np.ones_like(y))[1]
    if not training:
        expected = {name: p[name] for name in layer.statistics}
    elif centred:
        expected = {"running_mean": x.mean(axis=(0, 1, 2)), "running_var": x.var(axis=(0, 1, 2), ddof=1)}
    else:
        expected = {"running_var": (x**2).mean(axis=(0, 1, 2))}
    for name, value in expected.items():
        np.testing.assert_allclose(grads[name], value, rtol=1e-12)


@pytest.mark.parametrize("value", [1.1, 1.1e4, 1.1e8])
def test_a_channel_without_variance_stays_finite(value):
    layer, x = BatchNorm(3), np.full((2, 31, 33, 3), value, np.float32)
    y, saved = layer.forward(layer.init(seed=5), x, training=True)
    dx, grads = layer.backward(layer.init(seed=5), saved, np.ones_like(y))
    assert (saved[1].variance >= 0).all()
    assert np.isfinite(y).all() and np.isfinite(dx).all() and (grads["running_var"] >= 0).all()


def test_variance_survives_a_large_mean():
    layer = BatchNorm(5)
    p, x, random = start(layer, (4, 8, 8, 5), np.float32)
    x = (3000.0 + random.standard_normal(x.shape)).astype(np.float32)
    x[0, 0, 0] = 0.0  # nor does it help to subtract the first pixel
    grads = layer.backward(p, layer.forward(p, x, training=True)[1], x)[1]
    np.testing.assert_allclose(grads["running_var"], x.astype(np.float64).var(axis=(0, 1, 2), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["unit", "unit, stride", "unit, one sample", "unit, not centred"])
def test_unit_agrees_with_its_twin(name, training):
    layer, shape = LAYERS[name]
    p, x, _ = start(layer, shape)
    y, _ = layer.forward(p, x, training)
    assert y.shape[1:] == layer.output_shape(shape[1:])
    np.testing.assert_allclose(y, reference.bottleneck(x, p, layer.stride, training, layer.centred), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_agrees_with_torch(dtype):
    with np.load(TORCH) as archive:
        stored = {name: archive[name].astype(dtype) for name in archive.files}
    layer = Bottleneck(32, 8)
    p = {name: stored[f"p.{name}"] for name in layer.shapes}
    y, saved = layer.forward(p, stored["x"], training=True)
    dx, grads = layer.backward(p, saved, stored["dy"])
    found = {"y": y, "dx": dx}
    for name, value in grads.items():
        if name in layer.statistics:
            p[name] = found[f"updated.{name}"] = (0.9 * p[name] + 0.1 * value).astype(dtype)
        else:
            found[f"grads.{name}"] = value
    found["y_inference"] = layer.forward(p, stored["x"], training=False)[0]
    assert set(found) == {name for name in stored if not name.startswith("p.")} - {"x", "dy"}
    for name, value in found.items():
        assert value.dtype == dtype
        np.testing.assert_allclose(value, stored[name], rtol=1e-6, atol=2e-6 * abs(stored[name]).max(), err_msg=name)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="one thread")
def test_bits_do_not_depend_on_threads():
    layer, shape = Bottleneck(12, 3), (21, 5, 8, 12)  # more samples than parts of a gradient
    p, x, _ = start(layer, shape)
    threads, results = numba.get_num_threads(), []
    for number in (1, 2):
        numba.set_num_threads(number)
        y, saved = layer.forward(p, x, training=True)
        dx, grads = layer.backward(p, saved, x)
        results.append({"y": y, "dx": dx, **grads})
    numba.set_num_threads(threads)
    for name, value in results[0].items():
        assert (value == results[1][name]).all(), name


def test_samples_do_not_mix_after_training():
    layer, shape = LAYERS["unit, stride"]
    p, x, _ = start(layer, shape)
    y, _ = layer.forward(p, x, training=False)
    assert (layer.forward(p, x[1:2], training=False)[0] == y[1:2]).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["convolution 3", "norm", "pooling", "unit", "unit, stride"])
def test_zero_preserving_twins_take_zero_to_zero(name, training):
    layer, shape = LAYERS[name]
    twin = layer.zero_preserving()
    p, x, _ = start(twin, shape)
    assert twin.output_shape(shape[1:]) == layer.output_shape(shape[1:])
    assert not twin.forward(p, np.zeros_like(x), training)[0].any()


def test_nan_is_not_rectified_away():
    layer, shape = LAYERS["unit"]
    p, x, _ = start(layer, shape)
    x[1, 2, 3, 4] = np.nan
    assert np.isnan(layer.forward(p, x, training=False)[0][1, 2, 3]).all()


def test_weights_begin_with_the_variance_of_he():
    weight = Convolution(64, 64).init(seed=5, dtype=np.float64)["weight"]
    assert weight.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert (weight == Convolution(64, 64).init(seed=5, dtype=np.float64)["weight"]).all()


X = np.ones((2, 4, 4, 12))


@pytest.mark.parametrize("layer, x, error, message", [
    (Convolution(12, 3), X[0], ValueError, r"x must have shape \(B, H, W, 12\)"),
    (Convolution(12, 3), X[..., :5], ValueError, r"x must have shape \(B, H, W, 12\)"),
    (Convolution(12, 3), X[:0], ValueError, "must not be empty"),
    (Convolution(12, 3), X.astype(np.float32), TypeError, "mixes float32 and float64"),
    (Convolution(12, 3), X.astype(int), TypeError, "float32 or float64"),
    (Convolution(12, 3), X.tolist(), TypeError, "got list"),
    (BatchNorm(5), X, ValueError, r"x must have shape \(B, H, W, 5\)"),
    (BatchNorm(12), X[:1, :1, :1], ValueError, "more than one value per channel"),
    (Bottleneck(5, 3), X, ValueError, r"x must have shape \(B, H, W, 5\)"),
    (Bottleneck(12, 3), X[:1, :1, :1], ValueError, "more than one value per channel"),
    (GlobalAveragePooling(), X[0], ValueError, r"x must have shape \(B, H, W, C\)"),
    (Dense(4, 3), X[0, 0, :, :5], ValueError, r"x must have shape \(B, 4\)"),
    (Dense(4, 3), X[0, 0, :, :3], ValueError, r"x must have shape \(B, 4\)"),
    (Dense(4, 3), X[0, 0, 0, :4], ValueError, r"x must have shape \(B, 4\)"),
    (Dense(4, 3), X[0, 0, :, :4].astype(np.float32), TypeError, "mixes float32 and float64"),
])
def test_inputs_that_do_not_fit_are_refused(layer, x, error, message):
    with pytest.raises(error, match=message):
        layer.forward(layer.init(seed=5, dtype=np.float64), x, training=True)


def test_parameters_and_gradients_that_do_not_fit_are_refused():
    layer = Bottleneck(12, 3)
    p = layer.init(seed=5, dtype=np.float64)
    with pytest.raises(ValueError, match=r"'conv2.weight' is missing"):
        layer.forward({name: value for name, value in p.items() if name != "conv2.weight"}, X, training=True)
    with pytest.raises(ValueError, match=r"params\['conv1.weight'\] must have shape \(1, 1, 12, 3\)"):
        layer.forward(p | {"conv1.weight": p["conv1.weight"][0]}, X, training=True)
    _, saved = layer.forward(p, X, training=True)
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 4, 4, 12\)"):
        layer.backward(p, saved, X[:1])
    with pytest.raises(TypeError, match="dy must be an array of float64"):
        layer.backward(p, saved, X.astype(np.float32))
    dense, x = Dense(4, 3), X[0, 0, :, :4]
    p = dense.init(seed=5, dtype=np.float64)
    with pytest.raises(ValueError, match=r"dy must have shape \(4, 3\)"):
        dense.backward(p, dense.forward(p, x, training=True)[1], x)


@pytest.mark.parametrize("make, message", [
    (lambda: Convolution(0, 3), "inputs"), (lambda: Convolution(3, 3, size=2), "size must be odd"),
    (lambda: Bottleneck(12, 3, stride=0), "stride"), (lambda: BatchNorm(0), "channels"),
    (lambda: Dense(0, 3), "inputs"), (lambda: Dense(3, -1), "outputs"),
    (lambda: ps.networks.Unrolled(ps.cells.GRU(2, 3), first=-1, steps=2), "first"),
    (lambda: ps.networks.Unrolled(ps.cells.GRU(2, 3), first=0, steps=0), "steps"),
    (lambda: Sequence((("a", Dense(3, 4)), ("a", Dense(4, 3)))).init(seed=5), "two parts have a parameter 'a.weight'"),
    (lambda: Sequence((("a", 5),)).init(seed=5), "part 'a' must be a layer, got int"),
    (lambda: Convolution(3, 4).output_shape((8, 8, 5)), r"\(H, W, 3\)"),
    (lambda: ps.networks.Bottleneck(12, 3).output_shape((12,)), r"\(H, W, 12\)"),
])
def test_descriptions_that_make_no_sense_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
