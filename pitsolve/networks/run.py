"""The loop over epochs and batches, and its checkpoints."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pitsolve import check, check_training
from pitsolve.cells.base import Parameters
from pitsolve.networks.evaluate import mean_over, wrong_labels
from pitsolve.networks.loss_and_gradient import step
from pitsolve.networks.network import Network
from pitsolve.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from pitsolve.training.optimizers import Optimizer

_STATISTICS_MOMENTUM = 0.1  # share of a new batch in running statistics, as in PyTorch
_COLUMNS = ("loss", "error", "validation_loss", "validation_error", "seconds")


@dataclass(frozen=True, eq=False)
class Progress:
    """Where training is: ``batches`` of epoch ``epoch`` are done, with their sums of loss, wrong labels and seconds."""

    params: Parameters
    state: Parameters
    history: dict[str, list[float]]
    epoch: int = 0
    batches: int = 0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that does not change while training."""

    net: Network
    data: tuple[np.ndarray, np.ndarray]
    optimizer: Optimizer
    schedule: Callable[[int], float]
    batch_size: int
    seed: int
    loss: Callable
    augment: Callable | None
    validation: tuple[np.ndarray, np.ndarray] | None
    path: Path | None
    every: int | None
    recompute: int
    workers: int | None

    def resume(self, params: Parameters) -> Progress:
        """The state in the checkpoint, or that before the first step."""
        if self.path is None or not self.path.exists():
            return Progress(params, self.optimizer.init(self._trained(params)), {name: [] for name in _COLUMNS})
        found = load_checkpoint(self.path)
        if found.facts.get("kind") != "training":
            raise CheckpointError(f"{self.path} is a checkpoint, but not one of fit")
        for name, value in found.facts["identity"].items():
            if value != self._identity[name]:
                raise CheckpointError(f"{self.path} belongs to another run: its {name} is {value}, here it is "
                                      f"{self._identity[name]}; give another file as checkpoint, or remove this one")
        facts, arrays = found.facts, found.arrays
        history = {name: arrays["history"][name].tolist() for name in _COLUMNS}
        return Progress(arrays["params"], arrays["state"], history, facts["epoch"], facts["batches"],
                        tuple(arrays["sums"]["sums"].tolist()))

    def epoch(self, progress: Progress) -> Progress:
        """The rest of an epoch, from any batch on."""
        order = self._random(progress.epoch, 0).permutation(len(self.data[0]))
        for batch in range(progress.batches, -(-len(order) // self.batch_size)):
            chosen = order[batch * self.batch_size:(batch + 1) * self.batch_size]
            progress = self._batch(progress, chosen)
            if self.every and progress.batches % self.every == 0:
                self._save(progress)
        begin = time.perf_counter()
        after = (np.nan, np.nan)
        if self.validation is not None:
            after = mean_over(self.net, progress.params, self.validation, self.loss, self.batch_size, self.workers)
        total, wrong, seconds = progress.sums
        row = (total / len(order), wrong / len(order), *after, seconds + time.perf_counter() - begin)
        history = {name: [*progress.history[name], value] for name, value in zip(_COLUMNS, row, strict=True)}
        progress = Progress(progress.params, progress.state, history, progress.epoch + 1)
        self._save(progress)
        return progress

    def _batch(self, progress: Progress, chosen: np.ndarray) -> Progress:
        """One step of the optimiser."""
        begin = time.perf_counter()
        x, y = self.data[0][chosen], self.data[1][chosen]
        if self.augment is not None:
            x = check_training.augmented(self.net, self.augment(x, self._random(progress.epoch, 1 + progress.batches)), x)
        value, outputs, grads, _ = step(self.net, progress.params, x, y, self.loss, self.recompute, self.workers)
        if not np.isfinite(value):
            raise _not_finite(f"the loss is {value}", progress)
        params, state = self.optimizer.update(self._trained(progress.params), grads, progress.state,
                                              self.schedule(progress.epoch))
        for name in self.net.statistics:
            share = grads[name].dtype.type(_STATISTICS_MOMENTUM)
            params[name] = (1 - share) * progress.params[name] + share * grads[name]
        for name, array in params.items():
            if not check.is_finite(array) and not np.isfinite(array).all():  # sums of finite numbers may overflow
                raise _not_finite(f"params[{name!r}] is no longer finite", progress)
        total, wrong, seconds = progress.sums
        sums = (total + value * len(chosen), wrong + wrong_labels(outputs, y), seconds + time.perf_counter() - begin)
        return replace(progress, params=params, state=state, batches=progress.batches + 1, sums=sums)

    def _trained(self, params: Parameters) -> Parameters:
        return {name: value for name, value in params.items() if name not in self._statistics}

    @cached_property
    def _statistics(self) -> frozenset[str]:
        return frozenset(self.net.statistics)

    def _random(self, epoch: int, use: int) -> np.random.Generator:
        """The generator of the order of an epoch (use 0), or of the augmentation of a batch (1 and up)."""
        return np.random.default_rng((self.seed, epoch, use))

    def _save(self, progress: Progress) -> None:
        if self.path is None:
            return
        arrays = {"params": progress.params, "state": progress.state, "sums": {"sums": np.array(progress.sums)},
                  "history": {name: np.array(values) for name, values in progress.history.items()}}
        save_checkpoint(self.path, arrays, {"kind": "training", "identity": self._identity,
                                            "epoch": progress.epoch, "batches": progress.batches})

    @cached_property
    def _identity(self) -> dict[str, object]:
        """What must be the same for a run that goes on."""
        inputs, labels = self.data
        shapes = sorted((name, *shape, str(inputs.dtype)) for name, shape in self.net.shapes.items())
        layers = re.sub(r" at 0x\w+", "", repr(self.net.parts))  # objects without a repr of their own: not where they are
        return {"network": f"{self.net!r}, parameters {_digest(shapes)}", "digest of layers": _digest(layers),
                "optimizer": repr(self.optimizer), "schedule": _name(self.schedule), "seed": self.seed,
                "batch size": self.batch_size, "loss": _name(self.loss), "augmentation": _name(self.augment),
                "data": f"{'x'.join(map(str, inputs.shape))}, labels {zlib.crc32(np.ascontiguousarray(labels)):08x}"}


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _not_finite(what: str, progress: Progress) -> FloatingPointError:
    return FloatingPointError(f"{what} in epoch {progress.epoch}, batch {progress.batches}; lower the rate of the optimiser or "
                              "the scale of the inputs")


def _name(function: object) -> str:
    """A function in words that are the same in the next process."""
    return repr(function) if is_dataclass(function) else getattr(function, "__qualname__", type(function).__name__)
