"""Layers of plain perceptrons: dense products, pointwise activations, residual blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu import images
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.layer import Composite, Layer, Sequence

# name -> (f(x), f' as a function of f(x))
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda y: y > 0),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "identity": (lambda x: x, np.ones_like),
}


@dataclass(frozen=True)
class Dense(Layer):
    r"""A product with a matrix, :math:`y = x W + b`.

    Parameters
    ----------
    inputs, outputs : int
        Widths of x (B, inputs) and y (B, outputs).
    bias : bool
        Whether there is b.

    Notes
    -----
    Parameters: ``weight`` (inputs, outputs) and ``bias`` (outputs,), uniform in [-1/sqrt(inputs), 1/sqrt(inputs)] as in
    PyTorch.

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.networks.Dense(6, 3).shapes
    {'weight': (6, 3), 'bias': (3,)}
    """

    inputs: int
    outputs: int
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs"):
            check.count(name, getattr(self, name))
        check.flag("bias", self.bias)

    @property
    def keeps_shape(self) -> bool:
        return self.inputs == self.outputs

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.inputs, self.outputs), **({"bias": (self.outputs,)} if self.bias else {})}

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        random, bound = np.random.default_rng(seed), 1.0 / math.sqrt(self.inputs)
        return {name: random.uniform(-bound, bound, shape).astype(dtype) for name, shape in self.shapes.items()}

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, np.ndarray]:
        x = check_layers.batch(self, p, x, (self.inputs,))
        y = images.convolve(_lines(x), p["weight"][None, None])[0].reshape(len(x), self.outputs)
        if self.bias:
            y += p["bias"]
        return y, x

    def backward(self, p: Parameters, saved: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dy = check_layers.output_gradient(self, dy, (len(saved), self.outputs), saved.dtype)
        dx, _, dweight = images.convolve_backward(_lines(saved), p["weight"][None, None], _lines(dy))
        return dx.reshape(saved.shape), {"weight": dweight[0, 0], **({"bias": dy.sum(axis=0)} if self.bias else {})}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape != (self.inputs,):
            raise ValueError(f"{self} takes inputs of shape {(self.inputs,)}, got {shape}")
        return (self.outputs,)

    def zero_preserving(self) -> Dense:
        return replace(self, bias=False)


def _lines(rows: np.ndarray) -> np.ndarray:
    """The rows as images of one line of pixels, for a 1 x 1 convolution: several where they are many, for several threads."""
    count = len(rows)
    length = next((size for size in range(512, 63, -1) if count % size == 0), count) if count > 512 else count
    return rows.reshape(count // length, 1, length, rows.shape[1])


@dataclass(frozen=True)
class Activation(Layer):
    """A pointwise function that takes zero to zero: ``"relu"``, ``"tanh"`` or ``"identity"``."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {self.name!r}")

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, np.ndarray]:
        y = ACTIVATIONS[self.name][0](x)
        return y, y

    def backward(self, p: Parameters, saved: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return dy * ACTIVATIONS[self.name][1](saved), {}

    def zero_preserving(self) -> Activation:
        return self


@dataclass(frozen=True)
class Residual(Composite):
    """y = x + branch(x), for a branch that keeps the shape."""

    branch: Layer

    @property
    def parts(self) -> tuple[tuple[str, Layer], ...]:
        return (("", self.branch),)

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, object]:
        y, saved = self.branch.forward(p, x, training)
        return x + y, saved

    def backward(self, p: Parameters, saved: object, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dx, grads = self.branch.backward(p, saved, dy)
        return dy + dx, grads

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.branch.output_shape(shape) != shape:
            raise ValueError(f"the branch of a residual block must keep the shape {shape} of its input, but gives "
                             f"{self.branch.output_shape(shape)}")
        return shape

    def zero_preserving(self) -> Residual:
        return Residual(self.branch.zero_preserving())


def residual_mlp(width: int, hidden: int, *, activation: str = "relu", bias: bool = True) -> Residual:
    r"""A residual block of two dense layers.

    .. math:: y = x + \sigma(x W_1 + b_1) W_2 + b_2

    Parameters
    ----------
    width : int
        Width of x and y.
    hidden : int
        Width between the two layers.
    activation : str
        :math:`\sigma`: ``"relu"``, ``"tanh"`` or ``"identity"``.
    bias : bool
        Whether there are biases.

    Returns
    -------
    Layer
        With parameters ``up.weight``, ``up.bias``, ``down.weight``, ``down.bias``.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> block = ps.networks.residual_mlp(3, 8)
    >>> block.forward(block.init(seed=5), np.ones((2, 3), np.float32), training=True)[0].shape
    (2, 3)
    """
    return Residual(Sequence((("up", Dense(width, hidden, bias)), ("activation", Activation(activation)),
                              ("down", Dense(hidden, width, bias)))))
