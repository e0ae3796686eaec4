"""Training a network over epochs, with checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_networks
from pitsolve.networks.network import Network
from pitsolve.networks.task import NetworkTask
from pitsolve.training import check_training
from pitsolve.training.loop import train
from pitsolve.training.losses import cross_entropy
from pitsolve.training.optimizers import Optimizer
from pitsolve.training.result import FitResult


def fit(
    net: Network, params: Parameters, data: tuple[np.ndarray, np.ndarray], *, optimizer: Optimizer, epochs: int, seed: int = 0,
    schedule: Callable[[float], float] | None = None, batch_size: int = 128, loss: Callable = cross_entropy,
    augment: Callable | None = None, validation: tuple[np.ndarray, np.ndarray] | None = None,
    checkpoint: str | os.PathLike | None = None, checkpoint_every: int | None = None, recompute: bool | int = False,
    workers: int | None = None, after_epoch: Callable[[FitResult], None] | None = None,
) -> FitResult:
    r"""Train a network by mini-batches.

    Every random number is a function of the seed, the epoch and the batch, so that a run that goes on from a checkpoint makes
    the same steps as one that was never interrupted, to the last bit.

    Parameters
    ----------
    net : Chain or PararealNetwork
        The network.
    params : dict of ndarray
        Where it starts; not written to.
    data : tuple (ndarray (N, ...), ndarray (N,) of int or (N, K))
        Inputs, of the dtype of the parameters, and labels or targets.
    optimizer : SGD, Adam or AdamW
        Makes the steps.
    epochs : int
        Passes over the data. A run from a checkpoint continues to this number, or stays as it is if it is beyond.
    seed : int
        Of order and augmentation.
    schedule : callable, optional
        ``factor = schedule(epoch)`` multiplies the rate of the optimiser; the epoch is counted from 0 and has a fraction
        within it. See :class:`pitsolve.training.StepSchedule`.
    batch_size : int
        Samples of a step; the last batch of an epoch may be smaller.
    loss : callable
        ``value, doutputs = loss(outputs, y)``, a mean over the samples.
    augment : callable, optional
        ``inputs = augment(inputs, random)`` on each batch, such as :func:`crop_and_flip`.
    validation : tuple, optional
        Like ``data``, evaluated after each epoch with running statistics.
    checkpoint : path, optional
        File that holds the state of training, rewritten after each epoch. If it exists, training goes on from there.
    checkpoint_every : int, optional
        Rewrite it after so many batches too.
    recompute, workers
        As in :func:`loss_and_gradient`.
    after_epoch : callable, optional
        Receives the result so far, for printing.

    Returns
    -------
    FitResult
        Columns of its history: ``loss`` and ``error``, means over the batches of each epoch, in training; ``validation_loss``
        and ``validation_error``, after it; ``seconds`` of the epoch, validation included. Errors are shares of wrong labels.

    Raises
    ------
    TypeError, ValueError
        Arguments that do not fit each other.
    FloatingPointError
        The loss or a parameter is not finite. The checkpoint holds the last state before.
    CheckpointError
        The checkpoint is broken, in use by another run, or belongs to another network, optimiser, seed or data.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> from pitsolve.networks import Chain, Dense, residual_mlp
    >>> net = Chain(Dense(2, 8), (residual_mlp(8, 16),) * 3, Dense(8, 2))
    >>> x = np.random.default_rng(5).standard_normal((40, 2)).astype(np.float32)
    >>> data = x, (x[:, 0] > x[:, 1]).astype(int)
    >>> run = ps.networks.fit(net, net.init(seed=5), data, optimizer=ps.training.SGD(lr=0.1), epochs=20, seed=5, batch_size=10)
    >>> bool(run.history["loss"][-1] < run.history["loss"][0])
    True
    """
    params = check_networks.network_parameters(net, params)
    labelled, names = loss is cross_entropy, ("inputs", "labels")
    data = check_networks.batch(net, params, *check_training.pair("data", data), labelled, names)
    if validation is not None:
        validation = check_networks.batch(net, params, *check_training.pair("validation", validation), labelled,
                                          ("validation inputs", "validation labels"))
    check_training.function("loss", loss, optional=False)
    check_training.function("augment", augment)
    batch_size = check.count("batch_size", batch_size)
    task = NetworkTask(net, data, loss, augment, validation, batch_size, check_networks.blocks_recomputed(recompute),
                       check_networks.workers(workers))
    return train(task, params, optimizer=optimizer, schedule=schedule, epochs=epochs, batch_size=batch_size, seed=seed,
                 checkpoint=checkpoint, checkpoint_every=checkpoint_every, after_epoch=after_epoch)
