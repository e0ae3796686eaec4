"""The loop over epochs and batches, and its checkpoints, for anything that can be trained."""

from __future__ import annotations

import hashlib
import os
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.training import check_training
from pitsolve.training.bar import Bar
from pitsolve.training.checkpoint import CheckpointError, load_checkpoint, one_run, save_checkpoint
from pitsolve.training.optimizers import Optimizer
from pitsolve.training.result import FitResult


@dataclass(frozen=True)
class Seeds:
    """The random numbers of one batch: functions of the seed of the run, the epoch and the batch, and of nothing else."""

    seed: int
    epoch: int
    batch: int

    def generator(self) -> np.random.Generator:
        """For the augmentation of the batch."""
        return np.random.default_rng((self.seed, self.epoch, 1 + self.batch))

    def number(self, call: int) -> int:
        """64 bits for each of several uses."""
        return int(np.random.SeedSequence((self.seed, self.epoch, 1 + self.batch, call)).generate_state(1, np.uint64)[0])


class Task:
    """What is trained, on what: steps give gradients and sums over the samples of a batch, the end of an epoch gives a row."""

    samples: int
    columns: tuple[str, ...]  # of the history, less "seconds"
    statistics: frozenset[str] = frozenset()  # names of parameters that no optimiser changes
    identity: dict[str, object]  # what must be the same for a run that goes on

    def step(self, params: Parameters, chosen: np.ndarray, seeds: Seeds) -> tuple[float, np.ndarray, Parameters]:
        """Loss and gradients of a batch, and the numbers that are added up over an epoch."""
        raise NotImplementedError

    def follow(self, params: Parameters, grads: Parameters) -> Parameters:
        """New values of the statistics."""
        return {}

    def row(self, params: Parameters, sums: np.ndarray) -> tuple[float, ...]:
        """One number for each column after an epoch."""
        raise NotImplementedError

    def words(self, sums: np.ndarray) -> dict[str, float]:
        """What the progress bar shows within an epoch."""
        raise NotImplementedError

    def begin(self, epoch: int, batch: int) -> None:
        """Before the first batch of an epoch, or after a checkpoint before another one."""

    def flush(self) -> None:
        """Before a checkpoint: whatever the task keeps in files of its own."""


@dataclass(frozen=True, eq=False)
class Progress:
    """Where training is: ``batches`` of epoch ``epoch`` are done, with their sums and seconds."""

    params: Parameters
    state: Parameters
    history: dict[str, list[float]]
    epoch: int = 0
    batches: int = 0
    sums: np.ndarray | None = None
    seconds: float = 0.0

    @property
    def result(self) -> FitResult:
        """What a user gets."""
        return FitResult(self.params, {name: np.array(values) for name, values in self.history.items()})


@dataclass(frozen=True, eq=False)
class Loop:
    """Everything that does not change while training."""

    task: Task
    optimizer: Optimizer
    schedule: Callable[[float], float] | None
    batch_size: int
    seed: int
    path: Path | None
    every: int | None
    show: bool = False

    def run(self, params: Parameters, epochs: int, after_epoch: Callable[[FitResult], None] | None) -> FitResult:
        """From the checkpoint, if there is one, to the number of epochs."""
        with one_run(self.path):
            return self._run(params, epochs, after_epoch)

    def _run(self, params: Parameters, epochs: int, after_epoch: Callable[[FitResult], None] | None) -> FitResult:
        progress = self._resume(params)
        with Bar(self.show, epochs, self.batches, progress) as bar:
            while progress.epoch < epochs:
                progress = self._epoch(progress, bar)
                if after_epoch is not None:
                    after_epoch(progress.result)
        return progress.result

    @property
    def batches(self) -> int:
        """Of an epoch."""
        return -(-self.task.samples // self.batch_size)

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.task.columns, "seconds")

    def _resume(self, params: Parameters) -> Progress:
        """The state in the checkpoint, or that before the first step."""
        if self.path is None or not self.path.exists():
            return Progress(params, self.optimizer.init(self._trained(params)), {name: [] for name in self._columns})
        found = load_checkpoint(self.path)
        if found.facts.get("kind") != "training":
            raise CheckpointError(f"{self.path} is a checkpoint, but not one of fit")
        theirs, ours = found.facts["identity"], self._identity()
        for name in {**ours, **theirs}:
            if theirs.get(name) != ours.get(name):
                raise CheckpointError(f"{self.path} belongs to another run: its {name} is {theirs.get(name)}, here it is "
                                      f"{ours.get(name)}; give another file as checkpoint, or remove this one")
        facts, arrays = found.facts, found.arrays
        history = {name: arrays["history"][name].tolist() for name in self._columns}
        return Progress(arrays["params"], arrays["state"], history, facts["epoch"], facts["batches"],
                        arrays["sums"].get("sums"), facts["seconds"])

    def _epoch(self, progress: Progress, bar: Bar) -> Progress:
        """The rest of an epoch, from any batch on."""
        order = np.random.default_rng((self.seed, progress.epoch, 0)).permutation(self.task.samples)
        self.task.begin(progress.epoch, progress.batches)
        for batch in range(progress.batches, self.batches):
            progress = self._batch(progress, order[batch * self.batch_size:(batch + 1) * self.batch_size])
            bar.step(self.task.words(progress.sums))
            if self.every and progress.batches % self.every == 0:
                self._save(progress)
        begin = time.perf_counter()
        row = self.task.row(progress.params, progress.sums)
        row = dict(zip(self._columns, (*row, progress.seconds + time.perf_counter() - begin), strict=True))
        history = {name: [*progress.history[name], value] for name, value in row.items()}
        progress = Progress(progress.params, progress.state, history, progress.epoch + 1)
        bar.epoch(progress.epoch, row)
        self._save(progress)
        return progress

    def _batch(self, progress: Progress, chosen: np.ndarray) -> Progress:
        """One step of the optimiser."""
        begin = time.perf_counter()
        try:
            value, sums, grads = self.task.step(progress.params, chosen, Seeds(self.seed, progress.epoch, progress.batches))
        except FloatingPointError as error:
            raise _not_finite(str(error), progress) from error
        if not np.isfinite(value):
            raise _not_finite(f"the loss is {value}", progress)
        factor = 1.0
        if self.schedule is not None:
            factor = check_training.factor(self.schedule(progress.epoch + progress.batches / self.batches))
        params, state = self.optimizer.update(self._trained(progress.params), self._trained(grads), progress.state, factor)
        params |= self.task.follow(progress.params, grads)
        for name, array in params.items():
            if not check.is_finite(array) and not np.isfinite(array).all():  # sums of finite numbers may overflow
                raise _not_finite(f"params[{name!r}] is no longer finite", progress)
        return replace(progress, params=params, state=state, batches=progress.batches + 1,
                       sums=sums if progress.sums is None else progress.sums + sums,
                       seconds=progress.seconds + time.perf_counter() - begin)

    def _trained(self, params: Parameters) -> Parameters:
        return {name: value for name, value in params.items() if name not in self.task.statistics}

    def _save(self, progress: Progress) -> None:
        if self.path is None:
            return
        self.task.flush()
        arrays = {"params": progress.params, "state": progress.state,
                  "sums": {} if progress.sums is None else {"sums": progress.sums},
                  "history": {name: np.array(values, np.float64) for name, values in progress.history.items()}}
        save_checkpoint(self.path, arrays, {"kind": "training", "identity": self._identity(), "epoch": progress.epoch,
                                            "batches": progress.batches, "seconds": progress.seconds})

    def _identity(self) -> dict[str, object]:
        return {**self.task.identity, "optimizer": repr(self.optimizer), "schedule": name_of(self.schedule), "seed": self.seed,
                "batch size": self.batch_size}


def train(
    task: Task, params: Parameters, *, optimizer: Optimizer, schedule: Callable[[float], float] | None, epochs: int,
    batch_size: int, seed: int, checkpoint: str | os.PathLike | None, checkpoint_every: int | None,
    after_epoch: Callable[[FitResult], None] | None, show: bool = False,
) -> FitResult:
    """Check what all training has in common, and run the loop."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an optimiser of pitsolve.training, got {type(optimizer).__name__}")
    for name, function in (("schedule", schedule), ("after_epoch", after_epoch)):
        check_training.function(name, function)
    every = None if checkpoint_every is None else check.count("checkpoint_every", checkpoint_every)
    loop = Loop(task, optimizer, schedule, batch_size, check.length("seed", seed),
                check_training.file_to_write("checkpoint", checkpoint), every, show)
    return loop.run(params, check.length("epochs", epochs), after_epoch)


def digest(value: object) -> str:
    """A few characters that differ where the representations differ, in more than where objects lie in memory."""
    return hashlib.sha256(re.sub(r" at 0x\w+", "", repr(value)).encode()).hexdigest()[:12]


def digest_of_arrays(*arrays: np.ndarray | None) -> str:
    """The shape of the first array, and what differs where a number in any of them does."""
    sums = "-".join(f"{zlib.crc32(np.ascontiguousarray(array)):08x}" for array in arrays if array is not None)
    return f"{'x'.join(map(str, arrays[0].shape))}, digest {sums}"


def name_of(function: object) -> str:
    """A function in words that are the same in the next process."""
    return repr(function) if is_dataclass(function) else getattr(function, "__qualname__", type(function).__name__)


def _not_finite(what: str, progress: Progress) -> FloatingPointError:
    return FloatingPointError(f"{what} in epoch {progress.epoch}, batch {progress.batches}; lower the rate of the optimiser or "
                              "the scale of the inputs")
