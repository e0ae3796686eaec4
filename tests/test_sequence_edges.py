"""Training on sequences where data, losses and paths are unusual."""

import errno
import os

import numpy as np
import pytest

from pitsolve.training import (
    SGD,
    Adam,
    CheckpointError,
    SequenceClassifier,
    SequenceRegressor,
    Solver,
    evaluate,
    fit,
    mean_squared,
)

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((6, 20, 2)).astype(np.float32)
Y = np.arange(6) % 2
LENGTHS = np.array([3, 20, 10, 7, 1, 16])


def train(model, y=Y, lengths=None, x=X, **options):
    options = {"optimizer": Adam(0.01), "epochs": 2, "batch_size": 4, "method": "deer"} | options
    return fit(model, model.init(seed=3), (x, y) if lengths is None else (x, y, lengths), **options)


def test_a_gradient_of_zero_has_no_relative_error():
    """No label counts, so the exact gradient, by which the error is divided, is zero."""
    run = train(SequenceClassifier(input_size=2, hidden=4, classes=2), np.full(6, -1), gradient_error=True)
    assert np.isnan(run.history["gradient_error"]).all() and np.isnan(run.history["loss"]).all()


def test_as_many_targets_as_steps_are_not_targets_of_steps():
    """A batch is cut to its longest sequence in multiples of 64 steps; its 128 targets must not be."""
    model, x = SequenceRegressor(input_size=2, hidden=4, targets=128), np.ones((3, 128, 2), np.float32)
    assert np.isfinite(train(model, np.ones((3, 128)), [5, 6, 7], x).history["loss"]).all()


def test_a_loss_of_the_users_is_told_which_targets_count():
    model = SequenceRegressor(input_size=2, hidden=4, targets=3, readout="each")
    y = RANDOM.standard_normal((6, 20, 3))

    def own(outputs, targets, counted):
        return mean_squared(outputs, targets, counted)

    assert np.array_equal(train(model, y, LENGTHS, loss=own).history["loss"], train(model, y, LENGTHS).history["loss"])
    for train_or_evaluate in (train, lambda *given, loss: evaluate(model, model.init(3), (X, *given[1:]), loss=loss)):
        with pytest.raises(TypeError, match=r"loss must take \(outputs, targets, counted\)"):
            train_or_evaluate(model, y, LENGTHS, loss=lambda outputs, targets: mean_squared(outputs, targets))


@pytest.mark.parametrize("options, error, message", [
    ({"loss": lambda outputs, y: 3.0}, TypeError, r"loss must return a pair \(value, doutputs\), got float"),
    ({"loss": lambda outputs, y: (outputs, outputs)}, TypeError, "loss must return a number and doutputs, got an array"),
    ({"schedule": lambda epoch: None}, ValueError, "schedule must return a finite number, got None"),
    ({"augment": lambda x, random: x[:, 1:]}, ValueError, "augment must give inputs like those it receives"),
    ({"augment": lambda x, random: x * np.float32(np.nan)}, ValueError, "inputs from augment must be finite"),
])
def test_functions_of_the_users_are_held_to_their_word(options, error, message):
    with pytest.raises(error, match=message):
        train(SequenceClassifier(input_size=2, hidden=4, classes=2), **options)


def test_augmentation_past_the_end_of_a_sequence_does_not_matter():
    model = SequenceClassifier(input_size=2, hidden=4, classes=2, residual=True, norm=True)

    def divided(x, random):
        with np.errstate(invalid="ignore"):
            return x / abs(x)  # 0 / 0 past the end

    def signs(x, random):
        return np.sign(x)

    first, second = (train(model, Y, LENGTHS, augment=augment).params for augment in (divided, signs))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("rate", [1e15, 1e38])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_training_that_diverges_says_where(norm, rate):
    """Numbers overflow between the layers while all parameters are finite."""
    model = SequenceClassifier(input_size=2, hidden=4, classes=2, layers=2, residual=True, norm=norm)
    with pytest.raises(FloatingPointError, match="in epoch 1, batch 0; lower the rate"):
        train(model, optimizer=SGD(rate), batch_size=6)


def test_a_checkpoint_on_other_inputs_is_refused(tmp_path):
    model, file = SequenceClassifier(input_size=2, hidden=4, classes=2), tmp_path / "run"
    train(model, checkpoint=file)
    with pytest.raises(CheckpointError, match="its data is 6x20x2, digest"):
        train(model, checkpoint=file, x=2 * X, epochs=3)


def test_ragged_labels_in_another_order_of_memory(tmp_path):
    model = SequenceClassifier(input_size=2, hidden=4, classes=2, readout="each")
    y = RANDOM.integers(0, 2, (6, 20))
    kept = {order: train(model, np.asarray(y, order=order), LENGTHS, checkpoint=tmp_path / order) for order in "CF"}
    assert np.array_equal(kept["C"].history["loss"], kept["F"].history["loss"])


def test_a_warm_start_touches_only_files_of_its_own_checkpoint(tmp_path):
    """Brackets in a name are no pattern: "run[1]" and "run1" are two runs."""
    model = SequenceClassifier(input_size=2, hidden=4, classes=2)
    for name in ("run1", "run[1]"):
        run = train(model, checkpoint=tmp_path / name, warm_start=True, epochs=3)
    assert sorted(file.name for file in tmp_path.glob("*.npy")) == [
        "run1.states1.0.npy", "run1.states2.0.npy", "run[1].states1.0.npy", "run[1].states2.0.npy"]
    assert np.array_equal(run.history["iterations"], train(model, warm_start=True, epochs=3).history["iterations"])


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no blocks")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch):
    """Writing into a file in memory that has no room is SIGBUS; so room is taken first."""
    def full(handle, begin, count):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device: no room for the states of a warm start"):
        train(SequenceClassifier(input_size=2, hidden=4, classes=2), checkpoint=tmp_path / "run", warm_start=True)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_belongs_to_one_run_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    model, file, refused = SequenceClassifier(input_size=2, hidden=4, classes=2), tmp_path / "run", []

    def again(result):
        with pytest.raises(CheckpointError, match="run is in use by another run") as error:
            train(model, checkpoint=file)
        refused.append(error)

    train(model, checkpoint=file, after_epoch=again)
    assert len(refused) == 2 and [each.name for each in tmp_path.iterdir()] == ["run"]
    train(model, checkpoint=file, epochs=3)


def test_a_warm_start_that_the_method_cannot_use_is_refused_or_left_out(tmp_path):
    """Before anything runs, not after the first epoch."""
    model = SequenceClassifier(input_size=2, hidden=4, classes=2)
    for method in ("parareal", Solver("mgrit", {"nested": True}), Solver("mgrit", {"skip_first": True})):
        with pytest.raises(ValueError, match="warm_start must be False with Solver"):
            train(model, method=method, warm_start=True, epochs=1)
    run = train(model, method="sequential", warm_start=True, checkpoint=tmp_path / "run")
    assert np.isnan(run.history["cold_iterations"]).all() and [each.name for each in tmp_path.iterdir()] == ["run"]
