"""Convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu import images
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.layer import Layer


@dataclass(frozen=True)
class Convolution(Layer):
    r"""A convolution of images without bias, zeros beyond the border.

    .. math:: y_{i,j,c} = \sum_{a,b,d} w_{a,b,d,c} \, x_{s i + a - r,\, s j + b - r,\, d}, \qquad r = (k - 1) / 2

    Parameters
    ----------
    inputs, outputs : int
        Channels of x (B, H, W, inputs) and y (B, H', W', outputs), H' = ceil(H / s).
    size : int
        Odd k: 1, 3, ...
    stride : int
        s.

    Notes
    -----
    Parameter: ``weight`` (k, k, inputs, outputs), normal with variance 2 / (k k inputs) at first.

    References
    ----------
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation (10).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> layer = ps.networks.Convolution(3, 16, stride=2)
    >>> layer.forward(layer.init(seed=5), np.ones((2, 8, 8, 3), np.float32), training=True)[0].shape
    (2, 4, 4, 16)
    """

    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "stride"):
            check.count(name, getattr(self, name))
        check_layers.odd("size", self.size)

    @property
    def keeps_shape(self) -> bool:
        return self.inputs == self.outputs and self.stride == 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.size, self.size, self.inputs, self.outputs)}

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        shape = self.shapes["weight"]
        deviation = math.sqrt(2.0 / math.prod(shape[:3]))
        return {"weight": (deviation * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)}

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, np.ndarray]:
        x = check_layers.batch(self, p, x, (None, None, self.inputs))
        return images.convolve(x, p["weight"], self.stride)[0], x

    def backward(self, p: Parameters, saved: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dy = check_layers.output_gradient(self, dy, (saved.shape[0], *self.output_shape(saved.shape[1:])), saved.dtype)
        dx, _, dweight = images.convolve_backward(saved, p["weight"], dy, self.stride)
        return dx, {"weight": dweight}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_layers.one_shape(self, shape, (None, None, self.inputs))
        return -(-shape[0] // self.stride), -(-shape[1] // self.stride), self.outputs

    def zero_preserving(self) -> Convolution:
        return self
