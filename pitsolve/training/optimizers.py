"""Optimisers: frozen descriptions that turn parameters, gradients and a state into new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.training import check_training


def global_norm(grads: Parameters) -> float:
    r"""The 2-norm of all gradients as one vector.

    .. math:: \|g\| = \Big( \sum_{k, i} g_{k, i}^2 \Big)^{1/2}

    The sum is in float64 and goes through the names in alphabetical order, so that its bits do not depend on the order of the
    dict.

    Parameters
    ----------
    grads : dict of ndarray
        g.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> ps.training.global_norm({"w": np.array([2.0, 4.0]), "b": np.array([4.0])})
    6.0
    """
    total = 0.0
    with np.errstate(over="ignore"):  # an infinite norm says so itself
        for name in sorted(grads):
            total += float(np.square(grads[name].ravel(), dtype=np.float64).sum())
    return math.sqrt(total)


class Optimizer:
    """What all optimisers have: frozen fields, among them ``lr`` and ``clip_norm``, a state of named arrays, and its update."""

    lr: float
    weight_decay: float
    clip_norm: float | None

    def __post_init__(self) -> None:
        check.positive("lr", self.lr)
        check_training.not_negative("weight_decay", self.weight_decay)
        if self.clip_norm is not None:
            check.positive("clip_norm", self.clip_norm)

    def init(self, params: Parameters) -> Parameters:
        """The state before the first step."""
        raise NotImplementedError

    def update(self, params: Parameters, grads: Parameters, state: Parameters,
               factor: float = 1.0) -> tuple[Parameters, Parameters]:
        """New parameters and state; ``factor`` multiplies the rate. ``grads`` may have more names than ``params``."""
        raise NotImplementedError

    def clipped(self, params: Parameters, grads: Parameters) -> Parameters:
        """The gradients of ``params``, scaled down to the norm ``clip_norm`` where theirs is larger."""
        grads = {name: grads[name] for name in params}
        if self.clip_norm is None:
            return grads
        scale = self.clip_norm / (global_norm(grads) + 1e-6)  # 1e-6 as in PyTorch
        if not 0 < scale < 1:  # a norm that is not finite is left to whoever checks the new parameters
            return grads
        return {name: value * value.dtype.type(scale) for name, value in grads.items()}


@dataclass(frozen=True)
class SGD(Optimizer):
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
    clip_norm : float, optional
        The gradient is scaled down to this 2-norm if it is larger, as by ``torch.nn.utils.clip_grad_norm_``; see
        :func:`global_norm`.

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
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training.momentum("momentum", self.momentum)

    def init(self, params: Parameters) -> Parameters:
        """The state before the first step: v of each parameter, named "momentum." and its name."""
        return {f"momentum.{name}": np.zeros_like(value) for name, value in params.items()} if self.momentum else {}

    def update(self, params: Parameters, grads: Parameters, state: Parameters,
               factor: float = 1.0) -> tuple[Parameters, Parameters]:
        """New parameters and state; ``factor`` multiplies the rate."""
        new_params, new_state, grads = {}, {}, self.clipped(params, grads)
        for name, value in params.items():
            number = value.dtype.type
            step = grads[name] + number(self.weight_decay) * value if self.weight_decay else grads[name]
            if self.momentum:
                step = new_state[f"momentum.{name}"] = number(self.momentum) * state[f"momentum.{name}"] + step
            new_params[name] = value - number(self.lr * factor) * step
        return new_params, new_state


@dataclass(frozen=True)
class Adam(Optimizer):
    r"""Adam, as ``torch.optim.Adam``.

    .. math::
        g &= \nabla L(\theta) + \lambda \theta \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta - \eta \, \frac{m / (1 - \beta_1^k)}{\sqrt{v / (1 - \beta_2^k)} + \epsilon}

    in step k = 1, 2, ..., with m = v = 0 before the first one.

    Parameters
    ----------
    lr : float
        :math:`\eta`; a schedule multiplies it.
    betas : tuple of float
        :math:`\beta_1` and :math:`\beta_2`, from 0 up to but not 1.
    eps : float
        :math:`\epsilon`.
    weight_decay : float
        :math:`\lambda`, of an L2 penalty; applies to all parameters.
    clip_norm : float, optional
        The gradient is scaled down to this 2-norm if it is larger, as by ``torch.nn.utils.clip_grad_norm_``; see
        :func:`global_norm`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> adam = ps.training.Adam(lr=0.1)
    >>> params = {"w": np.ones(1)}
    >>> params, state = adam.update(params, {"w": np.array([5.0])}, adam.init(params))
    >>> params["w"].round(6), state["step"]
    (array([0.9]), array(1))
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "betas", check_training.betas(self.betas))
        check.positive("eps", self.eps)

    def init(self, params: Parameters) -> Parameters:
        """The state before the first step: "step" counts them; m and v of a parameter have "mean." and "square." in front."""
        moments = {f"{moment}.{name}": np.zeros_like(value) for moment in ("mean", "square") for name, value in params.items()}
        return {"step": np.array(0), **moments}

    def update(self, params: Parameters, grads: Parameters, state: Parameters,
               factor: float = 1.0) -> tuple[Parameters, Parameters]:
        """New parameters and state; ``factor`` multiplies the rate."""
        count = int(state["step"]) + 1
        rate, corrections = self.lr * factor, [1 - beta**count for beta in self.betas]
        new_params, new_state, grads = {}, {"step": np.array(count)}, self.clipped(params, grads)
        for name, value in params.items():
            number = value.dtype.type
            value, gradient = self._decayed(value, grads[name], rate)
            first, second = (number(beta) * state[f"{moment}.{name}"] + number(1 - beta) * power for moment, beta, power
                             in zip(("mean", "square"), self.betas, (gradient, gradient * gradient), strict=True))
            new_state[f"mean.{name}"], new_state[f"square.{name}"] = first, second
            scale = np.sqrt(second) / number(math.sqrt(corrections[1])) + number(self.eps)
            new_params[name] = value - number(rate / corrections[0]) * (first / scale)
        return new_params, new_state

    def _decayed(self, value: np.ndarray, gradient: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Parameter and gradient after weight decay."""
        return value, gradient + value.dtype.type(self.weight_decay) * value if self.weight_decay else gradient


@dataclass(frozen=True)
class AdamW(Adam):
    r"""Adam with decoupled weight decay, as ``torch.optim.AdamW``.

    .. math:: \theta \leftarrow (1 - \eta \lambda) \theta

    comes before the step of :class:`Adam`, whose gradient knows nothing of :math:`\lambda`.

    Parameters
    ----------
    lr, betas, eps, clip_norm
        As in :class:`Adam`.
    weight_decay : float
        :math:`\lambda`; applies to all parameters.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> adam = ps.training.AdamW(lr=0.1, weight_decay=0.5)
    >>> params = {"w": np.ones(1)}
    >>> adam.update(params, {"w": np.array([5.0])}, adam.init(params))[0]["w"].round(6)
    array([0.85])
    """

    weight_decay: float = 0.01

    def _decayed(self, value: np.ndarray, gradient: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
        return value.dtype.type(1 - rate * self.weight_decay) * value, gradient
