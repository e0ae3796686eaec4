"""Optimisers: frozen descriptions that turn parameters, gradients and a state into new ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pitsolve import check, check_training
from pitsolve.cells.base import Parameters


@dataclass(frozen=True)
class SGD:
    r"""Stochastic gradient descent with momentum and weight decay, as ``torch.optim.SGD``.

    .. math::
        g &= \nabla L(\theta) + \lambda \theta \\
        v &\leftarrow \mu v + g \\
        \theta &\leftarrow \theta - \eta v

    with v = 0 before the first step.

    Parameters
    ----------
    lr : float
        :math:`\eta`; a schedule multiplies it.
    momentum : float
        :math:`\mu`, from 0 up to but not 1.
    weight_decay : float
        :math:`\lambda`; applies to all parameters.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> sgd = ps.training.SGD(lr=0.1, momentum=0.9)
    >>> params = {"w": np.ones(1)}
    >>> state = sgd.init(params)
    >>> for _ in range(2):
    ...     params, state = sgd.update(params, {"w": np.ones(1)}, state)
    >>> params["w"].round(6), state["momentum.w"]
    (array([0.71]), array([1.9]))
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check.positive("lr", self.lr)
        check_training.momentum("momentum", self.momentum)
        check_training.not_negative("weight_decay", self.weight_decay)

    def init(self, params: Parameters) -> Parameters:
        """The state before the first step: v of each parameter, named "momentum." and its name."""
        return {f"momentum.{name}": np.zeros_like(value) for name, value in params.items()} if self.momentum else {}

    def update(self, params: Parameters, grads: Parameters, state: Parameters,
               factor: float = 1.0) -> tuple[Parameters, Parameters]:
        """New parameters and state; ``factor`` multiplies the rate."""
        new_params, new_state = {}, {}
        for name, value in params.items():
            number = value.dtype.type
            step = grads[name] + number(self.weight_decay) * value if self.weight_decay else grads[name]
            if self.momentum:
                step = new_state[f"momentum.{name}"] = number(self.momentum) * state[f"momentum.{name}"] + step
            new_params[name] = value - number(self.lr * factor) * step
        return new_params, new_state
