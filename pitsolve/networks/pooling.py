"""Pooling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.layer import Layer


@dataclass(frozen=True)
class GlobalAveragePooling(Layer):
    r"""The mean of every channel over the pixels of an image, :math:`y_c = \frac{1}{HW} \sum_{i,j} x_{i,j,c}`.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> ps.networks.GlobalAveragePooling().forward({}, np.ones((2, 8, 8, 5)), training=True)[0].shape
    (2, 5)
    """

    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple]:
        x = check_layers.batch(self, p, x, (None, None, None))
        return x.mean(axis=(1, 2)), (x.shape, x.dtype)

    def backward(self, p: Parameters, saved: tuple, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        shape, dtype = saved
        dy = check_layers.output_gradient(self, dy, (shape[0], shape[3]), dtype)
        return np.broadcast_to((dy / (shape[1] * shape[2]))[:, None, None], shape).copy(), {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_layers.one_shape(self, shape, (None, None, None))
        return shape[2:]

    def zero_preserving(self) -> GlobalAveragePooling:
        return self
