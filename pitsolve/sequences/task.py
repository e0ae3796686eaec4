"""What the training loop needs to know of a model on sequences."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.sequences import check_sequences
from pitsolve.sequences.evaluation import Evaluation
from pitsolve.sequences.model import SequenceModel
from pitsolve.sequences.solver import EXACT, Solver
from pitsolve.sequences.warm_start import WarmStart
from pitsolve.training import check_training
from pitsolve.training.loop import Seeds, Task, digest, digest_of_arrays, name_of
from pitsolve.training.optimizers import global_norm

Data = tuple[np.ndarray, np.ndarray, np.ndarray | None]

_LOSS, _RIGHT, _COUNTED, _COLD, _COLD_SEQUENCES, _ERROR, _ERRORS = range(7)  # sums of an epoch; counts of Health follow


@dataclass(frozen=True, eq=False)
class SequenceTask(Task):
    """A model, its data and its solver."""

    model: SequenceModel
    data: Data
    loss: Callable
    solver: Solver
    augment: Callable | None
    validation: Data | None
    batch_size: int
    warm: WarmStart | None
    compare: bool  # whether the gradient of one batch an epoch is compared with the exact one

    columns = ("loss", "accuracy", "validation_loss", "validation_accuracy", "iterations", "fallbacks", "loops",
               "cold_iterations", "gradient_error", "peak_memory")

    @property
    def samples(self) -> int:
        return len(self.data[0])

    def begin(self, epoch: int, batch: int) -> None:
        if self.warm is not None:
            self.warm.begin(epoch, batch)

    def flush(self) -> None:
        if self.warm is not None:
            self.warm.flush()

    def step(self, params: Parameters, chosen: np.ndarray, seeds: Seeds) -> tuple[float, np.ndarray, Parameters]:
        x, y, lengths = batch_of(self.data, chosen)
        if self.augment is not None:
            x = check_sequences.augmented(self.augment(x, seeds.generator()), x, lengths)
        guesses = None
        if self.warm is not None:
            def guesses(call: int) -> np.ndarray | None:
                return self.warm.guess(chosen, call, x.shape[1])
        run = Evaluation(self.solver, lengths, seeds.number, guesses)
        value, outputs, grads = loss_and_gradient(self.model, params, x, y, self.loss, run)
        sums = np.zeros(_ERRORS + 1)
        sums[[_LOSS, _RIGHT, _COUNTED]] = totals(value, outputs, y, lengths)
        if seeds.batch == 0 and self.warm is not None and self.warm.warm:
            cold = Evaluation(self.solver, lengths, seeds.number)
            self.model.forward(params, x, cold)
            sums[[_COLD, _COLD_SEQUENCES]] = cold.health.counts[[1, 0]]
        if seeds.batch == 0 and self.compare:
            exact = loss_and_gradient(self.model, params, x, y, self.loss, Evaluation(EXACT, lengths, seeds.number))[2]
            if norm := global_norm(exact):
                sums[[_ERROR, _ERRORS]] = global_norm({name: grads[name] - exact[name] for name in exact}) / norm, 1
        if self.warm is not None:
            self.warm.put(chosen, run.solutions)
        return value, np.concatenate([sums, run.health.counts]), grads

    def row(self, params: Parameters, sums: np.ndarray) -> tuple[float, ...]:
        after = (np.nan, np.nan)
        if self.validation is not None:
            after = mean_over(self.model, params, self.validation, self.loss, self.solver, self.batch_size)
        sequences, iterations, fallbacks, loops = sums[_ERRORS + 1:]
        return (*_means(sums), *after, iterations / sequences, fallbacks, loops, _ratio(sums[_COLD], sums[_COLD_SEQUENCES]),
                _ratio(sums[_ERROR], sums[_ERRORS]), peak_memory())

    def words(self, sums: np.ndarray) -> dict[str, float]:
        loss, accuracy = _means(sums)
        sequences, iterations, fallbacks, _ = sums[_ERRORS + 1:]
        shown = {"loss": loss, "accuracy": accuracy, "iterations": iterations / sequences, "fallbacks": fallbacks}
        return {name: value for name, value in shown.items() if np.isfinite(value)}

    @cached_property
    def identity(self) -> dict[str, object]:
        shapes = sorted((name, *shape, str(self.data[0].dtype)) for name, shape in self.model.shapes.items())
        return {"model": f"{type(self.model).__name__}, parameters {digest(shapes)}",
                "digest of layers": digest(self.model.network), "loss": name_of(self.loss),
                "augmentation": name_of(self.augment), "data": digest_of_arrays(*self.data)}


def batch_of(data: Data, chosen: np.ndarray | slice) -> Data:
    """Some samples, cut to the longest of them in multiples of 64 steps, so that products share well among threads."""
    x, y, lengths = data
    if lengths is None:
        return x[chosen], y[chosen], None
    lengths = lengths[chosen]
    steps = -(-int(lengths.max()) // 64) * 64
    each = y.ndim == (2 if y.dtype.kind == "i" else 3)
    return x[chosen][:, :steps], y[chosen][:, :steps] if each else y[chosen], lengths


def loss_and_gradient(model: SequenceModel, params: Parameters, x: np.ndarray, y: np.ndarray, loss: Callable, run: Evaluation):
    """Loss, outputs and gradients of a batch that has been checked."""
    outputs, saved = model.forward(params, x, run)
    value, doutputs = value_and_derivative(loss, outputs, y, run.lengths)
    check_training.loss_gradient(doutputs, outputs)
    if not np.isfinite(value):  # there is no gradient to go back with
        raise FloatingPointError(f"the loss is {value}")
    return value, outputs, model.backward(params, saved, doutputs)[1]


def value_and_derivative(loss: Callable, outputs: np.ndarray, y: np.ndarray, lengths: np.ndarray | None):
    """The loss; the steps past the end of a sequence do not count: labels there are -1, of targets the loss is told."""
    counted = ()
    if lengths is not None and outputs.ndim == 3 and y.dtype.kind == "f":
        counted = (np.arange(outputs.shape[1]) < lengths[:, None],)
    return check_training.loss_result(loss(outputs, y, *counted))


def totals(value: float, outputs: np.ndarray, y: np.ndarray, lengths: np.ndarray | None) -> tuple[float, float, int]:
    """Loss times the number of sequences or steps that count, right labels (NaN without labels), that number."""
    if y.dtype.kind in "iu":
        counted = int((y >= 0).sum())
        return value * counted, float((outputs.argmax(axis=-1) == y).sum()), counted
    counted = len(y) if y.ndim == 2 else y.shape[0] * y.shape[1] if lengths is None else int(lengths.sum())
    return value * counted, np.nan, counted


def mean_over(model: SequenceModel, params: Parameters, data: Data, loss: Callable, solver: Solver, batch_size: int):
    """Loss and accuracy on data, without dropout."""
    sums = np.zeros(3)
    for begin in range(0, len(data[0]), batch_size):
        x, y, lengths = batch_of(data, slice(begin, begin + batch_size))
        outputs, _ = model.forward(params, x, Evaluation(solver, lengths))
        sums += totals(value_and_derivative(loss, outputs, y, lengths)[0], outputs, y, lengths)
    return _means(sums)


def _means(sums: np.ndarray) -> tuple[float, float]:
    return _ratio(sums[_LOSS], sums[_COUNTED]), _ratio(sums[_RIGHT], sums[_COUNTED])


def _ratio(total: float, count: float) -> float:
    return total / count if count else np.nan


def peak_memory() -> float:
    """Bytes of physical memory that this process has had at most; NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return np.nan
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
