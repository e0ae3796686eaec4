"""The loss of a network on a batch, and its gradient by all parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.networks import check_networks
from pitsolve.networks.network import Network
from pitsolve.networks.timings import Clock, Timings
from pitsolve.training import check_training
from pitsolve.training.losses import cross_entropy


def loss_and_gradient(
    net: Network, params: Parameters, x: np.ndarray, y: np.ndarray, *, loss: Callable = cross_entropy,
    recompute: bool | int = False, workers: int | None = None,
) -> tuple[float, Parameters, Timings]:
    r"""Loss L of a network on a batch in training, and dL/dtheta by back-propagation.

    The subnetworks of a parareal network run at once, forward and backward; only its coarse sweep is serial. The result has the
    same bits however many run at once.

    Parameters
    ----------
    net : Chain or PararealNetwork
        The network.
    params : dict of ndarray
        Its parameters, float32 or float64.
    x : ndarray (B, ...)
        Inputs, of the dtype of the parameters.
    y : ndarray (B,) of int, or (B, K)
        Labels, or targets of the loss.
    loss : callable
        ``value, doutputs = loss(outputs, y)``.
    recompute : bool or int
        Whether blocks keep their input only and are run forward again on the way back; a number k lets k blocks share one
        input. Same bits, less memory, about a third more time.
    workers : int, optional
        Most subnetworks at once. Default: the number of Numba's threads; they are divided among the workers.

    Returns
    -------
    loss : float
    grads : dict of ndarray
        dL/dtheta by name. In the place of a running statistic, the statistic of this batch.
    timings : Timings
        Seconds, in the columns of the paper's Table 2.

    Raises
    ------
    TypeError, ValueError
        Arguments that do not fit each other.

    References
    ----------
    Lee, Park and Lee, TNNLS 2022, section 5.2 (the timings).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> from pitsolve.networks import Chain, Dense, residual_mlp
    >>> net = ps.networks.parareal(Chain(Dense(2, 8), (residual_mlp(8, 16),) * 6, Dense(8, 3)), subnetworks=2)
    >>> params, x = net.init(seed=5), np.ones((4, 2), np.float32)
    >>> loss, grads, timings = ps.networks.loss_and_gradient(net, params, x, np.array([0, 1, 2, 0]))
    >>> sorted(grads) == sorted(params), len(timings.subnetworks)
    (True, 2)
    """
    params = check_networks.network_parameters(net, params)
    check_training.function("loss", loss, optional=False)
    x, y = check_networks.batch(net, params, x, y, loss is cross_entropy)
    recompute, workers = check_networks.blocks_recomputed(recompute), check_networks.workers(workers)
    value, _, grads, timings = step(net, params, x, y, loss, recompute, workers)
    return value, grads, timings


def step(net, params, x, y, loss, recompute, workers) -> tuple[float, np.ndarray, Parameters, Timings]:
    """Loss, outputs, gradients and timings, for arguments that have been checked."""
    clock = Clock()
    outputs, saved = net.run(params, x, True, recompute, workers, clock)
    with clock("postprocessing"):
        value, doutputs = loss(outputs, y)
    check_training.loss_gradient(doutputs, outputs)
    _, grads = net.pull(params, saved, doutputs, recompute, workers, clock)
    return value, outputs, grads, clock.timings(net.subnetworks)
