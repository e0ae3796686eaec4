"""What a layer is: a frozen description of y = f(x; theta) and of its transposed derivative, with no arrays inside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pitsolve.cells.base import Parameters


class Layer:
    """The part of a description that every layer has.

    Arrays are batches, the first axis counts samples; images are (B, H, W, C). A layer never writes to its parameters and
    keeps nothing between calls, so one layer may run in several threads at once.
    """

    statistics: tuple[str, ...] = ()  # names in ``shapes`` that are running statistics: they have no gradient
    keeps_shape: bool = True  # False if outputs may have another shape than inputs

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, running statistics included."""
        return {}

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        """Random parameters, one array for each name in ``shapes``, from a seed or a generator that moves on."""
        return {}

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any]:
        """y, and what :meth:`backward` will need. ``training`` takes the statistics of the batch, else the running ones."""
        raise NotImplementedError

    def backward(self, p: Parameters, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        """dL/dx and dL/dtheta from dL/dy; in the place of a running statistic, the statistic of the batch."""
        raise NotImplementedError

    def infer(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        """y with running statistics, where no gradient is wanted: nothing is kept."""
        return self.forward(p, x, False)[0]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one output from that of one input, both without the batch axis; a ValueError if the input does not fit."""
        return shape

    def zero_preserving(self) -> Layer:
        """The twin without bias: zero goes to zero, in training and after it."""
        raise TypeError(f"{type(self).__name__} has no zero-preserving form; pass the coarse networks of parareal in coarse=")


class _Part(NamedTuple):
    layer: Layer
    names: dict[str, str]  # own name -> name in the whole

    def parameters(self, p: Parameters) -> Parameters:
        return {own: p[full] for own, full in self.names.items()}

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, Any]:
        return self.layer.forward(self.parameters(p), x, training)

    def infer(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return self.layer.infer(self.parameters(p), x)

    def backward(self, p: Parameters, saved: Any, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dx, grads = self.layer.backward(self.parameters(p), saved, dy)
        return dx, {self.names[own]: value for own, value in grads.items()}


class Composite(Layer):
    """A layer made of named parts. The parameters of a part have its name and a dot in front; a part named "" adds nothing."""

    parts: tuple[tuple[str, Layer], ...]

    @staticmethod
    def _bind(parts: tuple[tuple[str, Layer], ...]) -> tuple[_Part, ...]:
        """The parts with the names of their parameters."""
        for name, layer in parts:
            if not isinstance(layer, Layer):
                raise TypeError(f"part {name!r} must be a layer, got {type(layer).__name__}")
        bound = tuple(_Part(layer, {own: f"{name}.{own}" if name else own for own in layer.shapes}) for name, layer in parts)
        seen = set()
        for name in (full for part in bound for full in part.names.values()):
            if name in seen:
                raise ValueError(f"two parts have a parameter {name!r}; give them different names")
            seen.add(name)
        return bound

    @cached_property
    def bound(self) -> tuple[_Part, ...]:
        return self._bind(self.parts)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {part.names[own]: shape for part in self.bound for own, shape in part.layer.shapes.items()}

    @cached_property
    def statistics(self) -> tuple[str, ...]:
        return tuple(part.names[own] for part in self.bound for own in part.layer.statistics)

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        random = np.random.default_rng(seed)
        return {part.names[own]: value for part in self.bound for own, value in part.layer.init(random, dtype).items()}


@dataclass(frozen=True)
class Sequence(Composite):
    """Layers one after the other, y = f_K(... f_1(x)).

    Parameters
    ----------
    parts : tuple of (str, Layer)
        Names and layers, the first one first.

    Examples
    --------
    >>> import pitsolve as ps
    >>> from pitsolve.networks import Dense, Sequence
    >>> sorted(Sequence((("lift", Dense(2, 5)), ("lower", Dense(5, 3, bias=False)))).shapes)
    ['lift.bias', 'lift.weight', 'lower.weight']
    """

    parts: tuple[tuple[str, Layer], ...]

    @property
    def keeps_shape(self) -> bool:
        return all(layer.keeps_shape for _, layer in self.parts)

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, list]:
        saved = []
        for part in self.bound:
            x, kept = part.forward(p, x, training)
            saved.append(kept)
        return x, saved

    def backward(self, p: Parameters, saved: list, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        grads = {}
        for part, kept in zip(reversed(self.bound), reversed(saved), strict=True):
            dy, own = part.backward(p, kept, dy)
            grads |= own
        return dy, grads

    def infer(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        for part in self.bound:
            x = part.infer(p, x)
        return x

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for _, layer in self.parts:
            shape = layer.output_shape(shape)
        return shape

    def zero_preserving(self) -> Sequence:
        return Sequence(tuple((name, layer.zero_preserving()) for name, layer in self.parts))


@dataclass(frozen=True)
class Recomputed(Composite):
    """The same function as ``layer``; backward runs it forward again instead of keeping what that needs."""

    layer: Layer

    @property
    def parts(self) -> tuple[tuple[str, Layer], ...]:
        return (("", self.layer),)

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple[np.ndarray, bool]]:
        return self.layer.forward(p, x, training)[0], (x, training)

    def backward(self, p: Parameters, saved: tuple[np.ndarray, bool], dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return self.layer.backward(p, self.layer.forward(p, *saved)[1], dy)
