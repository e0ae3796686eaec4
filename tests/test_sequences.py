"""Models on sequences: gradients of whole models, ragged batches, strides, directions, the same bits on any thread count."""

import numba
import numpy as np
import pytest
import reference

import pitsolve as ps
from pitsolve.sequences import Evaluation, Recurrent, Solver
from pitsolve.sequences.task import loss_and_gradient, value_and_derivative
from pitsolve.training import SequenceClassifier, SequenceRegressor

LENGTHS = np.array([9, 1, 13])


def lem(input_size, hidden):
    return ps.cells.LEM(input_size, hidden, dt=0.5)


MODELS = {
    "plain, last": SequenceClassifier(input_size=2, hidden=4, classes=3, layers=2, readout="last"),
    "worms": SequenceClassifier(input_size=2, hidden=4, classes=3, layers=2, residual=True, norm=True),
    "multi-head, both directions": SequenceClassifier(
        input_size=2, hidden=8, classes=3, layers=2, heads=4, strides=2, bidirectional=True, residual=True, norm=True,
        mixing="glu", encoder="linear", readout="each", dropout=0.3),
    "residual without mixing": SequenceRegressor(
        input_size=2, hidden=4, targets=2, cell="lstm", residual=True, norm=True, mixing="none", dropout=0.5),
    "regression at each step": SequenceRegressor(input_size=2, hidden=4, targets=2, cell="elman", norm=True, readout="each",
                                                 strides=4, head="mlp"),
    "a cell of one's own": SequenceRegressor(input_size=2, hidden=3, targets=2, cell=lem, readout="last"),
}


def batch(model, lengths=LENGTHS, dtype=np.float64):
    """Inputs with rubbish past the end, and labels or targets."""
    random = np.random.default_rng(11)
    x = random.standard_normal((len(lengths), max(lengths), model.input_size)).astype(dtype)
    shape = (len(x), *model.output_shape(x.shape[1:]))
    if isinstance(model, SequenceRegressor):
        return x, random.standard_normal(shape).astype(dtype)
    y = random.integers(0, model.classes, shape[:-1])
    if y.ndim == 2:
        y[np.arange(y.shape[1]) >= lengths[:, None]] = -1
    return x, y


def seeds(call):
    return 1000 + call


def loss_of(model, params, x, y, lengths, solver=None):
    outputs, _ = model.forward(params, x, Evaluation(solver or Solver("sequential"), lengths, seeds))
    return value_and_derivative(model.loss, outputs, y, lengths)[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_a_model_is_that_of_finite_differences(name):
    model = MODELS[name]
    params, (x, y) = model.init(seed=3, dtype=np.float64), batch(model)
    random = np.random.default_rng(5)
    params = {k: v + 0.1 * random.standard_normal(v.shape) for k, v in params.items()}
    run = Evaluation(Solver("sequential"), LENGTHS, seeds)
    _, _, grads = loss_and_gradient(model, params, x, y, model.loss, run)
    assert set(grads) == set(params)
    for k in params:
        direction, step = random.standard_normal(params[k].shape), 1e-6
        ahead, back = ({**params, k: params[k] + sign * step * direction} for sign in (1, -1))
        slope = (loss_of(model, ahead, x, y, LENGTHS) - loss_of(model, back, x, y, LENGTHS)) / (2 * step)
        np.testing.assert_allclose(np.sum(grads[k] * direction), slope, rtol=2e-6, atol=2e-9, err_msg=k)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if not model.dropout])
def test_a_ragged_batch_is_its_sequences_one_by_one(name):
    model = MODELS[name]
    params, (x, _) = model.init(seed=3, dtype=np.float64), batch(model)
    together = model.apply(params, x, LENGTHS)
    for b, length in enumerate(LENGTHS):
        alone = model.apply(params, x[b:b + 1, :length])
        if model.readout == "each":
            np.testing.assert_allclose(together[b, :length], alone[0], rtol=1e-11, atol=1e-13)
            assert not together[b, length:].any()
        else:
            np.testing.assert_allclose(together[b], alone[0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["worms", "regression at each step"])
def test_the_gradient_of_a_ragged_batch_is_the_mean_of_those_of_its_sequences(name):
    model = MODELS[name]
    params, (x, y) = model.init(seed=3, dtype=np.float64), batch(model)
    _, _, together = loss_and_gradient(model, params, x, y, model.loss, Evaluation(Solver("sequential"), LENGTHS, seeds))
    weights = LENGTHS / LENGTHS.sum() if model.readout == "each" else np.full(len(LENGTHS), 1 / len(LENGTHS))
    total = {k: np.zeros_like(v) for k, v in params.items()}
    for b, length in enumerate(LENGTHS):
        part = y[b:b + 1, :length] if model.readout == "each" else y[b:b + 1]
        run = Evaluation(Solver("sequential"), None, seeds)
        _, _, alone = loss_and_gradient(model, params, np.ascontiguousarray(x[b:b + 1, :length]), part, model.loss, run)
        for k in total:
            total[k] += weights[b] * alone[k]
    for k in total:
        np.testing.assert_allclose(together[k], total[k], rtol=1e-9, atol=1e-12, err_msg=k)


def by_hand(step, params, x, stride, reverse):
    """h_t = f(h_{t-s}, x_t) for one sequence, in either direction."""
    x = x[::-1] if reverse else x
    states = [None] * len(x)
    for t in range(len(x)):
        before = states[t - stride] if t >= stride else np.zeros(params["weight_hh"].shape[1])
        states[t] = step(params, x[t], before)
    return np.array(states[::-1] if reverse else states)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stride", [1, 3, 16])
def test_a_recurrent_layer_steps_by_its_stride_in_its_direction(stride, reverse):
    layer = Recurrent(ps.cells.GRU(2, 4), stride, reverse)
    params = layer.init(seed=3, dtype=np.float64)
    x = np.random.default_rng(5).standard_normal((3, 13, 2))
    y, _ = layer.forward(params, x, Evaluation(Solver("sequential"), LENGTHS))
    for b, length in enumerate(LENGTHS):
        expected = by_hand(reference.gru, params, x[b, :length], stride, reverse)
        np.testing.assert_allclose(y[b, :length], expected, rtol=1e-12, atol=1e-14)
        assert not y[b, length:].any()


@pytest.mark.parametrize("method", ["deer", "quasi-deer", "shooting", "auto"])
def test_every_method_gives_the_gradient_of_the_loop(method):
    model = MODELS["worms"]
    lengths = np.array([90, 40, 130])
    params, (x, y) = model.init(seed=3, dtype=np.float64), batch(model, lengths)
    loop, other = (loss_and_gradient(model, params, x, y, model.loss, Evaluation(Solver(m), lengths, seeds))
                   for m in ("sequential", method))
    assert abs(loop[0] - other[0]) < 1e-12
    for k in params:
        np.testing.assert_allclose(other[2][k], loop[2][k], rtol=1e-8, atol=1e-11, err_msg=k)


def test_results_do_not_depend_on_the_number_of_threads():
    model = MODELS["multi-head, both directions"]
    params, (x, y) = model.init(seed=3), batch(model, np.array([700, 300, 650]), np.float32)
    lengths, found = np.array([700, 300, 650]), []
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        found.append(loss_and_gradient(model, params, x, y, model.loss, Evaluation(Solver("deer"), lengths, seeds)))
    assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])
    assert all(np.array_equal(found[0][2][k], found[1][2][k]) for k in params)


def test_labels_are_the_largest_outputs_and_nothing_past_the_end():
    model = MODELS["multi-head, both directions"]
    params, (x, _) = model.init(seed=3), batch(model, dtype=np.float32)
    labels = model.predict(params, x, LENGTHS)
    assert np.array_equal(labels == -1, np.arange(13) >= LENGTHS[:, None])
    alone = model.predict(params, x[:1, :9], batch_size=1)
    assert np.array_equal(alone[0], labels[0, :9])


def test_what_is_past_the_end_is_not_read():
    model = MODELS["plain, last"]
    params, (x, _) = model.init(seed=3, dtype=np.float64), batch(model)
    expected = model.apply(params, x, LENGTHS)
    for b, length in enumerate(LENGTHS):
        x[b, length:] = np.nan
    assert np.array_equal(model.apply(params, x, LENGTHS), expected)


@pytest.mark.parametrize("fields, message", [
    ({"cell": "rnn"}, "cell must be one of 'elman', 'gru', 'implicit-gru' or 'lstm'|cell must be one of"),
    ({"heads": 3}, "heads must divide hidden = 8, got 3"),
    ({"heads": 2, "strides": 4}, "strides must divide heads = 2, got 4"),
    ({"heads": 2, "cell": "lstm"}, "heads are those of a GRU"),
    ({"mixing": "mlp"}, "mixing is part of residual blocks"),
    ({"residual": True, "encoder": "none"}, "encoder must not be 'none'"),
    ({"dropout": 1.0}, "dropout must be below 1"),
    ({"readout": "first"}, "readout must be one of"),
    ({"classes": 0}, "classes must be at least 1"),
    ({"cell": lambda m, n: ps.cells.GRU(m, n + 1)}, "must give a cell with inputs of width 2 and outputs of width 8"),
])
def test_a_model_refuses_what_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(**({"input_size": 2, "hidden": 8, "classes": 3} | fields))


@pytest.mark.parametrize("arguments, error, message", [
    ({"method": "newton"}, ValueError, "method must be one of"),
    ({"gradient": "adjoint"}, ValueError, "gradient must be one of"),
    ({"options": [1]}, TypeError, "options must be a dict"),
    ({"options": {"guess": 1}}, ValueError, "'guess' is set by the layer"),
])
def test_a_solver_refuses_what_does_not_exist(arguments, error, message):
    with pytest.raises(error, match=message):
        Solver(**arguments)
