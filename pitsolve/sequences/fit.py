"""Training of models on sequences, through any of the solvers, with checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.sequences import check_sequences
from pitsolve.sequences.model import SequenceModel
from pitsolve.sequences.solver import Solver
from pitsolve.sequences.task import SequenceTask, mean_over
from pitsolve.sequences.warm_start import WarmStart
from pitsolve.training import check_training
from pitsolve.training.loop import train
from pitsolve.training.optimizers import Optimizer
from pitsolve.training.result import FitResult

_MEMORY = 1 << 30  # of a warm start that is asked for by True


def fit(
    model: SequenceModel, params: Parameters, data: tuple, *, optimizer: Optimizer, epochs: int, batch_size: int = 32,
    validation: tuple | None = None, method: str | Solver = "auto", schedule: Callable[[float], float] | None = None,
    loss: Callable | None = None, seed: int = 0, augment: Callable | None = None, warm_start: bool | int = False,
    gradient_error: bool | None = None, checkpoint: str | os.PathLike | None = None, checkpoint_every: int | None = None,
    progress: bool = False, after_epoch: Callable[[FitResult], None] | None = None,
) -> FitResult:
    r"""Train a model on sequences by mini-batches.

    Every random number is a function of the seed, the epoch and the batch, so that a run that goes on from a checkpoint makes
    the same steps as one that was never interrupted, to the last bit; no result depends on the number of threads.

    Parameters
    ----------
    model : SequenceClassifier or SequenceRegressor
        The model.
    params : dict of ndarray
        Where it starts, float32 or float64; not written to.
    data : tuple (x, y) or (x, y, lengths)
        Inputs (N, T, m), of the dtype of the parameters; labels (N,), or (N, T) with ``readout="each"``, or targets (N, K) or
        (N, T, K) of a regressor; lengths (N,) of ragged sequences. A label of -1 does not count.
    optimizer : SGD, Adam or AdamW
        Makes the steps.
    epochs : int
        Passes over the data. A run from a checkpoint continues to this number, or stays as it is if it is beyond.
    batch_size : int
        Samples of a step; the last batch of an epoch may be smaller.
    validation : tuple, optional
        Like ``data``, evaluated after each epoch with the same solver.
    method : str or Solver
        How recurrent layers are solved: a method of :func:`pitsolve.solve` with its default options, or a :class:`Solver`.
    schedule : callable, optional
        ``factor = schedule(epoch)`` multiplies the rate of the optimiser; the epoch is counted from 0 and has a fraction
        within it. See :class:`WarmupCosine` and :class:`StepSchedule`.
    loss : callable, optional
        ``value, doutputs = loss(outputs, y)``, a mean over what counts. Labels that do not count are -1; with targets for
        each step of ragged sequences it is called as ``loss(outputs, y, counted)``, with a mask (B, T). Default: that of the
        model, :func:`cross_entropy` or :func:`mean_squared`.
    seed : int
        Of order, augmentation and dropout.
    augment : callable, optional
        ``inputs = augment(inputs, random)`` on each batch; must not change its shape.
    warm_start : bool or int
        Whether each sample's states of the previous epoch are the first iterate of the solver; a number is the most bytes to
        keep, 1 GiB with True. With a checkpoint they are files beside it, else in memory. What does not fit starts cold.
        Not with ``"parareal"``, nor with ``nested`` or ``skip_first`` of ``"mgrit"``; ``"sequential"`` has no use for it.
    gradient_error : bool, optional
        Whether the gradient of the first batch of each epoch is compared with the exact one. Default: where the solver is
        truncated.
    checkpoint : path, optional
        File that holds the state of training, rewritten after each epoch. If it exists, training goes on from there.
    checkpoint_every : int, optional
        Rewrite it after so many batches too.
    progress : bool
        Whether to show a progress bar (on a terminal, where tqdm is installed), or else a line an epoch.
    after_epoch : callable, optional
        Receives the result so far.

    Returns
    -------
    FitResult
        Columns of its history, one number an epoch: ``loss``, ``accuracy`` (share of right labels) in training;
        ``validation_loss``, ``validation_accuracy`` after it. ``iterations``: mean over all solves, one for each sequence in
        each recurrent layer; ``fallbacks``: solves that did not converge and were finished by the loop; ``loops``: solves for
        which the loop was chosen; ``cold_iterations``: of the first batch, had it not been started warm. ``gradient_error``:
        relative, in the 2-norm over all parameters. ``peak_memory``: most bytes that the process has had so far. ``seconds``:
        of the epoch, validation included.

    Raises
    ------
    TypeError, ValueError
        Arguments that do not fit each other.
    FloatingPointError
        The loss or a parameter is not finite. The checkpoint holds the last state before.
    CheckpointError
        The checkpoint is broken, in use by another run, or belongs to another model, optimiser, seed or data.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> x = np.random.default_rng(5).standard_normal((40, 30, 1)).astype(np.float32)
    >>> data = x, (x.mean(axis=(1, 2)) > 0).astype(int)
    >>> model = ps.training.SequenceClassifier(input_size=1, hidden=8, classes=2)
    >>> run = ps.training.fit(model, model.init(seed=3), data, optimizer=ps.training.Adam(0.01), epochs=10, batch_size=10)
    >>> bool(run.history["loss"][-1] < run.history["loss"][0])
    True
    """
    params, loss, data = _checked(model, params, loss, data)
    if validation is not None:
        validation = check_sequences.data(model, params, validation, "validation")
    check_sequences.loss(loss, data, validation)
    check_training.function("augment", augment)
    path, show = check_training.file_to_write("checkpoint", checkpoint), check.flag("progress", progress)
    solver, batch_size, warm = Solver.of(method), check.count("batch_size", batch_size), None
    if warm_start is not False:
        memory = _MEMORY if warm_start is True else check.count("warm_start", warm_start)
        check_sequences.warmed(solver)
    if warm_start is not False and solver.method != "sequential":
        warm = WarmStart(len(data[0]), data[0].shape[1], memory, path)
    compare = solver.truncated if gradient_error is None else check.flag("gradient_error", gradient_error)
    task = SequenceTask(model, data, loss, solver, augment, validation, batch_size, warm, compare)
    return train(task, params, optimizer=optimizer, schedule=schedule, epochs=epochs, batch_size=batch_size, seed=seed,
                 checkpoint=checkpoint, checkpoint_every=checkpoint_every, after_epoch=after_epoch, show=show)


def evaluate(model: SequenceModel, params: Parameters, data: tuple, *, method: str | Solver = "auto",
             loss: Callable | None = None, batch_size: int = 32) -> tuple[float, float]:
    """Loss and accuracy of a model on data, without dropout.

    Parameters
    ----------
    model : SequenceClassifier or SequenceRegressor
        The model.
    params : dict of ndarray
        Its parameters.
    data : tuple (x, y) or (x, y, lengths)
        As in :func:`fit`.
    method : str or Solver
        How recurrent layers are solved.
    loss : callable, optional
        As in :func:`fit`.
    batch_size : int
        Samples at once.

    Returns
    -------
    loss : float
    accuracy : float
        Share of right labels; NaN with targets that are not labels.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> model = ps.training.SequenceClassifier(input_size=1, hidden=8, classes=2)
    >>> data = np.ones((4, 30, 1), np.float32), np.zeros(4, int)
    >>> ps.training.evaluate(model, model.init(seed=3), data)[1] in (0.0, 1.0)
    True
    """
    params, loss, data = _checked(model, params, loss, data)
    check_sequences.loss(loss, data)
    return mean_over(model, params, data, loss, Solver.of(method), check.count("batch_size", batch_size))


def _checked(model: object, params: object, loss: object, data: object):
    """Parameters, loss and data that fit a model."""
    if not isinstance(model, SequenceModel):
        raise TypeError("model must be a SequenceClassifier or SequenceRegressor of pitsolve.training, got "
                        f"{type(model).__name__}")
    params = check.parameters(model, params)
    loss = model.loss if loss is None else check_training.function("loss", loss, optional=False)
    return params, loss, check_sequences.data(model, params, data, "data")
