"""Loss and errors of a network on data, outside of training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_networks
from pitsolve.networks.network import Network
from pitsolve.training import check_training
from pitsolve.training.losses import cross_entropy


def evaluate(
    net: Network, params: Parameters, data: tuple[np.ndarray, np.ndarray], *, loss: Callable = cross_entropy,
    batch_size: int = 128, workers: int | None = None,
) -> tuple[float, float]:
    """Loss and share of wrong labels on data, with running statistics.

    Parameters
    ----------
    net : Chain or PararealNetwork
        The network.
    params : dict of ndarray
        Its parameters.
    data : tuple (inputs, labels or targets)
        As in :func:`fit`.
    loss : callable
        ``value, doutputs = loss(outputs, y)``, a mean over the samples.
    batch_size : int
        Samples at once.
    workers : int, optional
        Most subnetworks at once.

    Returns
    -------
    loss : float
    error : float
        NaN with targets that are not labels.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> from pitsolve.networks import Chain, Dense, residual_mlp
    >>> net = Chain(Dense(2, 8), (residual_mlp(8, 16),) * 3, Dense(8, 3))
    >>> loss, error = ps.networks.evaluate(net, net.init(seed=5), (np.ones((4, 2), np.float32), np.zeros(4, int)))
    >>> error in (0.0, 1.0)
    True
    """
    params = check_networks.network_parameters(net, params)
    check_training.function("loss", loss, optional=False)
    data = check_networks.batch(net, params, *check_training.pair("data", data), loss is cross_entropy, ("inputs", "labels"))
    return mean_over(net, params, data, loss, check.count("batch_size", batch_size), check_networks.workers(workers))


def mean_over(net, params, data, loss, batch_size, workers) -> tuple[float, float]:
    """The same for arguments that have been checked."""
    x, y = data
    total, wrong = 0.0, 0.0
    for begin in range(0, len(x), batch_size):
        part = slice(begin, begin + batch_size)
        outputs = net.infer(params, x[part], workers)
        value, _ = loss(outputs, y[part])
        total += value * len(outputs)
        wrong += wrong_labels(outputs, y[part])
    return total / len(x), wrong / len(x)


def wrong_labels(outputs: np.ndarray, y: np.ndarray) -> float:
    """Number of wrong labels; NaN if y are no labels."""
    labelled = y.ndim == 1 and y.dtype.kind in "iu" and outputs.ndim == 2
    return float((outputs.argmax(axis=1) != y).sum()) if labelled else np.nan
