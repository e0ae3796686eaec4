"""Batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu import images
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.layer import Layer

EPSILON = 1e-5  # added to the variance


class Statistics(NamedTuple):
    """What normalises a batch, per channel, in float64."""

    mean: np.ndarray
    variance: np.ndarray  # biased
    inverse: np.ndarray  # one over the standard deviation
    count: int  # of the values in every channel; 0 where these are running statistics


def _statistics(mean: np.ndarray, variance: np.ndarray, count: int) -> Statistics:
    return Statistics(mean, variance, 1.0 / np.sqrt(variance + EPSILON), count)


@dataclass(frozen=True)
class BatchNorm(Layer):
    r"""Batch normalisation of images, channel by channel.

    .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta, \qquad \epsilon = 10^{-5}

    In training :math:`\mu` and :math:`\sigma^2` are the mean and the variance of the batch, after it the running statistics.

    Parameters
    ----------
    channels : int
        Of x (B, H, W, channels).
    centred : bool
        False leaves out :math:`\mu` and :math:`\beta`, and :math:`\sigma^2` is the mean of the squares: zero goes to zero.

    Notes
    -----
    Parameters: ``scale`` and ``shift`` (channels,), the statistics ``running_mean`` and ``running_var`` (of the unbiased
    variance, as in PyTorch). Without centring: ``scale`` and ``running_var``.

    References
    ----------
    Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> layer = ps.networks.BatchNorm(2)
    >>> x = np.random.default_rng(5).normal(3.0, 2.0, (4, 8, 8, 2))
    >>> y, _ = layer.forward(layer.init(seed=5, dtype=np.float64), x, training=True)
    >>> float(abs(y.mean()).round(9)), float(y.std().round(4))
    (0.0, 1.0)
    """

    channels: int
    centred: bool = True

    def __post_init__(self) -> None:
        check.count("channels", self.channels)
        check.flag("centred", self.centred)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        names = ("scale", "shift", "running_mean", "running_var") if self.centred else ("scale", "running_var")
        return dict.fromkeys(names, (self.channels,))

    @property
    def statistics(self) -> tuple[str, ...]:
        return ("running_mean", "running_var") if self.centred else ("running_var",)

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        return {name: (np.ones if name in ("scale", "running_var") else np.zeros)(shape, dtype)
                for name, shape in self.shapes.items()}

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple]:
        x = check_layers.batch(self, p, x, (None, None, self.channels))
        if training:
            check_layers.several_values(self, x.shape)
        known = self.batch_statistics(*images.moments(x), x.size // self.channels) if training else self.running(p)
        return images.combine(x, self.rows(p, known)), (x, known)

    def backward(self, p: Parameters, saved: tuple, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        x, known = saved
        dy = check_layers.output_gradient(self, dy, x.shape, x.dtype)
        following, factors, grads = self.gradients(p, known, images.gradient_sums(x, self.rows(p, known), dy))
        return images.combine(x, following, dy, factors), grads

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_layers.one_shape(self, shape, (None, None, self.channels))
        return shape

    def zero_preserving(self) -> BatchNorm:
        return BatchNorm(self.channels, centred=False)

    def batch_statistics(self, mean: np.ndarray, variance: np.ndarray, count: int) -> Statistics:
        """The statistics of a batch from its moments."""
        if self.centred:
            return _statistics(mean, variance, count)
        return _statistics(np.zeros_like(mean), variance + mean**2, count)

    def running(self, p: Parameters) -> Statistics:
        """The running statistics."""
        variance = p["running_var"].astype(np.float64)
        return _statistics(p["running_mean"].astype(np.float64) if self.centred else np.zeros_like(variance), variance, 0)

    def rows(self, p: Parameters, known: Statistics) -> np.ndarray:
        """(mean, factor, shift) for the kernels."""
        shift = p["shift"] if self.centred else np.zeros_like(p["scale"])
        return images.rows(p["scale"].dtype, known.mean, p["scale"] * known.inverse, shift)

    def gradients(self, p: Parameters, known: Statistics, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, Parameters]:
        """From the sums of g = dL/dy and of g (x - mean): dL/dx = factors g + (x - mean) factor + shift, and dL/dtheta.

        Returns the rows (mean, factor, shift), the factors of g, and the gradients of the parameters.
        """
        total, product = sums
        inverse, dtype = known.inverse, p["scale"].dtype
        factors, share = p["scale"] * inverse, 1.0 / known.count if known.count else 0.0
        following = images.rows(dtype, known.mean, -share * factors * inverse**2 * product,
                                -share * factors * total if self.centred else np.zeros_like(total))
        unbiased = known.count / (known.count - 1) if known.count and self.centred else 1.0
        grads = {"scale": product * inverse, "shift": total, "running_mean": known.mean,
                 "running_var": known.variance * unbiased}
        return following, images.rows(dtype, factors)[0], {name: grads[name].astype(dtype) for name in self.shapes}
