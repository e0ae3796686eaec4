"""Layers side by side on the same input, and layers that end the axis of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.networks.layer import Composite, Layer
from pitsolve.sequences.evaluation import Evaluation


@dataclass(frozen=True)
class Concatenated(Composite):
    """The outputs of several layers on one input, one after the other along the last axis.

    Parameters
    ----------
    parts : tuple of (str, Layer)
        Names and layers.

    Examples
    --------
    >>> import pitsolve as ps
    >>> heads = tuple((f"stride{s}", ps.sequences.Recurrent(ps.cells.GRU(2, 4), stride=s)) for s in (1, 2))
    >>> ps.sequences.Concatenated(heads).output_shape((10, 2))
    (10, 8)
    """

    parts: tuple[tuple[str, Layer], ...]

    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, run: Evaluation) -> tuple[np.ndarray, tuple]:
        ran = [part.forward(p, x, run) for part in self.bound]
        outputs = [y for y, _ in ran]
        return np.concatenate(outputs, axis=-1), ([y.shape[-1] for y in outputs], [kept for _, kept in ran])

    def backward(self, p: Parameters, saved: tuple, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        widths, kept = saved
        pieces = np.split(dy, np.cumsum(widths)[:-1], axis=-1)
        return _sum_of_gradients(self, p, kept, pieces)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [layer.output_shape(shape) for _, layer in self.parts]
        return *shapes[0][:-1], sum(each[-1] for each in shapes)


@dataclass(frozen=True)
class Averaged(Composite):
    """The mean of the outputs of several layers on one input, such as a forward and a backward recurrence.

    Parameters
    ----------
    parts : tuple of (str, Layer)
        Names and layers with outputs of one shape.

    Examples
    --------
    >>> import pitsolve as ps
    >>> gru = ps.cells.GRU(2, 4)
    >>> ahead, back = ps.sequences.Recurrent(gru), ps.sequences.Recurrent(gru, reverse=True)
    >>> ps.sequences.Averaged((("ahead", ahead), ("back", back))).output_shape((10, 2))
    (10, 4)
    """

    parts: tuple[tuple[str, Layer], ...]

    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, run: Evaluation) -> tuple[np.ndarray, list]:
        ran = [part.forward(p, x, run) for part in self.bound]
        total = ran[0][0].copy()
        for y, _ in ran[1:]:
            total += y
        total *= total.dtype.type(1 / len(ran))
        return total, [kept for _, kept in ran]

    def backward(self, p: Parameters, saved: list, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        share = dy * dy.dtype.type(1 / len(self.bound))
        return _sum_of_gradients(self, p, saved, [share] * len(self.bound))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.parts[0][1].output_shape(shape)


def _sum_of_gradients(layer: Composite, p: Parameters, kept: list, pieces: list[np.ndarray]) -> tuple[np.ndarray, Parameters]:
    """dL/dx and dL/dtheta of layers on one input."""
    total, grads = None, {}
    for part, saved, dy in zip(layer.bound, kept, pieces, strict=True):
        dx, own = part.backward(p, saved, np.ascontiguousarray(dy))
        grads |= own
        total = dx if total is None else total + dx
    return total, grads


@dataclass(frozen=True)
class MeanOverTime(Layer):
    """The mean over the steps of each sequence, (B, T, n) to (B, n).

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.sequences.MeanOverTime().output_shape((10, 4))
    (4,)
    """

    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, run: Evaluation) -> tuple[np.ndarray, tuple]:
        weights = _weights(x, run.lengths)
        return np.einsum("bt,btn->bn", weights, x), weights

    def backward(self, p: Parameters, saved: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return saved[:, :, None] * dy[:, None, :], {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[1:]


def _weights(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """1 / L within each sequence of L steps, 0 after it."""
    batch, steps = x.shape[:2]
    if lengths is None:
        return np.full((batch, steps), 1 / steps, x.dtype)
    return ((np.arange(steps) < lengths[:, None]) / np.maximum(lengths, 1)[:, None]).astype(x.dtype)


@dataclass(frozen=True)
class LastStep(Layer):
    """The last step of each sequence, (B, T, n) to (B, n).

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.sequences.LastStep().output_shape((10, 4))
    (4,)
    """

    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, run: Evaluation) -> tuple[np.ndarray, tuple]:
        last = np.full(len(x), x.shape[1] - 1) if run.lengths is None else run.lengths - 1
        return x[np.arange(len(x)), last], (x.shape, last)

    def backward(self, p: Parameters, saved: tuple, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        shape, last = saved
        dx = np.zeros(shape, dy.dtype)
        dx[np.arange(len(dx)), last] = dy
        return dx, {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[1:]
