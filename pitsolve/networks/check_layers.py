"""Checks of what layers receive: batches, gradients and parameters of the right shapes and one dtype."""

from __future__ import annotations

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.networks.layer import Layer

Sizes = tuple[int | None, ...]  # of one image, or of one vector; None for any size

_PLAIN = "CAWE"  # what kernels are compiled for; a copy of what cannot be written to costs less than another compilation


def a_layer(name: str, value: object) -> Layer:
    """A layer, not something else."""
    if not isinstance(value, Layer):
        raise TypeError(f"{name} must be a layer, got {type(value).__name__}")
    return value


def batch(layer: Layer, p: Parameters, x: object, sizes: Sizes) -> np.ndarray:
    """A batch, contiguous, that fits the layer and its parameters."""
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x must be an array of float32 or float64 for {layer}, got {check.describe(x)}")
    if not x.ndim or not _fit(sizes, x.shape[1:]):
        raise ValueError(f"x must have shape (B, {_named(sizes)}) for {layer}, got {x.shape}")
    if x.size == 0:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    for name, shape in layer.shapes.items():
        if name not in p:
            raise ValueError(f"params must have {sorted(layer.shapes)} for {layer}, but {name!r} is missing")
        if p[name].shape != shape:
            check.shape(f"params[{name!r}]", p[name], shape, f"for {layer}")
        if p[name].dtype != x.dtype:
            check.same_dtype({"x": x, f"params[{name!r}]": p[name]})
    return np.require(x, requirements=_PLAIN)


def output_gradient(layer: Layer, dy: object, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """dL/dy, of the shape and dtype of y, contiguous."""
    if not isinstance(dy, np.ndarray) or dy.dtype != dtype:
        raise TypeError(f"dy must be an array of {dtype}, as x was, got {check.describe(dy)}")
    check.shape("dy", dy, shape, f"as the output of {layer}")
    return np.require(dy, requirements=_PLAIN)


def several_values(layer: Layer, shape: tuple[int, ...]) -> None:
    """More than one value per channel in what a layer normalises: one has no variance."""
    if shape[:3] == (1, 1, 1):
        raise ValueError(f"{layer} needs more than one value per channel in training, got a batch of one image of one pixel")


def one_shape(layer: Layer, shape: tuple[int, ...], sizes: Sizes) -> None:
    """The shape of one image."""
    if not _fit(sizes, shape):
        raise ValueError(f"{layer} takes inputs of shape ({_named(sizes)}), got {shape}")


def odd(name: str, size: object) -> None:
    """The size of a kernel with a pixel in its middle."""
    if check.count(name, size) % 2 == 0:
        raise ValueError(f"{name} must be odd, got {size}")


def _fit(sizes: Sizes, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(sizes) and all(size in (None, given) for size, given in zip(sizes, shape, strict=True))


def _named(sizes: Sizes) -> str:
    return ", ".join(name if size is None else str(size) for name, size in zip("HWC"[-len(sizes):], sizes, strict=True))
