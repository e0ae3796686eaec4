"""Optimisers and schedules: the steps are PyTorch's and those of the equations, and their state is all there is to keep."""

import numpy as np
import pytest
import reference_training as reference

from pitsolve.training import (
    SGD,
    Adam,
    AdamW,
    Optimizer,
    StepSchedule,
    WarmupCosine,
    global_norm,
    load_checkpoint,
    save_checkpoint,
)

STEPS = 7
SHAPES = {"w": (3, 2), "b": (4,), "one": ()}
OPTIMIZERS = {
    "adam": Adam(0.1), "adam, decay": Adam(0.05, (0.8, 0.95), 1e-3, 0.3), "adam, clipped": Adam(0.1, clip_norm=0.5),
    "adamw": AdamW(0.1), "adamw, decay, clipped": AdamW(0.05, (0.8, 0.95), 1e-3, 0.3, 0.5),
    "sgd, clipped": SGD(0.1, 0.9, 0.05, 0.5), "sgd, not clipped": SGD(0.1, 0.9, 0.05, 1e3),
}


def problem(dtype=np.float64):
    """Parameters, and gradients for each step, some of which are longer than 0.5 and some are not."""
    random = np.random.default_rng(5)
    params = {name: random.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    params["one"] = np.array(params["one"], dtype)
    grads = [{name: np.asarray(10.0**(k % 3 - 2) * random.standard_normal(shape), dtype) for name, shape in SHAPES.items()}
             for k in range(STEPS)]
    return params, grads


def steps(optimizer, params, grads, factors=(1.0,) * STEPS):
    """Parameters after each step."""
    state, history = optimizer.init(params), []
    for gradient, factor in zip(grads, factors, strict=True):
        params, state = optimizer.update(params, gradient, state, factor)
        history.append(params)
    return history


def flat(arrays):
    return np.concatenate([arrays[name].ravel() for name in SHAPES])


@pytest.mark.parametrize("dtype, digits", [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_torch(name, dtype, digits):
    torch = pytest.importorskip("torch")
    optimizer, (params, grads) = OPTIMIZERS[name], problem(dtype)
    theirs = {key: torch.tensor(value, requires_grad=True) for key, value in params.items()}
    names = ("lr", "weight_decay", *(("momentum",) if isinstance(optimizer, SGD) else ("betas", "eps")))
    options = {option: getattr(optimizer, option) for option in names}
    peer = getattr(torch.optim, type(optimizer).__name__)(theirs.values(), **options)
    for ours, gradient in zip(steps(optimizer, params, grads), grads, strict=True):
        for key, value in theirs.items():
            value.grad = torch.tensor(gradient[key])
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(theirs.values(), optimizer.clip_norm)
        peer.step()
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key], value.detach().numpy(), rtol=digits, atol=digits)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name.startswith("adam")])
def test_adam_follows_its_equations(name):
    optimizer, (params, grads) = OPTIMIZERS[name], problem()
    factors = [0.5 + 0.1 * k for k in range(STEPS)]
    expected = reference.adam(flat(params), [flat(g) for g in grads], optimizer.lr, optimizer.betas, optimizer.eps,
                              optimizer.weight_decay, isinstance(optimizer, AdamW), optimizer.clip_norm, factors)
    found = [flat(theta) for theta in steps(optimizer, params, grads, factors)]
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_from_a_checkpoint_goes_on_bit_for_bit(name, tmp_path):
    optimizer, (params, grads) = OPTIMIZERS[name], problem(np.float32)
    whole, state = steps(optimizer, params, grads)[-1], optimizer.init(params)
    for k, gradient in enumerate(grads):
        params, state = optimizer.update(params, gradient, state)
        save_checkpoint(tmp_path / f"{k}", {"params": params, "state": state}, {})
        found = load_checkpoint(tmp_path / f"{k}").arrays
        params, state = found["params"], found["state"]
    assert all(np.array_equal(params[key], whole[key]) and params[key].dtype == np.float32 for key in SHAPES)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_written_to(name):
    optimizer, (params, grads) = OPTIMIZERS[name], problem()
    state = optimizer.init(params)
    for array in (*params.values(), *grads[0].values(), *state.values()):
        array.flags.writeable = False
    optimizer.update(params, grads[0], state)


def test_only_gradients_of_parameters_count_for_the_norm():
    """In training the gradients come with the statistics of the batch."""
    sgd, params = SGD(1.0, clip_norm=1.0), {"w": np.zeros(1)}
    new, _ = sgd.update(params, {"w": np.array([0.5]), "running_mean": np.array([1e3])}, {})
    assert new["w"] == -0.5


def test_the_norm_is_in_float64_and_does_not_depend_on_the_order():
    grads = {"a": np.full(3, 1e30, np.float32), "b": np.array([1e-3]), "c": np.asfortranarray(problem()[0]["w"])}
    assert global_norm({"a": grads["a"]}) == pytest.approx(np.sqrt(3) * 1e30, rel=1e-7)
    orders = ("abc", "cab", "bca")
    assert len({global_norm({name: grads[name] for name in order}) for order in orders}) == 1
    assert global_norm({"c": grads["c"]}) == global_norm({"c": np.ascontiguousarray(grads["c"])})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_does_not_hide_what_is_not_finite(bad):
    new, _ = SGD(1.0, clip_norm=1.0).update({"w": np.zeros(2)}, {"w": np.array([bad, 1.0])}, {})
    assert not np.isfinite(new["w"]).all()


@pytest.mark.parametrize("make, error, message", [
    (lambda: Adam(-1.0), ValueError, "lr must be positive"),
    (lambda: Adam(0.1, 0.9), TypeError, "betas must be a pair of numbers, got 0.9"),
    (lambda: Adam(0.1, (0.9, 1.0)), ValueError, r"betas\[1\] must be below 1"),
    (lambda: Adam(0.1, eps=0.0), ValueError, "eps must be positive"),
    (lambda: AdamW(0.1, weight_decay=-0.1), ValueError, "weight_decay must be positive"),
    (lambda: SGD(0.1, clip_norm=0.0), ValueError, "clip_norm must be positive"),
])
def test_bad_optimizers(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_every_optimizer_is_one():
    assert all(isinstance(optimizer, Optimizer) for optimizer in OPTIMIZERS.values())


def test_the_warm_up_is_a_line_and_the_fall_half_a_cosine():
    schedule = WarmupCosine(3, 11, start=0.25, end=0.125)
    epochs = np.linspace(0, 14, 57)
    expected = np.where(epochs < 3, np.interp(epochs, [0, 3], [0.25, 1]),
                        0.125 + 0.875 * np.cos(np.pi / 2 * (np.clip(epochs, 3, 11) - 3) / 8)**2)
    np.testing.assert_allclose([schedule(epoch) for epoch in epochs], expected, rtol=1e-14)
    assert schedule(0) == 0.25 and schedule(11) == schedule(99) == 0.125


def test_the_cosine_is_that_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    peer, schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9, eta_min=0.25), WarmupCosine(0, 9, end=0.25)
    for epoch in range(10):
        assert schedule(epoch) == pytest.approx(peer.get_last_lr()[0], rel=1e-13)
        optimizer.step()
        peer.step()


def test_steps_of_a_schedule_are_at_whole_epochs():
    schedule = StepSchedule((2, 3), 0.5)
    assert [schedule(epoch) for epoch in (0, 1.999, 2, 2.5, 3, 3.01)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("make, error, message", [
    (lambda: WarmupCosine(-1, 10), ValueError, "warmup must be positive"),
    (lambda: WarmupCosine(5, 5), ValueError, "total must be above warmup = 5, got 5"),
    (lambda: WarmupCosine(5, "10"), TypeError, "total must be a number"),
    (lambda: WarmupCosine(5, 10, start=1.5), ValueError, "start must be between 0 and 1"),
    (lambda: WarmupCosine(5, 10, end=-0.5), ValueError, "end must be between 0 and 1"),
])
def test_bad_schedules(make, error, message):
    with pytest.raises(error, match=message):
        make()
