"""Training: the optimiser is PyTorch's, a resumed run is an uninterrupted one, and checkpoints are whole or refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pitsolve as ps
from pitsolve.networks import Chain, Dense, crop_and_flip, fit, mean_squared, parareal, residual_mlp
from pitsolve.training import SGD, CheckpointError, StepSchedule, load_checkpoint, save_checkpoint

# torch 2.13: SGD(lr=0.1, momentum=0.9, weight_decay=0.05) from (1, -2, 0.5), gradients k (0.3, -0.1, 0.2), lr 0.01 from k = 3
TORCH = [[0.965, -1.98, 0.4775], [0.868675, -1.9321, 0.41486249999999997], [0.8505714125, -1.92382295, 0.40301769374999996],
         [0.8218528980437501, -1.9114116935249998, 0.38415585927812496]]


class Centre(ps.networks.Layer):
    """x less its mean over the batch, or less the running mean."""

    statistics = ("running_mean",)
    shapes = {"running_mean": (4,)}

    def init(self, seed, dtype=np.float32):
        return {"running_mean": np.zeros(4, dtype)}

    def forward(self, p, x, training):
        mean = x.mean(axis=0) if training else p["running_mean"]
        return x - mean, mean

    def backward(self, p, saved, dy):
        return dy - dy.mean(axis=0), {"running_mean": saved}


def network():
    """Torn in two; its first block has a running statistic."""
    centred = ps.networks.Sequence((("centre", Centre()), ("block", residual_mlp(4, 6))))
    chain = Chain(Dense(3, 4), (centred, residual_mlp(4, 6), residual_mlp(4, 6)), Dense(4, 3))
    return parareal(chain, 2, coarse_blocks=1)


def data(count=30):
    x = np.random.default_rng(3).standard_normal((count, 3)).astype(np.float32)
    return x, x.argmax(axis=1)


def jitter(x, random):
    return x + random.standard_normal(x.shape).astype(x.dtype) / 8


def train(net, params, epochs=4, **options):
    options = {"optimizer": SGD(0.1, 0.9, 5e-4), "schedule": StepSchedule((2,)), "seed": 7, "batch_size": 8, "augment": jitter,
               "validation": data(10)} | options
    return fit(net, params, data(), epochs=epochs, **options)


class Killed(Exception):
    """What ends a run in these tests."""


def assert_same(run, other):
    assert all(np.array_equal(run.params[name], other.params[name]) for name in run.params)
    for name in ("loss", "error", "validation_loss", "validation_error"):
        assert np.array_equal(run.history[name], other.history[name])


def test_sgd_is_that_of_torch():
    sgd, schedule = SGD(lr=0.1, momentum=0.9, weight_decay=0.05), StepSchedule((2,))
    params = {"w": np.array([1.0, -2.0, 0.5])}
    state = sgd.init(params)
    for k, expected in enumerate(TORCH):
        params, state = sgd.update(params, {"w": (k + 1) * np.array([0.3, -0.1, 0.2])}, state, schedule(k))
        np.testing.assert_allclose(params["w"], expected, rtol=1e-14)


def test_sgd_without_momentum_has_no_state():
    sgd = SGD(lr=0.5)
    params, state = sgd.update({"w": np.ones(1, np.float32)}, {"w": np.ones(1, np.float32)}, sgd.init({"w": np.ones(1)}))
    assert params["w"] == 0.5 and params["w"].dtype == np.float32 and state == {}


def test_the_seed_need_not_be_stated():
    net = network()
    stated, default = (fit(net, net.init(5), data(), optimizer=SGD(0.1), epochs=2, batch_size=8, validation=data(5),
                           **options)
                       for options in ({"seed": 0}, {}))
    assert_same(default, stated)


def test_a_run_goes_on_after_any_epoch_bit_for_bit(tmp_path):
    net, file = network(), tmp_path / "run.checkpoint"
    params = net.init(5)
    whole = train(net, params)
    for epochs in (1, 3, 4):
        last = train(net, params, epochs, checkpoint=file)
    assert_same(last, whole)
    assert len(last.history["seconds"]) == 4


def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit(tmp_path):
    """The run is ended by an exception in its seventh batch, the third of the second epoch."""
    net, file = network(), tmp_path / "run.checkpoint"
    params, calls = net.init(5), []
    whole = train(net, params)

    def ends(x, random):
        calls.append(len(x))
        if len(calls) == 7:
            raise Killed
        return jitter(x, random)

    ends.__qualname__ = jitter.__qualname__
    with pytest.raises(Killed):
        train(net, params, checkpoint=file, checkpoint_every=2, augment=ends)
    found = load_checkpoint(file).facts
    assert (found["epoch"], found["batches"]) == (1, 2)
    assert_same(train(net, params, checkpoint=file, checkpoint_every=2), whole)


def test_training_depends_on_seed_and_epoch():
    net = network()
    params, seen = net.init(5), []

    def watched(x, random):
        seen.append(x.copy())
        return x

    for seed in (7, 8):
        train(net, params, 2, seed=seed, augment=watched)
    epochs = [np.concatenate(seen[k:k + 4]) for k in range(0, 16, 4)]
    for i, first in enumerate(epochs):
        assert np.array_equal(np.sort(first, axis=0), np.sort(data()[0], axis=0))
        assert not any(np.array_equal(first, other) for other in epochs[:i])


def test_running_statistics_are_mixed_and_not_trained():
    net = network()
    params = net.init(5)
    run = fit(net, params, data(), optimizer=SGD(0.1, 0.9, 0.5), epochs=1, seed=7, batch_size=30)
    _, grads, _ = ps.networks.loss_and_gradient(net, params, *data())
    np.testing.assert_allclose(run.params["0.centre.running_mean"], 0.1 * grads["0.centre.running_mean"], rtol=1e-5)


def test_validation_takes_running_statistics():
    net = network()
    params, (x, y) = net.init(5), data()
    one_by_one = ps.networks.evaluate(net, params, (x, y), batch_size=1)
    np.testing.assert_allclose(ps.networks.evaluate(net, params, (x, y)), one_by_one, rtol=1e-6)
    outputs, _ = net.forward(params, x, training=False)
    assert one_by_one[1] == np.mean(outputs.argmax(axis=1) != y)


def test_one_batch_is_learned_by_heart():
    net = parareal(Chain(Dense(3, 8), (residual_mlp(8, 16),) * 6, Dense(8, 3)), 3)
    x, y = np.random.default_rng(5).standard_normal((12, 3)).astype(np.float32), np.arange(12) % 3
    run = fit(net, net.init(5), (x, y), optimizer=SGD(0.05, 0.9), epochs=150, seed=5)
    assert run.history["loss"][-1] < 1e-2 and run.history["error"][-1] == 0


def test_other_targets_have_no_errors():
    net = Chain(Dense(3, 4), (residual_mlp(4, 6),), Dense(4, 2))
    x, _ = data()
    run = fit(net, net.init(5), (x, x[:, :2] * 2), optimizer=SGD(0.1), epochs=20, seed=5, loss=mean_squared)
    assert run.history["loss"][-1] < 0.3 * run.history["loss"][0] and np.isnan(run.history["error"]).all()
    assert "20 epochs" in repr(run)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_checkpoint(tmp_path):
    net, file = network(), tmp_path / "run.checkpoint"
    train(net, net.init(5), 1, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(FloatingPointError, match="epoch 1, batch 0"):
        train(net, net.init(5), checkpoint=file, augment=jitter_to_infinity)
    assert file.read_bytes() == before


def test_a_gradient_that_is_not_finite_stops_training_before_it_is_stored(tmp_path):
    net, file = network(), tmp_path / "run.checkpoint"

    def loss(outputs, y):
        return 1.0, np.full_like(outputs, np.inf)

    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=r"params\[.* in epoch 0, batch 0"):
        train(net, net.init(5), checkpoint=file, checkpoint_every=1, loss=loss, augment=None)
    assert not file.exists()


@pytest.mark.parametrize("augment, message", [
    (lambda x, random: x[:, :2], "takes inputs of shape"),
    (lambda x, random: x[:1], "as many samples"),
    (lambda x, random: x.astype(float), "got an array of dtype float64"),
])
def test_augmentation_that_does_not_fit_is_refused(augment, message):
    net = network()
    with pytest.raises(ValueError, match=message):
        train(net, net.init(5), augment=augment)


def jitter_to_infinity(x, random):
    return np.full_like(x, np.inf)


jitter_to_infinity.__qualname__ = jitter.__qualname__


# ------------------------------------------------------------------------------------------------------------ checkpoints


def test_checkpoints_hold_what_was_put_in(tmp_path):
    arrays = {"params": {"a.b": np.arange(3.0), "facts": np.float32([np.nan])}, "empty": {}}
    save_checkpoint(tmp_path / "x", arrays, {"epoch": 3})
    found = load_checkpoint(tmp_path / "x")
    assert found.facts == {"epoch": 3} and list(found.arrays) == ["params", "empty"] and found.arrays["empty"] == {}
    for name, value in arrays["params"].items():
        assert found.arrays["params"][name].dtype == value.dtype
        np.testing.assert_array_equal(found.arrays["params"][name], value)


def test_every_cut_and_every_change_is_refused(tmp_path):
    file = tmp_path / "x"
    save_checkpoint(file, {"params": {"w": np.arange(5.0)}}, {})
    content = file.read_bytes()
    for size in (1, 10, 40, 61, 62, 100, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cut off"):
            load_checkpoint(file)
    for place in (30, 70, len(content) - 1):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        with pytest.raises(CheckpointError, match="has changed"):
            load_checkpoint(file)
    for other in (b"", b"PK\3\4 something else"):
        file.write_bytes(other)
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            load_checkpoint(file)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    for arrays, message in (({"a": {"b": np.array([None])}}, "must be numbers"), ({"a/b": {}}, "must not have '/'")):
        with pytest.raises((TypeError, ValueError), match=message):
            save_checkpoint(tmp_path / "x", arrays, {})
    assert os.listdir(tmp_path) == []


def test_a_kill_in_the_middle_of_writing_leaves_the_old_checkpoint(tmp_path):
    """A process kills itself when half of the new file is on the disk; the next one saves in the same place."""
    file = tmp_path / "x"
    save_checkpoint(file, {"params": {"w": np.zeros(5)}}, {"epoch": 1})
    code = f"""
import builtins, io, os, signal
import numpy as np, pitsolve as ps
class Half(io.FileIO):
    def write(self, content):
        super().write(content[:len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
original = builtins.open
builtins.open = lambda path, mode='r', *rest: Half(path, mode) if mode == 'wb' else original(path, mode, *rest)
ps.training.save_checkpoint({str(file)!r}, {{'params': {{'w': np.ones(5)}}}}, {{'epoch': 2}})
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(ps.__file__).parents[1])
    assert run.returncode == -signal.SIGKILL and len(os.listdir(tmp_path)) == 2
    assert load_checkpoint(file).facts == {"epoch": 1}
    save_checkpoint(file, {"params": {"w": np.ones(5)}}, {"epoch": 2})
    assert load_checkpoint(file).facts == {"epoch": 2} and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch, failing):
    file = tmp_path / "x"
    save_checkpoint(file, {"params": {}}, {"epoch": 1})

    def fail(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(file, {"params": {}}, {"epoch": 2})
    assert load_checkpoint(file).facts == {"epoch": 1} and os.listdir(tmp_path) == ["x"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    net, file = network(), tmp_path / "run.checkpoint"
    params = net.init(5)
    train(net, params, 1, checkpoint=file)
    before = file.read_bytes()
    for change, message in (({"seed": 8}, "its seed is 7, here it is 8"), ({"batch_size": 9}, "batch size"),
                            ({"optimizer": SGD(0.2)}, "optimizer"), ({"schedule": None}, "schedule"),
                            ({"augment": crop_and_flip}, "augmentation")):
        with pytest.raises(CheckpointError, match=message):
            train(net, params, checkpoint=file, **change)
    other = parareal(Chain(Dense(3, 4), (residual_mlp(4, 6),) * 3, Dense(4, 3)), 3)
    with pytest.raises(CheckpointError, match="another run: its network"):
        train(other, other.init(5), checkpoint=file)
    centred = ps.networks.Sequence((("centre", Centre()), ("block", residual_mlp(4, 6, activation="tanh"))))
    twin = parareal(Chain(Dense(3, 4), (centred, residual_mlp(4, 6), residual_mlp(4, 6)), Dense(4, 3)), 2, coarse_blocks=1)
    assert twin.shapes == net.shapes
    with pytest.raises(CheckpointError, match="another run: its digest of layers"):
        train(twin, params, checkpoint=file)
    assert file.read_bytes() == before
    save_checkpoint(file, {}, {})
    with pytest.raises(CheckpointError, match="not one of fit"):
        train(net, params, checkpoint=file)


@pytest.mark.parametrize("change, message", [
    ({"optimizer": 0.1}, "must be an optimiser"),
    ({"epochs": -1}, "epochs must be at least 0"),
    ({"seed": 0.5}, "seed must be an integer"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"schedule": 0.1}, "schedule must be a function"),
    ({"augment": "flip"}, "augment must be a function"),
    ({"checkpoint": "no/such/folder/x"}, "a folder that exists"),
    ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
    ({"validation": np.zeros(3)}, "validation must be a pair"),
    ({"validation": (np.zeros((2, 3), np.float32), np.array([0, 3]))}, "validation labels must be labels from 0 to 2, got 3"),
])
def test_bad_arguments_of_fit(change, message):
    net = network()
    with pytest.raises((TypeError, ValueError), match=message):
        train(net, net.init(5), **change)


@pytest.mark.parametrize("make, message", [
    (lambda: SGD(0.0), "lr must be positive"),
    (lambda: SGD(0.1, momentum=1.0), "momentum must be below 1"),
    (lambda: SGD(0.1, weight_decay=-1.0), "weight_decay must be positive"),
    (lambda: StepSchedule((120, 80)), "milestones must ascend"),
    (lambda: StepSchedule(80), "tuple of epochs"),
])
def test_bad_optimisers_and_schedules(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
