"""Layers of single steps: values against naive twins and PyTorch, gradients against central differences, same bits always."""

from functools import partial

import numba
import numpy as np
import pytest
import reference_training as reference

import pitsolve as ps
from pitsolve.sequences.pointwise import GLU, Dropout, EachStep, LayerNorm, Relu

# width 20 is not a whole number of vectors, 5 and 6 are less than one
LAYERS = {
    "norm": (LayerNorm(20), 20), "norm, one vector": (LayerNorm(5, eps=1e-3), 5), "relu": (Relu(), 5),
    "norm, not affine": (LayerNorm(20, affine=False), 20),
    "glu": (GLU(), 40), "glu, less than a vector": (GLU(), 6), "dropout": (Dropout(0.25), 5),
    "rows": (EachStep(ps.networks.Dense(5, 3)), 5),
    "nested": (EachStep(ps.networks.Sequence((("up", ps.networks.Dense(5, 12)), ("glu", GLU()), ("drop", Dropout(0.5))))), 5),
}
DIGITS = {np.float64: 1e-12, np.float32: 1e-5}


class Training:
    """What a training loop hands to layers; always the same seed here."""

    def __init__(self, seed=5):
        self.seed = seed

    def dropout_seed(self):
        return self.seed


def start(layer, width, dtype=np.float64, leading=(3, 101)):
    """Parameters away from the special values of a fresh layer, and a batch."""
    random = np.random.default_rng(5)
    p = {name: value + (0.5 * random.random(value.shape)).astype(dtype) for name, value in layer.init(random, dtype).items()}
    return p, (1.0 + 2.0 * random.standard_normal((*leading, width))).astype(dtype), random


@pytest.mark.parametrize("training", [Training(), False])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_agree_with_central_differences(name, training):
    layer, width = LAYERS[name]
    p, x, random = start(layer, width)
    y, saved = layer.forward(p, x, training)
    dy = random.standard_normal(y.shape)
    dx, grads = layer.backward(p, saved, dy)
    assert set(grads) == set(layer.shapes) and dx.shape == x.shape
    for key in ["x", *layer.shapes]:
        direction = random.standard_normal((x if key == "x" else p[key]).shape)

        def loss(step, key=key, direction=direction):
            moved = p if key == "x" else p | {key: p[key] + step * direction}
            return float((layer.forward(moved, x + step * direction if key == "x" else x, training)[0] * dy).sum())

        # fourth order; the kink of the rectifier is farther away than the steps
        differences = (8 * (loss(1e-5) - loss(-1e-5)) - (loss(2e-5) - loss(-2e-5))) / 12e-5
        assert (direction * (dx if key == "x" else grads[key])).sum() == pytest.approx(differences, rel=1e-8)


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("width", [1, 5, 20, 33])
def test_layer_norm_agrees_with_its_twin(width, dtype):
    layer = LayerNorm(width)
    p, x, _ = start(layer, width, dtype)
    y, _ = layer.forward(p, x, False)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, reference.layer_norm(x.astype(float), **p), rtol=DIGITS[dtype], atol=DIGITS[dtype])
    y, _ = LayerNorm(width, affine=False, eps=1e-2).forward({}, x, False)
    np.testing.assert_allclose(y, reference.layer_norm(x.astype(float), eps=1e-2), rtol=DIGITS[dtype], atol=DIGITS[dtype])


def test_layer_norm_keeps_its_digits_with_a_large_mean():
    x = (1e4 + np.random.default_rng(5).standard_normal((4, 20))).astype(np.float32)
    y, _ = LayerNorm(20, affine=False).forward({}, x, False)
    np.testing.assert_allclose(y, reference.layer_norm(x.astype(float)), atol=1e-3)  # one unit in the last place of x is 1e-3


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("width", [2, 6, 40, 66])
def test_glu_agrees_with_its_twin(width, dtype):
    _, x, _ = start(GLU(), width, dtype)
    y, _ = GLU().forward({}, x, False)
    assert y.dtype == dtype and y.shape == (3, 101, width // 2)
    np.testing.assert_allclose(y, reference.glu(x.astype(float)), rtol=DIGITS[dtype], atol=DIGITS[dtype])


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("name", ["norm", "norm, one vector", "norm, not affine", "glu", "glu, less than a vector", "relu"])
def test_values_and_gradients_are_those_of_torch(name, dtype):
    torch = pytest.importorskip("torch")
    layer, width = LAYERS[name]
    p, x, random = start(layer, width, dtype)
    y, saved = layer.forward(p, x, True)
    dy = random.standard_normal(y.shape).astype(dtype)
    dx, grads = layer.backward(p, saved, dy)
    functions = {LayerNorm: partial(torch.nn.functional.layer_norm, normalized_shape=(width,), eps=getattr(layer, "eps", None)),
                 GLU: torch.nn.functional.glu, Relu: torch.relu}
    theirs = {key: torch.tensor(value, requires_grad=True) for key, value in p.items()}
    x_peer = torch.tensor(x, requires_grad=True)
    peer = functions[type(layer)](x_peer, **theirs)
    peer.backward(torch.tensor(dy))
    digits = {"rtol": 10 * DIGITS[dtype], "atol": 10 * DIGITS[dtype]}
    np.testing.assert_allclose(y, peer.detach().numpy(), **digits)
    np.testing.assert_allclose(dx, x_peer.grad.numpy(), **digits)
    for key, value in theirs.items():
        np.testing.assert_allclose(grads[key], value.grad.numpy(), **digits)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread")
@pytest.mark.parametrize("name", ["norm", "relu", "glu", "dropout"])
def test_the_number_of_threads_changes_no_bit(name):
    layer, width = LAYERS[name]
    p, x, _ = start(layer, width, np.float32, (3, 3001))
    threads, results = numba.get_num_threads(), []
    for number in (1, 2):
        numba.set_num_threads(number)
        y, saved = layer.forward(p, x, Training())
        dy = np.sin(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
        dx, grads = layer.backward(p, saved, dy)
        results.append((y, dx, *grads.values()))
    numba.set_num_threads(threads)
    assert all(np.array_equal(one, two) for one, two in zip(*results, strict=True))


def test_the_rectifier_keeps_nan_and_has_no_slope_at_zero():
    x = np.array([[np.nan, -1.0, 0.0, 2.0]])
    y, saved = Relu().forward({}, x, False)
    np.testing.assert_array_equal(y, [[np.nan, 0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(Relu().backward({}, saved, np.ones_like(x))[0], [[1.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1, -3])
@pytest.mark.parametrize("dtype", DIGITS)
def test_the_mask_is_that_of_splitmix(seed, dtype):
    x = start(Relu(), 7, dtype, (2, 3001))[1]
    y, _ = Dropout(0.3).forward({}, x, Training(seed))
    np.testing.assert_allclose(y, reference.dropout(x, 0.3, seed), rtol=1e-6)


def test_the_twin_of_splitmix_has_the_published_numbers():
    """The stream of seed 1234567, as implementations in other languages print it."""
    assert reference.splitmix(1234567, 5) == [6457827717110365317, 3203168211198807973, 9817491932198370423,
                                              4593380528125082431, 16408922859458223821]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_preserves_the_mean(rate):
    x = np.ones((4, 50000, 5), np.float32)
    y, _ = Dropout(rate).forward({}, x, Training(11))
    assert set(np.unique(y)) <= {np.float32(0), np.float32(1 / (1 - rate))}
    deviation = np.sqrt(rate / (1 - rate) / x.size)
    assert abs(y.mean(dtype=float) - 1) < 5 * deviation + 1e-6
    blocks = y.reshape(4, 50, 1000, 5)
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1, 2)):  # no sample, no time and no feature is dropped more than another
        means = blocks.mean(axis=axes, dtype=float)
        assert abs(means - 1).max() < 5 * deviation * np.sqrt(means.size) + 1e-6


def test_other_seeds_have_other_masks():
    x, masks = np.ones((1, 200000)), []
    for seed in (5, 6, 5 + 2**40):
        masks.append(Dropout(0.5).forward({}, x, Training(seed))[0] > 0)
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert abs((masks[one] == masks[two]).mean() - 0.5) < 0.01
    assert np.array_equal(masks[0], Dropout(0.5).forward({}, x, Training(5))[0] > 0)


def test_the_gradient_of_dropout_has_the_mask_of_its_forward():
    x = start(Relu(), 5, np.float32)[1]
    y, saved = Dropout(0.5).forward({}, x, Training(2**63 + 7))
    dx, _ = Dropout(0.5).backward({}, saved, x)
    assert np.array_equal(dx, y) and 0 < np.count_nonzero(y) < y.size


def test_dropout_outside_of_training_is_the_identity():
    x = np.ones((2, 3, 5))
    y, saved = Dropout(0.5).forward({}, x, False)
    assert np.array_equal(y, x) and np.array_equal(Dropout(0.5).backward({}, saved, x)[0], x)


@pytest.mark.parametrize("leading", [(), (1,), (2, 3, 4), (300, 2)])
@pytest.mark.parametrize("name", LAYERS)
def test_any_leading_axes_are_rows(name, leading):
    layer, width = LAYERS[name]
    p, x, _ = start(layer, width, np.float64, leading)
    y, saved = layer.forward(p, x, Training())
    rows, saved_rows = layer.forward(p, x.reshape(-1, width), Training())
    assert y.shape == layer.output_shape(x.shape) and layer.keeps_shape == (y.shape == x.shape)
    assert np.array_equal(y.reshape(rows.shape), rows)
    dx, _ = layer.backward(p, saved, np.ones_like(y))
    assert np.array_equal(dx.reshape(-1, width), layer.backward(p, saved_rows, np.ones_like(rows))[0])
    assert np.array_equal(layer.infer(p, x), layer.forward(p, x, False)[0])


def test_arrays_may_be_strided_and_read_only():
    layer, width = LAYERS["norm"]
    p, x, _ = start(layer, width)
    expected, saved = layer.forward(p, np.ascontiguousarray(x[:, ::2]), True)
    x.flags.writeable = False
    y, same = layer.forward(p, x[:, ::2], True)
    dy = np.asfortranarray(expected)
    assert np.array_equal(y, expected) and np.array_equal(layer.backward(p, same, dy)[0], layer.backward(p, saved, expected)[0])


def test_each_step_has_the_parameters_of_its_layer():
    dense = ps.networks.Dense(5, 3)
    assert EachStep(dense).shapes == dense.shapes
    assert all(np.array_equal(value, dense.init(7)[name]) for name, value in EachStep(dense).init(7).items())


X = np.ones((2, 3, 5))


@pytest.mark.parametrize("call, error, message", [
    (lambda: LayerNorm(0), ValueError, "width must be at least 1"),
    (lambda: LayerNorm(5, eps=0.0), ValueError, "eps must be positive"),
    (lambda: Dropout(1.0), ValueError, "rate must be below 1"),
    (lambda: EachStep(5), TypeError, "layer must be a layer, got int"),
    (lambda: Dropout(0.5).forward({}, X, True), TypeError, r"training must be an object with a method dropout_seed\(\) -> int"),
    (lambda: LayerNorm(4).forward(LayerNorm(4).init(5), X, True), ValueError, r"of shape \(\.\.\., 4\), got \(2, 3, 5\)"),
    (lambda: LayerNorm(5).forward(LayerNorm(5).init(5), X, True), TypeError, "mixes float32 and float64"),
    (lambda: LayerNorm(5).forward({}, X, True), ValueError, "'weight' is missing"),
    (lambda: LayerNorm(5).output_shape((3, 4)), ValueError, r"\(\.\.\., 5\), got \(3, 4\)"),
    (lambda: GLU().forward({}, X, True), ValueError, "an even number of features"),
    (lambda: Relu().forward({}, X.astype(int), True), TypeError, "x must be an array of float32 or float64"),
    (lambda: Relu().forward({}, [1.0], True), TypeError, "x must be an array of float32 or float64"),
    (lambda: Relu().forward({}, X[:, :0], True), ValueError, "x must"),
    (lambda: Relu().backward({}, X, X[0]), ValueError, r"dy must have shape \(2, 3, 5\)"),
    (lambda: GLU().backward({}, X[..., :4], X[..., :2].astype(np.float32)), TypeError, "dy must be an array of float64"),
])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
