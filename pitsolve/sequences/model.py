"""Models on sequences: an encoder, a stack of recurrent layers, a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pitsolve import cells, check
from pitsolve.cells.base import Cell, Parameters
from pitsolve.networks.layer import Composite, Layer, Sequence
from pitsolve.networks.perceptron import Dense, Residual
from pitsolve.sequences import check_sequences
from pitsolve.sequences.combine import Averaged, Concatenated, LastStep, MeanOverTime
from pitsolve.sequences.evaluation import Evaluation
from pitsolve.sequences.pointwise import GLU, Dropout, EachStep, LayerNorm, Relu
from pitsolve.sequences.recurrent import Recurrent
from pitsolve.sequences.solver import Solver
from pitsolve.training.losses import cross_entropy, mean_squared

CELLS = {"elman": cells.Elman, "gru": cells.GRU, "implicit-gru": cells.ImplicitGRU, "lstm": cells.LSTM}
READOUTS = {"mean": MeanOverTime, "last": LastStep, "each": None}


@dataclass(frozen=True, kw_only=True)
class SequenceModel(Composite):
    """The part that :class:`SequenceClassifier` and :class:`SequenceRegressor` have in common."""

    input_size: int
    hidden: int
    layers: int = 1
    cell: str | Callable[[int, int], Cell] = "gru"
    heads: int = 1
    strides: int = 1
    bidirectional: bool = False
    residual: bool = False
    norm: bool = False
    mixing: str | None = None
    encoder: str | None = None
    head: str | None = None
    readout: str = "mean"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        perceptron = "mlp" if self.residual is True else None
        for name in ("mixing", "encoder", "head"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, perceptron or ("linear" if name == "head" else "none"))
        check_sequences.model(self, CELLS, READOUTS)
        _ = self.network  # so that a cell that does not fit is refused at once

    @property
    def outputs(self) -> int:
        """Width of the outputs."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[tuple[str, Layer], ...]:
        return (("", self.network),)

    @cached_property
    def network(self) -> Sequence:
        """All layers, the first one first."""
        n, m = self.hidden, self.input_size
        encoders = {"none": (), "linear": (("", _dense(m, n)),), "mlp": (("", _perceptron(m, n, n)), ("relu", Relu()))}
        heads = {"linear": _dense(n, self.outputs), "mlp": _perceptron(n, n, self.outputs)}
        encoder = encoders[self.encoder]
        blocks = [(f"layers.{k}", self._block(n if k or encoder else m)) for k in range(self.layers)]
        head = ("head", heads[self.head])
        end = {"mean": (head, ("mean", MeanOverTime())), "each": (head,), "last": (("last", LastStep()), head)}[self.readout]
        return Sequence((*((("encoder", Sequence(encoder)),) if encoder else ()), *blocks, *end))

    def _block(self, width: int) -> Layer:
        """One recurrent layer and what stands around it, in the forms that the docstring of the classifier lists."""
        n, drop = self.hidden, (("dropout", Dropout(self.dropout)),) if self.dropout else ()
        recurrent = ("recurrent", self._recurrent(width))
        norm = (("norm", LayerNorm(n, affine=self.mixing == "glu")),) if self.norm else ()
        if not self.residual:
            return Sequence((recurrent, *norm, *drop))
        if self.mixing == "glu":
            gated = (("glu", Sequence((("", _dense(n, 2 * n)), ("gate", GLU())))),)
            return Sequence((("", Residual(Sequence((recurrent, *drop, *gated, *((("after", drop[0][1]),) if drop else ()))))),
                             *norm))
        added = (("", Residual(Sequence((*norm, recurrent, *drop)))), *norm)
        if self.mixing == "none":
            return Sequence(added)
        return Sequence((*added, ("mlp", Residual(_perceptron(n, n, n)))))

    def _recurrent(self, width: int) -> Layer:
        """The cells of one layer: in groups of heads of one stride, and in both directions."""
        def group(stride: int, reverse: bool) -> Recurrent:
            share = self.hidden // self.strides
            if callable(self.cell):
                cell = self.cell(width, share)
            elif self.heads > 1:
                cell = CELLS[self.cell](width, share, heads=self.heads // self.strides)
            else:
                cell = CELLS[self.cell](width, share)
            return check_sequences.recurrent(Recurrent(cell, stride, reverse), width, share)

        def direction(reverse: bool) -> Layer:
            groups = [(f"stride{2 ** k}", group(2 ** k, reverse)) for k in range(self.strides)]
            return groups[0][1] if len(groups) == 1 else Concatenated(tuple(groups))

        if not self.bidirectional:
            return direction(False)
        return Averaged((("forward", direction(False)), ("backward", direction(True))))

    def forward(self, p: Parameters, x: np.ndarray, run: Evaluation) -> tuple[np.ndarray, list]:
        return self.network.forward(p, x, run)

    def backward(self, p: Parameters, saved: list, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return self.network.backward(p, saved, dy)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.network.output_shape(shape)

    def apply(self, params: Parameters, x: np.ndarray, lengths: np.ndarray | None = None, *, method: str | Solver = "auto",
              batch_size: int = 32) -> np.ndarray:
        """Outputs (N, K), or (N, T, K) with ``readout="each"``, for inputs (N, T, m); zero past the end of a sequence."""
        params = check.parameters(self, params)
        x, lengths = check_sequences.inputs(self, params, x, lengths)
        solver, batch_size = Solver.of(method), check.count("batch_size", batch_size)
        outputs = np.empty((len(x), *self.output_shape(x.shape[1:])), x.dtype)
        for begin in range(0, len(x), batch_size):
            part = slice(begin, begin + batch_size)
            outputs[part] = self.forward(params, x[part], Evaluation(solver, None if lengths is None else lengths[part]))[0]
        if lengths is not None and self.readout == "each":
            outputs[np.arange(x.shape[1]) >= lengths[:, None]] = 0
        return outputs


def _dense(inputs: int, outputs: int) -> EachStep:
    return EachStep(Dense(inputs, outputs))


def _perceptron(inputs: int, hidden: int, outputs: int) -> Sequence:
    return Sequence((("up", _dense(inputs, hidden)), ("relu", Relu()), ("down", _dense(hidden, outputs))))


@dataclass(frozen=True, kw_only=True)
class SequenceClassifier(SequenceModel):
    r"""A network that gives a class to every sequence, or to every step of it.

    Parameters
    ----------
    input_size : int
        Width m of the inputs (N, T, m).
    classes : int
        Number of classes K.
    hidden : int
        Width n of every layer.
    layers : int
        Number of blocks.
    cell : str or callable
        ``"gru"``, ``"lstm"``, ``"elman"``, ``"implicit-gru"``, or ``cell(input_size, hidden_size)``, which gives a cell of the
        output width ``hidden_size``.
    heads : int
        Of a GRU: groups of units that see each other only within their group; divides ``hidden``.
    strides : int
        The heads, or units, fall into this many groups of strides 1, 2, 4 ... in time; divides ``hidden`` and, if there are
        several, ``heads``.
    bidirectional : bool
        Whether a layer is the mean of two recurrences, one in each direction, with parameters of their own.
    residual, norm : bool
        Skip connections; layer normalisation.
    mixing : str, optional
        What follows the recurrence in a residual block: ``"mlp"``, ``"glu"`` or ``"none"``. Default: ``"mlp"``.
    encoder : str, optional
        ``"none"``, ``"linear"`` or ``"mlp"``, applied to each step before the first block. Default: ``"mlp"`` with
        ``residual``, else ``"none"``.
    head : str, optional
        ``"linear"`` or ``"mlp"``. Default: ``"mlp"`` with ``residual``, else ``"linear"``.
    readout : str
        ``"mean"`` over time of the head's outputs, head of the ``"last"`` step, or outputs at ``"each"`` step.
    dropout : float
        Share of numbers set to zero behind each recurrence, in training.

    Notes
    -----
    With R the recurrence, N a layer norm and M the mixing, a block is R, then N (plain); with ``residual``,

    .. math::
        \text{mlp:} \quad & z = N(x + R(N(x))), \quad y = z + W_2 \max(0, W_1 z + b_1) + b_2 \\
        \text{glu:} \quad & y = N(x + a \circ \sigma(g)), \quad (a, g) = W R(x) + b \\
        \text{none:} \quad & y = N(x + R(N(x)))

    The norms of glu have a learned scale and shift, the others have none: as in the papers.

    References
    ----------
    Lim, Zhu, Selfridge and Kasim, ICLR 2024, section 4.3 (mlp, for EigenWorms). Kasim, DEER slides (2024), sequential CIFAR-10
    (glu, heads, strides).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> model = ps.training.SequenceClassifier(layers=2, input_size=3, hidden=8, classes=4, residual=True, norm=True)
    >>> params = model.init(seed=3)
    >>> model.predict(params, np.ones((2, 50, 3), np.float32)).shape
    (2,)
    """

    classes: int

    @property
    def outputs(self) -> int:
        return self.classes

    @property
    def loss(self) -> Callable:
        """The loss that :func:`pitsolve.training.fit` takes by default."""
        return cross_entropy

    def predict(self, params: Parameters, x: np.ndarray, lengths: np.ndarray | None = None, *, method: str | Solver = "auto",
                batch_size: int = 32) -> np.ndarray:
        """The most likely class of every sequence (N,), or of every step (N, T); -1 past the end of a sequence."""
        labels = self.apply(params, x, lengths, method=method, batch_size=batch_size).argmax(axis=-1)
        if lengths is not None and self.readout == "each":
            labels[np.arange(labels.shape[1]) >= np.asarray(lengths)[:, None]] = -1
        return labels


@dataclass(frozen=True, kw_only=True)
class SequenceRegressor(SequenceModel):
    """A network that gives real numbers to every sequence, or to every step of it.

    Parameters
    ----------
    targets : int
        Width of the outputs.
    input_size, hidden, layers, cell, heads, strides, bidirectional, residual, norm, mixing, encoder, head, readout, dropout
        As in :class:`SequenceClassifier`.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> model = ps.training.SequenceRegressor(input_size=2, hidden=8, targets=1, readout="last")
    >>> model.predict(model.init(seed=3), np.ones((2, 50, 2), np.float32)).shape
    (2, 1)
    """

    targets: int

    @property
    def outputs(self) -> int:
        return self.targets

    @property
    def loss(self) -> Callable:
        """The loss that :func:`pitsolve.training.fit` takes by default."""
        return mean_squared

    def predict(self, params: Parameters, x: np.ndarray, lengths: np.ndarray | None = None, *, method: str | Solver = "auto",
                batch_size: int = 32) -> np.ndarray:
        """Outputs, as :meth:`apply`."""
        return self.apply(params, x, lengths, method=method, batch_size=batch_size)
