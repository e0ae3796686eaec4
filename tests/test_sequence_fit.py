"""Training models on sequences: it learns, a resumed run is an uninterrupted one, solvers report their health."""

import sys

import numpy as np
import pytest

import pitsolve as ps
from pitsolve.training import (
    Adam,
    CheckpointError,
    SequenceClassifier,
    SequenceRegressor,
    Solver,
    WarmupCosine,
    fit,
    load_checkpoint,
    truncated_multigrid,
)

MODEL = SequenceClassifier(input_size=2, hidden=6, classes=2, layers=2, residual=True, norm=True, dropout=0.2)
SAME = ("loss", "accuracy", "validation_loss", "validation_accuracy", "iterations", "fallbacks", "loops", "cold_iterations")


def data(count=14, steps=40, seed=3):
    """Which of two channels is larger on the average, in sequences of several lengths."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, steps, 2)).astype(np.float32)
    lengths = random.integers(steps // 2, steps + 1, count)
    x[np.arange(steps) >= lengths[:, None]] = np.nan
    return x, (np.nanmean(x[..., 0] - x[..., 1], axis=1) > 0).astype(int), lengths


def train(model=MODEL, epochs=3, **options):
    options = {"optimizer": Adam(0.01, clip_norm=1.0), "schedule": WarmupCosine(1, 4), "seed": 7, "batch_size": 4,
               "validation": data(5, seed=4), "method": "deer"} | options
    return fit(model, model.init(seed=5), data(), epochs=epochs, **options)


class Killed(Exception):
    """What ends a run in these tests."""


def assert_same(run, other):
    assert all(np.array_equal(run.params[name], other.params[name]) for name in run.params)
    for name in SAME:
        np.testing.assert_array_equal(run.history[name], other.history[name], err_msg=name)


def jitter(x, random):
    return x + random.standard_normal(x.shape).astype(x.dtype) / 8


def test_one_batch_can_be_learned_by_heart():
    x, y, lengths = data(8)
    y = np.arange(8) % 2  # nothing to understand
    model = SequenceClassifier(input_size=2, hidden=16, classes=2, layers=2, residual=True, norm=True)
    run = fit(model, model.init(seed=5), (x, y, lengths), optimizer=Adam(0.01), epochs=150, batch_size=8)
    assert run.history["loss"][-1] < 0.02 and run.history["accuracy"][-1] == 1.0
    assert np.array_equal(model.predict(run.params, x, lengths), y)


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_run_goes_on_after_any_epoch_bit_for_bit(tmp_path, warm_start):
    file = tmp_path / "run.checkpoint"
    whole = train(warm_start=warm_start)
    for epochs in (1, 2, 3):
        last = train(epochs=epochs, warm_start=warm_start, checkpoint=file)
    assert_same(last, whole)


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit(tmp_path, warm_start):
    """The run is ended by an exception in its seventh batch, the third of the second epoch."""
    file, calls = tmp_path / "run.checkpoint", []
    whole = train(warm_start=warm_start, augment=jitter)

    def ends(x, random):
        calls.append(len(x))
        if len(calls) == 7:
            raise Killed
        return jitter(x, random)

    ends.__qualname__ = jitter.__qualname__
    options = {"warm_start": warm_start, "checkpoint": file, "checkpoint_every": 2}
    with pytest.raises(Killed):
        train(**options, augment=ends)
    found = load_checkpoint(file).facts
    assert (found["epoch"], found["batches"]) == (1, 2)
    assert_same(train(**options, augment=jitter), whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.checkpoint"
    train(epochs=1, checkpoint=file)
    for other, what in (({"seed": 8}, "seed"), ({"optimizer": Adam(0.02)}, "optimizer"), ({"batch_size": 5}, "batch size"),
                        ({"model": SequenceClassifier(input_size=2, hidden=6, classes=2)}, "model")):
        with pytest.raises(CheckpointError, match=f"its {what} is"):
            train(**({"epochs": 2, "checkpoint": file} | other))


def test_states_of_another_run_are_not_a_warm_start(tmp_path):
    """Files of an earlier run lie where a new one begins: it must start cold."""
    file = tmp_path / "run.checkpoint"
    train(epochs=2, warm_start=True, checkpoint=file)
    file.unlink()
    assert_same(train(warm_start=True, checkpoint=file), train(warm_start=True))


def test_a_warm_start_saves_iterations_and_reports_them():
    run = train(warm_start=True, epochs=4, optimizer=Adam(1e-3))
    cold = run.history["cold_iterations"]
    assert np.isnan(cold[0]) and (cold[1:] > run.history["iterations"][1:]).all()
    assert np.isnan(train(epochs=1).history["cold_iterations"]).all()


def test_a_warm_start_keeps_no_more_than_it_may(tmp_path):
    bytes_of_a_sample = 2 * 4 * 2 * 40 * 6  # generations, float32, layers, steps, units
    run = train(warm_start=5 * bytes_of_a_sample + 1, checkpoint=tmp_path / "run", epochs=2)
    files = sorted(tmp_path.glob("run.states*"))
    assert [np.load(file).shape for file in files if ".states1." in file.name] == [(5, 1, 40, 6)] * 2
    assert sum(np.load(file).nbytes for file in files) <= 5 * bytes_of_a_sample
    assert run.history["cold_iterations"][1] > 0


def test_the_method_does_not_change_what_is_learned():
    runs = {method: train(method=method, validation=None) for method in ("sequential", "deer", "shooting", "auto")}
    for method, run in runs.items():
        np.testing.assert_allclose(run.history["loss"], runs["sequential"].history["loss"], rtol=1e-4, err_msg=method)


def test_the_gradient_of_truncated_multigrid_is_measured():
    model = SequenceClassifier(input_size=2, hidden=6, classes=2, cell="implicit-gru", readout="last")
    options = {"model": model, "epochs": 2, "validation": None}
    paper, longer = (train(method=truncated_multigrid(*cycles, coarsening=2), **options) for cycles in ((2, 1), (5, 5)))
    assert (paper.history["gradient_error"] > 1e-4).all() and (paper.history["gradient_error"] < 1.0).all()
    assert (longer.history["gradient_error"] < 0.1 * paper.history["gradient_error"]).all()
    assert np.isnan(train(**options, method="mgrit").history["gradient_error"]).all()
    controlled = train(**options, method="mgrit", gradient_error=True).history["gradient_error"]
    assert (controlled < 1e-4).all()


def forgetful(bias):
    """A GRU whose update gates keep the share sigmoid(bias) of each state."""
    model = SequenceClassifier(input_size=1, hidden=8, classes=2)
    params = model.init(seed=5)
    params["layers.0.recurrent.bias_hh"][8:16] += bias
    return model, params


def test_auto_follows_the_memory_of_the_network():
    """Windows where the network forgets, the loop where it does not; the history says how many."""
    x = np.random.default_rng(3).standard_normal((2, 20_000, 1)).astype(np.float32)
    loops = []
    for bias in (0.0, 12.0):
        model, params = forgetful(bias)
        run = fit(model, params, (x, np.array([0, 1])), optimizer=Adam(1e-6), epochs=1, method="auto")
        loops.append(int(run.history["loops"][0]))
    assert loops == [0, 2]


def test_what_does_not_converge_is_counted_and_right():
    solver = Solver("deer", {"max_iter": 1})
    run, exact = (train(epochs=1, method=method, validation=None) for method in (solver, "sequential"))
    assert run.history["fallbacks"][0] == 2 * 14
    np.testing.assert_allclose(run.history["loss"], exact.history["loss"], rtol=1e-5)


def test_a_regressor_learns_a_target_at_every_step():
    x = np.random.default_rng(3).standard_normal((6, 30, 1))
    y = np.cumsum(x, axis=1) / np.sqrt(np.arange(1, 31))[:, None]
    model = SequenceRegressor(input_size=1, hidden=12, targets=1, readout="each")
    run = fit(model, model.init(seed=5, dtype=np.float64), (x, y), optimizer=Adam(0.02), epochs=60, batch_size=6)
    assert run.history["loss"][-1] < 0.1 * run.history["loss"][0]
    assert np.isnan(run.history["accuracy"]).all()


def test_labels_of_minus_one_do_not_count():
    model = SequenceClassifier(input_size=2, hidden=4, classes=2, readout="each")
    x = np.random.default_rng(3).standard_normal((3, 10, 2)).astype(np.float32)
    y = np.zeros((3, 10), int)
    y[:, 5:] = -1
    params = model.init(seed=5)
    whole, accuracy = ps.training.evaluate(model, params, (x, y))
    first, _ = ps.training.evaluate(model, params, (x[:, :5], y[:, :5]))
    assert whole == pytest.approx(first, rel=1e-6)
    assert accuracy == np.mean(model.predict(params, x)[:, :5] == 0)


def test_a_history_plots_itself(tmp_path):
    pytest.importorskip("matplotlib")
    train(epochs=2).plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(capsys):
    train(epochs=2, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("epoch 2 of 2: loss ") and "iterations" in lines[1]


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(epochs=2, progress=True)
    found = capsys.readouterr()
    assert "8/8" in found.err and "loss=" in found.err and "fallbacks=0" in found.err
    assert found.out.count("epoch ") == 2


def test_peak_memory_is_reported():
    assert train(epochs=1).history["peak_memory"][0] > 1e7


def spoiled(place, index, value):
    given = list(data())
    given[place] = given[place].copy()
    given[place][index] = value
    return tuple(given)


@pytest.mark.parametrize("given, error, message", [
    ((1, 2, 3, 4), TypeError, "data must be a pair"),
    (data()[:2], ValueError, "data inputs must be finite"),
    (spoiled(0, (2, 3, 1), np.nan), ValueError, "data inputs must be finite, got nan in sequence 2 at step 3"),
    (spoiled(1, 4, 2), ValueError, "data labels must be from 0 to 1, or -1"),
    (spoiled(2, 0, 0), ValueError, "lengths must be at least 1, got 0 at index 0"),
    ((data()[0], data()[1].astype(float), data()[2]), TypeError, "data labels must be integers"),
    ((data()[0].astype(np.float64), *data()[1:]), TypeError, "data inputs must have the dtype of the parameters, float32"),
    ((data()[0][..., :1], *data()[1:]), ValueError, r"data inputs must have shape \(N, T, 2\)"),
])
def test_data_that_do_not_fit_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        fit(MODEL, MODEL.init(seed=5), given, optimizer=Adam(0.01), epochs=1)


@pytest.mark.parametrize("arguments, error, message", [
    ({"optimizer": 0.1}, TypeError, "optimizer must be an optimiser"),
    ({"method": "newton"}, ValueError, "method must be one of"),
    ({"epochs": -1}, ValueError, "epochs must be at least 0"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"warm_start": 0}, ValueError, "warm_start must be at least 1"),
    ({"progress": 1}, TypeError, "progress must be True or False"),
    ({"loss": "mse"}, TypeError, "loss must be a function"),
    ({"checkpoint": "/no such folder/file"}, ValueError, "checkpoint must be a file in a folder that exists"),
])
def test_arguments_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        train(**arguments)


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint(tmp_path):
    file = tmp_path / "run.checkpoint"
    train(epochs=1, checkpoint=file)

    def overflow(outputs, y):
        return np.inf, outputs

    overflow.__qualname__ = "cross_entropy"  # the same run, as far as the checkpoint knows
    with pytest.raises(FloatingPointError, match="the loss is inf in epoch 1, batch 0"):
        train(epochs=2, checkpoint=file, loss=overflow)
    assert load_checkpoint(file).facts["epoch"] == 1
