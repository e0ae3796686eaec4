"""The residual unit of very deep networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu import images
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.convolution import Convolution
from pitsolve.networks.layer import Composite, Layer
from pitsolve.networks.normalisation import BatchNorm, Statistics


class _Saved(NamedTuple):
    """The input of each convolution, before its normalisation, and what normalises it."""

    inputs: tuple[np.ndarray, np.ndarray, np.ndarray]
    known: tuple[Statistics, Statistics, Statistics]


@dataclass(frozen=True)
class Bottleneck(Composite):
    r"""A residual unit with normalisation and rectifier before each convolution.

    .. math:: y = S x + W_3 a_3(W_2 a_2(W_1 a_1(x))), \qquad a_i(x) = \max(0, \mathrm{norm}_i(x))

    :math:`W_1` and :math:`W_3` are 1 x 1, :math:`W_2` is 3 x 3 with the stride; S is the identity where the shape stays, else a
    1 x 1 convolution with the stride.

    Parameters
    ----------
    inputs : int
        Channels of x.
    width : int
        Channels w between the convolutions; y has 4 w.
    stride : int
        The size of an image is divided by this, rounded up.
    centred : bool
        Of the normalisations; see :class:`BatchNorm`.

    Notes
    -----
    Parameters: those of the parts ``norm1``, ``conv1``, ..., ``norm3``, ``conv3`` and, if there is one, ``shortcut``, such as
    ``conv1.weight``. Normalised images are never stored: backward needs x, the results of the first two convolutions and the
    statistics, (4 w + w) H W + w H' W' numbers a sample where the shape stays.

    References
    ----------
    Lee, Park and Lee, "Parareal neural networks emulating a parallel-in-time algorithm", arXiv 2103.08802, figure 2.
    He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", ECCV 2016, figure 4e.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> unit = ps.networks.Bottleneck(16, 8, stride=2)
    >>> p, x = unit.init(seed=5), np.ones((2, 8, 8, 16), np.float32)
    >>> y, saved = unit.forward(p, x, training=True)
    >>> dx, grads = unit.backward(p, saved, np.ones_like(y))
    >>> y.shape, dx.shape, grads["conv2.weight"].shape
    ((2, 4, 4, 32), (2, 8, 8, 16), (3, 3, 8, 8))
    """

    inputs: int
    width: int
    stride: int = 1
    centred: bool = True

    def __post_init__(self) -> None:
        for name in ("inputs", "width", "stride"):
            check.count(name, getattr(self, name))
        check.flag("centred", self.centred)

    @property
    def outputs(self) -> int:
        """Channels of y."""
        return 4 * self.width

    @property
    def keeps_shape(self) -> bool:
        return self.inputs == self.outputs and self.stride == 1

    @cached_property
    def parts(self) -> tuple[tuple[str, Layer], ...]:
        norms = [BatchNorm(channels, self.centred) for channels in (self.inputs, self.width, self.width)]
        convolutions = [Convolution(self.inputs, self.width, 1), Convolution(self.width, self.width, 3, self.stride),
                        Convolution(self.width, self.outputs, 1)]
        shortcut = () if self.keeps_shape else (("shortcut", Convolution(self.inputs, self.outputs, 1, self.stride)),)
        return (*zip(("norm1", "norm2", "norm3"), norms), *zip(("conv1", "conv2", "conv3"), convolutions), *shortcut)

    def _norm(self, number: int, p: Parameters) -> tuple[BatchNorm, Parameters]:
        norm = self.parts[number - 1][1]
        return norm, {name: p[f"norm{number}.{name}"] for name in norm.shapes}

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, _Saved]:
        x = check_layers.batch(self, p, x, (None, None, self.inputs))
        shortcut = x if self.keeps_shape else images.convolve(x, p["shortcut.weight"], self.stride)[0]
        if training:
            check_layers.several_values(self, shortcut.shape)
        moments = images.moments(x) if training else None
        inputs, known = [], []
        for number in (1, 2, 3):
            norm, own = self._norm(number, p)
            known.append(norm.batch_statistics(*moments, x.size // x.shape[3]) if training else norm.running(own))
            inputs.append(x)
            x, moments = images.convolve(x, p[f"conv{number}.weight"], self.stride if number == 2 else 1,
                                         norm.rows(own, known[-1]), shortcut if number == 3 else None,
                                         measured=training and number < 3)
        return x, _Saved(tuple(inputs), tuple(known))

    def backward(self, p: Parameters, saved: _Saved, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        x = saved.inputs[0]
        dy = check_layers.output_gradient(self, dy, (x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        grads, g, followed = {}, dy, None
        for number in (3, 2, 1):
            norm, own = self._norm(number, p)
            y, known, name = saved.inputs[number - 1], saved.known[number - 1], f"conv{number}.weight"
            g, sums, grads[name] = images.convolve_backward(y, p[name], g, self.stride if number == 2 else 1,
                                                            norm.rows(own, known), followed)
            following, factors, found = norm.gradients(own, known, sums)
            followed = (y, following, factors)
            grads |= {f"norm{number}.{key}": value for key, value in found.items()}
        if not self.keeps_shape:
            dy, _, grads["shortcut.weight"] = images.convolve_backward(x, p["shortcut.weight"], dy, self.stride)
        return images.combine(x, following, g, factors, dy, out=g), grads

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        check_layers.one_shape(self, shape, (None, None, self.inputs))
        return -(-shape[0] // self.stride), -(-shape[1] // self.stride), self.outputs

    def zero_preserving(self) -> Bottleneck:
        return Bottleneck(self.inputs, self.width, self.stride, centred=False)
