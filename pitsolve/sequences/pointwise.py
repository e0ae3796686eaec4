"""Layers that treat every step of a sequence alike: normalisation, rectifier, gated linear unit, dropout, a layer of rows.

x is (B, T, C), or has any other leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu import features
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.layer import Composite, Layer
from pitsolve.sequences import check_sequences
from pitsolve.training import check_training


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])


class _Normalised(NamedTuple):
    """What goes in, and mean and reciprocal standard deviation (rows, 2) of its rows."""

    x: np.ndarray
    statistics: np.ndarray


@dataclass(frozen=True)
class LayerNorm(Layer):
    r"""Layer normalisation: every row gets mean 0 and variance 1, then a scale and a shift for each feature.

    .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, w + b, \qquad
        \mu = \frac{1}{C} \sum_c x_c, \quad \sigma^2 = \frac{1}{C} \sum_c (x_c - \mu)^2

    Parameters
    ----------
    width : int
        C, the size of the last axis.
    affine : bool
        Whether there are w and b.
    eps : float
        :math:`\epsilon`.

    Notes
    -----
    Parameters, if affine: ``weight`` (C,), ones at first, and ``bias`` (C,), zeros. Backward needs x, which is not copied, and
    two numbers a row.

    References
    ----------
    Ba, Kiros and Hinton, "Layer normalization", arXiv 1607.06450, equation (4).

    Examples
    --------
    >>> import numpy as np
    >>> from pitsolve.sequences.pointwise import LayerNorm
    >>> layer = LayerNorm(4, eps=1e-12)
    >>> y, saved = layer.forward(layer.init(5, np.float64), np.array([[[1.0, 1.0, 3.0, 3.0]]]), training=True)
    >>> y.round(6)
    array([[[-1., -1.,  1.,  1.]]])
    """

    width: int
    affine: bool = True
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check.count("width", self.width)
        check.flag("affine", self.affine)
        check.positive("eps", self.eps)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.width,), "bias": (self.width,)} if self.affine else {}

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        return {"weight": np.ones(self.width, dtype), "bias": np.zeros(self.width, dtype)} if self.affine else {}

    def forward(self, p: Parameters, x: np.ndarray, training: object) -> tuple[np.ndarray, _Normalised]:
        x = check_sequences.steps(self, p, x, self.width)
        own = (np.ascontiguousarray(p[name]) for name in self.shapes)
        y, statistics = features.normalise(_rows(x), self.eps, *own)
        return y.reshape(x.shape), _Normalised(x, statistics)

    def backward(self, p: Parameters, saved: _Normalised, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        x = saved.x
        dy = check_layers.output_gradient(self, dy, x.shape, x.dtype)
        weight = np.ascontiguousarray(p["weight"]) if self.affine else None
        dx, sums = features.normalise_backward(_rows(x), saved.statistics, weight, _rows(dy))
        return dx.reshape(x.shape), {"weight": sums[0], "bias": sums[1]} if self.affine else {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return check_sequences.step_shape(self, shape, self.width)


@dataclass(frozen=True)
class Relu(Layer):
    r"""The rectifier, :math:`y = \max(x, 0)`; its derivative at 0 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pitsolve.sequences.pointwise import Relu
    >>> Relu().forward({}, np.array([[[-1.0, 2.0]]]), training=True)[0]
    array([[[0., 2.]]])
    """

    def forward(self, p: Parameters, x: np.ndarray, training: object) -> tuple[np.ndarray, np.ndarray]:
        y = features.rectify(check_sequences.steps(self, p, x))
        return y, y

    def backward(self, p: Parameters, saved: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return features.rectify_backward(saved, check_layers.output_gradient(self, dy, saved.shape, saved.dtype)), {}


@dataclass(frozen=True)
class GLU(Layer):
    r"""The gated linear unit of the halves a and b of the last axis.

    .. math:: y = a \, \sigma(b), \qquad x = (a, b), \quad \sigma(b) = \frac{1}{1 + e^{-b}}

    Notes
    -----
    The output has C / 2 features. Backward needs x, which is not copied.

    References
    ----------
    Dauphin, Fan, Auli and Grangier, "Language modeling with gated convolutional networks", ICML 2017, equation (1).

    Examples
    --------
    >>> import numpy as np
    >>> from pitsolve.sequences.pointwise import GLU
    >>> GLU().forward({}, np.array([[[3.0, 5.0, 0.0, 100.0]]]), training=True)[0]
    array([[[1.5, 5. ]]])
    """

    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, training: object) -> tuple[np.ndarray, np.ndarray]:
        x = check_sequences.steps(self, p, x)
        shape = self.output_shape(x.shape)
        return features.gate(_rows(x)).reshape(shape), x

    def backward(self, p: Parameters, saved: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dy = check_layers.output_gradient(self, dy, self.output_shape(saved.shape), saved.dtype)
        return features.gate_backward(_rows(saved), _rows(dy)).reshape(saved.shape), {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or shape[-1] % 2:
            raise ValueError(f"{self} takes inputs with an even number of features in the last axis, got shape {shape}")
        return *shape[:-1], shape[-1] // 2


class _Dropped(NamedTuple):
    """All that backward needs to make the mask again."""

    seed: int
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Dropout(Layer):
    r"""Dropout: in training each number is zero with probability ``rate``, and else divided by 1 - rate.

    .. math:: y_i = \frac{m_i x_i}{1 - r}, \qquad m_i = [\, u(s, i) \ge r \,]

    Parameters
    ----------
    rate : float
        r, from 0 up to but not 1.

    Notes
    -----
    u(s, i) is number i of the stream of SplitMix64 with seed s, divided by 2^64: a function of seed and position alone, which
    backward computes again. The seed comes from the ``training`` argument of :meth:`forward`, an object that is true and has a
    method ``dropout_seed()``. Outside of training y = x.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", JMLR 15 (2014).
    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from pitsolve.sequences.pointwise import Dropout
    >>> class Training:
    ...     def dropout_seed(self):
    ...         return 5
    >>> Dropout(0.5).forward({}, np.ones((1, 2, 4)), Training())[0]
    array([[[0., 2., 0., 0.],
            [0., 0., 2., 2.]]])
    """

    rate: float

    def __post_init__(self) -> None:
        check_training.momentum("rate", self.rate)

    def forward(self, p: Parameters, x: np.ndarray, training: object) -> tuple[np.ndarray, _Dropped | None]:
        x = check_sequences.steps(self, p, x)
        if not training:
            return x, None
        saved = _Dropped(check_sequences.dropout_seed(self, training), x.shape, x.dtype)
        return self._masked(x, saved), saved

    def backward(self, p: Parameters, saved: _Dropped | None, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        if saved is None:
            return dy, {}
        return self._masked(check_layers.output_gradient(self, dy, saved.shape, saved.dtype), saved), {}

    def _masked(self, x: np.ndarray, saved: _Dropped) -> np.ndarray:
        return features.drop(x, self.rate, saved.seed) if self.rate else x


class _Stepped(NamedTuple):
    """Shape and dtype of x, and what the layer of rows keeps."""

    shape: tuple[int, ...]
    dtype: np.dtype
    inner: Any


@dataclass(frozen=True)
class EachStep(Composite):
    """A layer of rows, such as :class:`pitsolve.networks.Dense`, on every step: (B, T, C) goes through it as (B T, C).

    Parameters
    ----------
    layer : Layer
        Its parameters are those of the whole, under the same names.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> from pitsolve.sequences.pointwise import EachStep
    >>> layer = EachStep(ps.networks.Dense(3, 5))
    >>> layer.forward(layer.init(seed=5), np.ones((2, 7, 3), np.float32), training=True)[0].shape
    (2, 7, 5)
    """

    layer: Layer

    def __post_init__(self) -> None:
        check_layers.a_layer("layer", self.layer)

    @property
    def parts(self) -> tuple[tuple[str, Layer], ...]:
        return (("", self.layer),)

    @property
    def keeps_shape(self) -> bool:
        return self.layer.keeps_shape

    def forward(self, p: Parameters, x: np.ndarray, training: object) -> tuple[np.ndarray, _Stepped]:
        x = check_sequences.steps(self, p, x)
        y, saved = self.layer.forward(p, _rows(x), training)
        return y.reshape(*x.shape[:-1], -1), _Stepped(x.shape, x.dtype, saved)

    def backward(self, p: Parameters, saved: _Stepped, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dy = check_layers.output_gradient(self, dy, self.output_shape(saved.shape), saved.dtype)
        dx, grads = self.layer.backward(p, saved.inner, _rows(dy))
        return dx.reshape(saved.shape), grads

    def infer(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        x = check_sequences.steps(self, p, x)
        return self.layer.infer(p, _rows(x)).reshape(*x.shape[:-1], -1)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return *shape[:-1], *self.layer.output_shape(shape[-1:])
