"""Parareal networks: Proposition 1, what tearing keeps, gradients, and the same bits however many subnetworks run at once."""

from itertools import pairwise

import numpy as np
import pytest

import pitsolve as ps
from pitsolve.networks import Chain, Dense, cross_entropy, loss_and_gradient, mean_squared, parareal, recurrent, residual_mlp

BLOCKS, WIDTH = 12, 5


def chain(activation="tanh", bias=True, blocks=BLOCKS):
    """A residual perceptron for inputs of 3 and outputs of 4 numbers."""
    return Chain(Dense(3, WIDTH), (residual_mlp(WIDTH, 7, activation=activation, bias=bias),) * blocks, Dense(WIDTH, 4))


def batch(seed=5, size=6, dtype=np.float64):
    random = np.random.default_rng(seed)
    return random.standard_normal((size, 3)).astype(dtype), random.integers(0, 4, size)


def exact_coarse(net, params):
    """The parameters of a torn network in which every coarse block has the parameters of its fine one."""
    def twin(name):
        return params[name.split(".", 1)[1]] if name.startswith("coarse") else params[name]

    return {name: twin(name) for name in net.shapes}


def naive(params, x, blocks=BLOCKS):
    """h o g o C in plain NumPy."""
    h = x @ params["pre.weight"] + params["pre.bias"]
    for k in range(blocks):
        up, down = (params[f"{k}.{name}.weight"] for name in ("up", "down"))
        h = h + np.tanh(h @ up + params[f"{k}.up.bias"]) @ down + params[f"{k}.down.bias"]
    return h @ params["post.weight"] + params["post.bias"]


def outputs(net, params, x):
    return net.forward(params, x, training=True)[0]


def test_a_chain_is_its_parts_one_after_the_other():
    net, (x, _) = chain(), batch()
    params = net.init(5, np.float64)
    np.testing.assert_allclose(outputs(net, params, x), naive(params, x), rtol=1e-13)


@pytest.mark.parametrize("subnetworks", [2, 3, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_proposition_1(subnetworks, bias):
    """Linear or affine blocks, coarse networks with the linear part of the fine ones: the torn network is the original."""
    whole, (x, _) = chain("identity", bias), batch()
    torn = parareal(whole, subnetworks, coarse_blocks=BLOCKS)
    params = exact_coarse(torn, torn.init(5, np.float64))
    expected = outputs(whole, {name: params[name] for name in whole.shapes}, x)
    np.testing.assert_allclose(outputs(torn, params, x), expected, rtol=0, atol=1e-13 * abs(expected).max())


@pytest.mark.parametrize("subnetworks", [2, 3, 6])
def test_biased_coarse_networks_break_proposition_1(subnetworks):
    whole, (x, _) = chain("identity"), batch()
    edges = [BLOCKS * j // subnetworks for j in range(subnetworks + 1)]
    coarse = tuple(ps.networks.Sequence(tuple((str(k), whole.blocks[k]) for k in range(first, last)))
                   for first, last in pairwise(edges[1:]))
    torn = parareal(whole, subnetworks, coarse=coarse)
    params = exact_coarse(torn, torn.init(5, np.float64))
    expected = outputs(whole, {name: params[name] for name in whole.shapes}, x)
    assert abs(outputs(torn, params, x) - expected).max() > 1e-2


def test_a_recurrent_network_of_a_linear_cell_is_torn_without_loss():
    """The inputs belong to the signal, so the coarse networks see none and have no bias: the linear part of an affine map."""
    whole = recurrent(ps.cells.Linear(2, 3), steps=12, blocks=6, outputs=2)
    torn = parareal(whole, 3, coarse_blocks=2)
    params, x = exact_coarse(torn, torn.init(5, np.float64)), np.random.default_rng(5).standard_normal((4, 12, 2))
    expected = outputs(whole, {name: params[name] for name in whole.shapes}, x)
    np.testing.assert_allclose(outputs(torn, params, x), expected, rtol=0, atol=1e-13 * abs(expected).max())


def test_a_recurrent_network_is_the_loop():
    cell = ps.cells.GRU(2, 3)
    net, one = recurrent(cell, steps=10, blocks=4, outputs=2), cell.init(5)
    params = net.init(5, np.float64) | {f"{k}.{name}": value for k in range(4) for name, value in one.items()}
    x = np.random.default_rng(5).standard_normal((4, 10, 2))
    last = ps.solve(cell, one, x, method="sequential").states[:, -1]
    expected = last @ params["post.dense.weight"] + params["post.dense.bias"]
    np.testing.assert_allclose(outputs(net, params, x), expected, rtol=1e-13)


def test_no_jump_no_correction():
    """With surrogates that give the true states, zero-preserving coarse networks of any parameters change nothing."""
    whole = Chain(Dense(3, WIDTH), (residual_mlp(WIDTH, 7, activation="tanh"),) * 2, Dense(WIDTH, 4))
    first = ps.networks.Sequence((("pre", whole.pre), ("block", whole.blocks[0])))
    torn = parareal(whole, 2, surrogates=(first,))
    params, (x, _) = torn.init(5, np.float64), batch()
    params |= {f"pre2.pre.{name}": params[f"pre.{name}"] for name in whole.pre.shapes}
    params |= {f"pre2.block.{name}": params[f"0.{name}"] for name in whole.blocks[0].shapes}
    assert np.array_equal(outputs(torn, params, x), outputs(whole, {name: params[name] for name in whole.shapes}, x))


def test_one_subnetwork_is_the_original():
    whole, (x, y) = chain(), batch()
    torn, params = parareal(whole, 1), whole.init(5, np.float64)
    assert torn.shapes == whole.shapes
    loss, grads, timings = loss_and_gradient(torn, params, x, y)
    same_loss, same_grads, _ = loss_and_gradient(whole, params, x, y)
    assert loss == same_loss == cross_entropy(outputs(torn, params, x), y)[0]
    assert all(np.array_equal(grads[name], same_grads[name]) for name in whole.shapes)
    assert len(timings.subnetworks) == 1


def test_the_chain_is_initialised_alike_whole_and_torn():
    whole = chain()
    params, torn = whole.init(5), parareal(whole, 4).init(5)
    assert np.array_equal(params["pre.weight"], torn["pre.weight"])


def test_default_sizes():
    """N_c = ceil(12 / N), and subnetworks that differ by one block at most."""
    whole = chain(blocks=40)
    for subnetworks in (2, 3, 6, 12, 18, 24):
        torn = parareal(whole, subnetworks)
        sizes = np.diff(torn.bounds)
        assert sizes.max() == -(-40 // subnetworks) and sizes.max() - sizes.min() <= 1
        expected = [min(-(-12 // subnetworks), size) for size in sizes[1:]]
        assert [len(layer.parts) for layer in torn.corrections] == expected
        assert not [name for name in torn.shapes if name.startswith("coarse") and name.endswith("bias")]


def central(function, array, index, h=1e-6):
    """Central difference of a scalar function by one entry of an array, which is put back."""
    kept, values = array[index], []
    for sign in (1, -1):
        array[index] = kept + sign * h
        values.append(function())
    array[index] = kept
    return (values[0] - values[1]) / (2 * h)


@pytest.mark.parametrize("make", [
    lambda: (parareal(chain(), 3, coarse_blocks=2), (3,)),
    lambda: (parareal(recurrent(ps.cells.GRU(3, 4), 8, 4, 4), 2, coarse_blocks=1), (8, 3)),
], ids=["perceptron", "recurrent"])
def test_gradients_against_central_differences(make):
    """Every parameter array in a random direction of one entry each, and the inputs."""
    net, shape = make()
    random = np.random.default_rng(7)
    params = {name: value + 0.1 * random.standard_normal(value.shape) for name, value in net.init(5, np.float64).items()}
    x, y = random.standard_normal((3, *shape)), random.integers(0, 4, 3)

    def loss():
        return cross_entropy(outputs(net, params, x), y)[0]

    _, grads, _ = loss_and_gradient(net, params, x, y)
    assert sorted(grads) == sorted(net.shapes)
    out, saved = net.forward(params, x, training=True)
    dx, _ = net.backward(params, saved, cross_entropy(out, y)[1])
    for array, gradient in [(x, dx)] + [(params[name], grads[name]) for name in net.shapes]:
        for index in {np.unravel_index(np.argmax(abs(gradient)), array.shape), tuple(np.subtract(array.shape, 1))}:
            np.testing.assert_allclose(gradient[index], central(loss, array, index), rtol=1e-6, atol=1e-9)


def test_same_bits_one_after_the_other_and_at_once():
    for net, shape in ((parareal(chain(), 6), (3,)), (parareal(recurrent(ps.cells.GRU(3, 4), 8, 4, 4), 4), (8, 3))):
        params, x = net.init(5, np.float64), np.random.default_rng(5).standard_normal((6, *shape))
        y = np.arange(6) % 4
        loss, grads, _ = loss_and_gradient(net, params, x, y, workers=1)
        for workers in (2, 3, None):
            again, others, timings = loss_and_gradient(net, params, x, y, workers=workers)
            assert again == loss and all(np.array_equal(grads[name], others[name]) for name in grads)
            assert timings.parallel == max(timings.subnetworks) > 0 and timings.total >= timings.parallel + timings.coarse


def test_same_bits_recomputed_and_stored():
    net, (x, y) = parareal(chain(), 3), batch(dtype=np.float32)
    params = net.init(5)
    loss, grads, _ = loss_and_gradient(net, params, x, y)
    for recompute in (True, 3, 100):
        again, others, _ = loss_and_gradient(net, params, x, y, recompute=recompute)
        assert again == loss and all(np.array_equal(grads[name], others[name]) for name in grads)


def test_recomputation_keeps_inputs_only():
    net, (x, _) = parareal(chain(), 3), batch()
    clock = ps.networks.timings.Clock()
    _, (fine, _, _) = net.run(net.init(5, np.float64), x, True, 2, 1, clock)
    for _, kept in fine:
        assert [value.shape for value, _ in kept] == [(6, WIDTH)] * 2


def test_targets_may_have_another_dtype():
    net, (x, _) = chain(blocks=2), batch(dtype=np.float32)
    params, targets = net.init(5), np.random.default_rng(5).standard_normal((6, 4))
    loss, grads, _ = loss_and_gradient(net, params, x, targets, loss=mean_squared)
    same, _, _ = loss_and_gradient(net, params, x, targets.astype(np.float32), loss=mean_squared)
    assert loss == same and {value.dtype for value in grads.values()} == {np.dtype(np.float32)}


def test_views_and_readonly_arrays_give_the_same_bits():
    net, (x, y) = chain(blocks=2), batch()
    params = net.init(5, np.float64)
    loss, grads, _ = loss_and_gradient(net, params, x, y)
    readonly = {name: value.copy() for name, value in params.items()}
    for array in (views := [np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x.copy()]) + list(readonly.values()):
        array.flags.writeable = False
    for view in views:
        again, others, _ = loss_and_gradient(net, readonly, view, y, workers=9)
        assert again == loss and all(np.array_equal(grads[name], others[name]) for name in grads)


def test_a_batch_of_one():
    net, (x, y) = parareal(chain(), 3), batch()
    params = net.init(5, np.float64)
    parts = [loss_and_gradient(net, params, x[b:b + 1], y[b:b + 1]) for b in range(6)]
    loss, grads, _ = loss_and_gradient(net, params, x, y)
    np.testing.assert_allclose(loss, np.mean([part[0] for part in parts]), rtol=1e-13)
    for name, value in grads.items():
        np.testing.assert_allclose(value, np.mean([part[1][name] for part in parts], axis=0), rtol=1e-9, atol=1e-13)


def test_messages_about_deep_networks_are_short():
    net = ps.networks.resnet(1001)
    with pytest.raises(ValueError, match="is missing") as caught:
        ps.networks.evaluate(net, {}, (np.zeros((1, 32, 32, 3), np.float32), np.zeros(1, int)))
    assert len(str(caught.value)) < 300


def test_cross_entropy_does_not_overflow():
    loss, doutputs = cross_entropy(np.array([[1e30, 0.0], [0.0, -1e30]]), np.array([0, 0]))
    assert loss == 0.0 and not doutputs.any()


def test_losses_against_central_differences():
    random = np.random.default_rng(5)
    out, labels, targets = random.standard_normal((3, 4)), np.array([1, 0, 3]), random.standard_normal((3, 4))
    for loss, y in ((cross_entropy, labels), (mean_squared, targets)):
        expected = [central(lambda loss=loss, y=y: loss(out, y)[0], out, index) for index in np.ndindex(out.shape)]
        np.testing.assert_allclose(loss(out, y)[1].ravel(), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(cross_entropy(out, labels)[0],
                               -np.log(np.exp(out) / np.exp(out).sum(1, keepdims=True))[range(3), labels].mean())


def test_timings_print_the_columns_of_the_paper():
    timings = ps.networks.Timings(0.25, (1.5, 1.0), 0.5, 0.125, 9.0)
    assert timings.parallel == 1.5 and timings.total == 2.375
    assert "parallel subnetworks" in repr(timings) and "2.3750" in repr(timings)


@pytest.mark.parametrize("change, message", [
    ({"x": np.zeros((6, 4))}, r"x of shape \(6, 4\) does not fit"),
    ({"x": np.zeros((6, 3), np.float32)}, "dtype of the parameters"),
    ({"x": np.full((6, 3), np.nan)}, "x must be finite"),
    ({"y": np.zeros(5, int)}, "one entry for each of the 6 samples"),
    ({"y": np.full(6, 4)}, "labels from 0 to 3, got 4 at index 0"),
    ({"y": np.zeros(6)}, "labels, integers"),
    ({"y": np.full((6, 4), np.inf), "loss": mean_squared}, "y must be finite"),
    ({"y": np.zeros(6), "loss": mean_squared}, r"targets must have shape \(6, 4\)"),
    ({"loss": lambda outputs, y: (0.0, outputs[:3])}, r"doutputs like the outputs, .* got an array .* \(3, 4\)"),
    ({"loss": lambda outputs, y: (0.0, outputs.astype(np.float32))}, "doutputs like the outputs, .* got .* float32"),
    ({"loss": "mse"}, "loss must be a function"),
    ({"params": {}}, "is missing"),
    ({"net": Chain(Dense(3, 5), (ps.networks.Activation("tanh"),) * 30, Dense(5, 4))}, "params has an unknown entry"),
    ({"net": Chain(ps.networks.Activation("tanh"), (ps.networks.Activation("tanh"),), ps.networks.Activation("tanh"))},
     "net has no parameters"),
    ({"net": Dense(3, 4)}, "net must be a Chain"),
    ({"recompute": 0}, "recompute must be at least 1"),
    ({"workers": 1.5}, "workers must be an integer"),
])
def test_bad_arguments_of_the_gradient(change, message):
    net, (x, y) = chain(blocks=2), batch()
    arguments = {"net": net, "params": net.init(5, np.float64), "x": x, "y": y} | change
    with pytest.raises((TypeError, ValueError), match=message):
        loss_and_gradient(**arguments)


@pytest.mark.parametrize("arguments, message", [
    ({"subnetworks": 13}, "at most the number of blocks, 12"),
    ({"subnetworks": 0}, "at least 1"),
    ({"subnetworks": 3, "coarse_blocks": 0}, "coarse_blocks must be at least 1"),
    ({"subnetworks": 3, "coarse": ()}, "tuple of subnetworks - 1 = 2 layers"),
    ({"subnetworks": 2, "surrogates": (3,)}, r"surrogates\[0\] must be a layer"),
    ({"subnetworks": 2, "coarse": (Dense(5, 5),), "coarse_blocks": 1}, "choose one"),
])
def test_bad_arguments_of_parareal(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        parareal(chain(), **arguments)


def test_parts_that_do_not_fit_are_named():
    whole, (x, y) = chain(), batch()
    for options, message in (({"surrogates": (Dense(3, 6),)}, r"C\^2 must give the shape \(5,\)"),
                             ({"coarse": (Dense(5, 6),)}, r"F\^1 must give the shape \(5,\)")):
        net = parareal(whole, 2, **options)
        with pytest.raises(ValueError, match=message):
            loss_and_gradient(net, net.init(5, np.float64), x, y)
    with pytest.raises(TypeError, match="no zero-preserving form"):
        parareal(Chain(Dense(3, 5), (ps.networks.unrolled.State(5),) * 2, Dense(5, 4)), 2)
