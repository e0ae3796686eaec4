"""The verbs of layers on images (B, H, W, C): packs weights, owns scratch memory, calls the kernels, adds up their sums.

Per-channel numbers reach the kernels as rows padded to whole vectors. Nothing outlives a call, so several threads may call.
"""

from __future__ import annotations

import numba
import numpy as np

from pitsolve.backends.cpu import convolution, convolution_backward, normalise
from pitsolve.backends.cpu.convolution import ROWS
from pitsolve.backends.cpu.convolution_backward import weight_rows
from pitsolve.backends.cpu.products import block_vectors, pack
from pitsolve.backends.cpu.simd import register_bytes
from pitsolve.backends.cpu.workspace import aligned, aligned_zeros
from pitsolve.compile import specialise

_TASKS = 16  # parts of the gradient of the weights; fixed, so that no result depends on the number of threads
_PART_BYTES = 1 << 28  # of all these parts together, at most
_VECTORS = 2  # of one tile, at most


def _lanes(dtype: np.dtype) -> int:
    return register_bytes() // dtype.itemsize


def _padded(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def rows(dtype: np.dtype, *values: np.ndarray) -> np.ndarray:
    """Numbers per channel as the kernels read them: (number of arguments, channels padded with zeros)."""
    padded = np.zeros((len(values), _padded(values[0].size, _lanes(dtype))), dtype)
    for row, value in zip(padded, values, strict=True):
        row[:value.size] = value
    return padded


def _tile_vectors(channels: int, lanes: int) -> int:
    return block_vectors(-(-channels // lanes), _VECTORS)


def _packed(weight: np.ndarray, lanes: int, vectors: int, channels: int) -> np.ndarray:
    """Weights (k, k, C, K) as (blocks of K, k, k C', numbers of a tile), the C input channels padded to C'."""
    size, _, depth, _ = weight.shape
    if channels != depth:
        weight = np.pad(weight, ((0, 0), (0, 0), (0, channels - depth), (0, 0)))
    packed = pack(weight.reshape(size * size * channels, -1), lanes, vectors)
    return packed.reshape(packed.shape[0], size, size * channels, -1)


def _moments(parts: np.ndarray, pixels: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of a batch from what the kernels measured of every image."""
    means = parts[:, 0, :channels].astype(np.float64)
    mean = means.mean(axis=0)
    means -= mean
    inner = np.maximum(parts[:, 1, :channels], 0).sum(axis=0, dtype=np.float64)  # rounding may leave less than zero
    return mean, (inner / pixels + np.einsum("bc,bc->c", means, means)) / len(parts)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of every channel, in float64."""
    batch, height, width, channels = x.shape
    lanes = _lanes(x.dtype)
    parts = aligned((batch, 2, _padded(channels, lanes)), x.dtype)
    specialise(normalise.measure, LANES=lanes)(x.reshape(batch, -1, channels), parts)
    return _moments(parts, height * width, channels)


def combine(x: np.ndarray, norm: np.ndarray, g: np.ndarray | None = None, factors: np.ndarray | None = None,
            other: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """factors g + (x - mean) factor + shift + other with the rows (mean, factor, shift) of ``norm``."""
    out = aligned(x.shape, x.dtype) if out is None else out
    flat = [a.reshape(x.shape[0], -1, x.shape[3]) for a in (x, x if g is None else g, x if other is None else other, out)]
    specialise(normalise.combine, LANES=_lanes(x.dtype))(
        flat[0], norm, flat[1], norm if factors is None else factors, g is not None, flat[2], other is not None, flat[3])
    return out


def gradient_sums(x: np.ndarray, norm: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The sums (2, C) of g and of g (x - mean) over a batch, in float64."""
    batch, _, _, channels = x.shape
    sums = aligned((batch, 2, norm.shape[1]), x.dtype)
    specialise(normalise.measure_gradient, LANES=_lanes(x.dtype))(
        x.reshape(batch, -1, channels), norm, g.reshape(batch, -1, channels), sums)
    return sums[:, :, :channels].sum(axis=0, dtype=np.float64)


def convolve(x: np.ndarray, weight: np.ndarray, stride: int = 1, norm: np.ndarray | None = None,
             residual: np.ndarray | None = None, measured: bool = False) -> tuple[np.ndarray, tuple | None]:
    """y = w * a(x) + residual with a(x) = max(0, (x - mean) factor + shift), or x without ``norm``; the moments of y."""
    if _narrow(x, weight, stride):
        y, found = convolve(_flat(x), weight, 1, norm, residual if residual is None else _flat(residual), measured)
        return y.reshape(*x.shape[:3], -1), found
    batch, height, width, channels = x.shape
    size, outputs, lanes = weight.shape[0], weight.shape[3], _lanes(x.dtype)
    vectors = _tile_vectors(outputs, lanes)
    y = aligned((batch, -(-height // stride), -(-width // stride), outputs), x.dtype)
    weight = _packed(weight, lanes, vectors, channels)
    workers = min(batch, numba.get_num_threads())
    padded = _scratch(workers, height, width, size, channels, stride * ROWS * channels, x.dtype)
    lines = aligned((workers, _padded(y.shape[2], ROWS) * weight.shape[0] * weight.shape[3]), x.dtype)
    parts = aligned((batch if measured else 1, 2, _padded(outputs, lanes)), x.dtype)
    specialise(convolution.convolve, LANES=lanes, VECTORS=vectors)(
        x, parts[0] if norm is None else norm, norm is not None, weight, stride, y if residual is None else residual,
        residual is not None, measured, np.zeros(weight.shape[3], x.dtype), padded, lines, parts, y)
    return y, _moments(parts, y.shape[1] * y.shape[2], outputs) if measured else None


def _narrow(x: np.ndarray, weight: np.ndarray, stride: int) -> bool:
    """Whether the rows of an image do not fill tiles, and it may as well have one long row."""
    return weight.shape[0] == stride == 1 < x.shape[1] and x.shape[2] % ROWS != 0


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], 1, -1, x.shape[3])


def _scratch(workers: int, height: int, width: int, size: int, channels: int, more: int, dtype: np.dtype) -> np.ndarray:
    """One image with a border of zeros for each worker, and what a tile at its end reads beyond it."""
    border = size // 2 * 2
    return aligned_zeros((workers, (height + border) * (width + border) * channels + size * channels + more), dtype)


def convolve_backward(x: np.ndarray, weight: np.ndarray, g: np.ndarray, stride: int = 1, norm: np.ndarray | None = None,
                      followed: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
                      ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dL/dx before its rectifier, the sums (2, C) of it and of it times x - mean, and dL/dw.

    ``followed`` are y, its ``norm`` and ``factors`` as in :func:`combine`, if y was normalised and ``g`` is the gradient before
    the next rectifier; else ``g`` is dL/dy.
    """
    if _narrow(x, weight, stride):
        followed = followed and (_flat(followed[0]), *followed[1:])
        dx, sums, dweight = convolve_backward(_flat(x), weight, _flat(g), 1, norm, followed)
        return dx.reshape(x.shape), sums, dweight
    batch, height, width, channels = x.shape
    size, outputs, lanes = weight.shape[0], weight.shape[3], _lanes(x.dtype)
    vectors, input_vectors = _tile_vectors(outputs, lanes), _tile_vectors(channels, lanes)
    pitch, depth = _padded(outputs, vectors * lanes), _padded(size * channels, weight_rows(vectors))
    flipped = _packed(weight[::-1, ::-1].swapaxes(2, 3), lanes, input_vectors, pitch)
    tasks = max(1, min(batch, _TASKS, _PART_BYTES // (size * depth * pitch * x.dtype.itemsize)))
    workers = min(tasks, numba.get_num_threads())
    parts = aligned_zeros((tasks, size, depth, pitch), x.dtype)
    sums = aligned_zeros((batch, 2, _padded(channels, lanes)), x.dtype)
    dx = aligned(x.shape, x.dtype)
    y, following, factors = (g, sums[0], sums[0]) if followed is None else followed
    specialise(convolution_backward.convolve_backward, LANES=lanes, VECTORS=vectors, INPUT_VECTORS=input_vectors,
               WEIGHT_ROWS=weight_rows(vectors))(
        x, sums[0] if norm is None else norm, norm is not None, y, following, factors, followed is not None, g, flipped, stride,
        np.zeros(flipped.shape[3], x.dtype),
        _scratch(workers, height, width, size, channels, weight_rows(vectors), x.dtype),
        _scratch(workers, height, width, size, pitch, ROWS * pitch, x.dtype),
        aligned((workers, _padded(width, ROWS) * flipped.shape[0] * flipped.shape[3]), x.dtype), dx, sums, parts)
    dweight = parts.sum(axis=0)[:, :size * channels, :outputs].reshape(weight.shape)
    return dx, sums[:, :, :channels].sum(axis=0, dtype=np.float64), dweight
