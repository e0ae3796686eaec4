"""A recurrent cell as a block of a chain: m steps of it, the inputs travelling along with the state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Cell, GatedCell, Parameters
from pitsolve.gradient import gradient
from pitsolve.networks.chain import Chain
from pitsolve.networks.layer import Layer, Sequence
from pitsolve.networks.perceptron import Dense
from pitsolve.solve import solve


@dataclass(frozen=True)
class Unrolled(Layer):
    r"""Steps first + 1 ... first + steps of a recurrent cell, as a layer.

    .. math:: (h, x_1 \dots x_T) \mapsto (h_m, x_1 \dots x_T), \qquad h_0 = h, \quad h_i = f(h_{i-1}, x_{first + i})

    The signal is the state followed by all inputs of the sequence, flattened: (B, n + T m). As the inputs belong to it, an
    affine cell is an affine layer, and without bias a linear one.

    Parameters
    ----------
    cell : Cell
        The model of one step, with n states and m inputs.
    first : int
        Steps before this block.
    steps : int
        Steps of this block.
    bias : bool
        Whether the parameters whose names begin with "bias" are there, or zero.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> block = ps.networks.Unrolled(ps.cells.GRU(input_size=2, hidden_size=5), first=10, steps=10)
    >>> signal = np.ones((3, 5 + 20 * 2), np.float32)
    >>> block.forward(block.init(seed=5), signal, training=True)[0].shape
    (3, 45)
    """

    cell: Cell
    first: int
    steps: int
    bias: bool = True

    def __post_init__(self) -> None:
        check.a_cell(self.cell)
        check.length("first", self.first)
        check.count("steps", self.steps)
        check.flag("bias", self.bias)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self.cell.shapes.items() if self.bias or not name.startswith("bias")}

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        params = self.cell.init(np.random.default_rng(seed), dtype)
        return {name: params[name] for name in self.shapes}

    def _call(self, p: Parameters, signal: np.ndarray) -> tuple[Parameters, np.ndarray, np.ndarray]:
        """Parameters, inputs of the slice and first state, as the solvers take them."""
        cell = self.cell
        params = {name: p[name] if name in p else np.zeros(shape, signal.dtype) for name, shape in cell.shapes.items()}
        return params, signal[:, self._columns].reshape(-1, self.steps, cell.input_size), signal[:, :cell.state_size]

    @property
    def _columns(self) -> slice:
        """Where the inputs of this block are in the signal."""
        begin = self.cell.state_size + self.first * self.cell.input_size
        return slice(begin, begin + self.steps * self.cell.input_size)

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple]:
        params, inputs, h0 = self._call(p, x)
        solution = solve(self.cell, params, inputs, h0, method="sequential")
        y = x.copy()
        y[:, :self.cell.state_size] = solution.states[:, -1]
        return y, (x, solution)

    def backward(self, p: Parameters, saved: tuple, dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        x, solution = saved
        params, inputs, h0 = self._call(p, x)
        dstates = np.zeros_like(solution.states)
        dstates[:, -1] = dy[:, :self.cell.state_size]
        found = gradient(self.cell, params, inputs, solution, dstates, h0, method="sequential")
        dx = dy.copy()
        dx[:, :self.cell.state_size] = found.h0
        dx[:, self._columns] += found.x.reshape(dx.shape[0], -1)
        return dx, {name: found.params[name] for name in self.shapes}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 1 or shape[0] < self._columns.stop:
            raise ValueError(f"{self} takes a state and at least {self.first + self.steps} inputs of its cell, "
                             f"{self._columns.stop} numbers, got shape {shape}")
        return shape

    def zero_preserving(self) -> Unrolled:
        if not isinstance(self.cell, GatedCell):
            raise TypeError(f"{type(self.cell).__name__} is not known to stay at zero without bias; pass the coarse networks "
                            "of parareal in coarse=")
        return replace(self, bias=False)


@dataclass(frozen=True)
class FromZero(Layer):
    """The signal at the start of a sequence: the state zero, then the inputs (B, T, m), flattened."""

    state_size: int
    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple[int, ...]]:
        zero = np.zeros((x.shape[0], self.state_size), x.dtype)
        return np.concatenate([zero, x.reshape(x.shape[0], -1)], axis=1), x.shape

    def backward(self, p: Parameters, saved: tuple[int, ...], dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        return dy[:, self.state_size:].reshape(saved), {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2:
            raise ValueError(f"a recurrent network takes inputs of shape (steps, width), got {shape}")
        return (self.state_size + shape[0] * shape[1],)


@dataclass(frozen=True)
class State(Layer):
    """The first ``size`` numbers of a signal: the state."""

    size: int
    keeps_shape = False

    def forward(self, p: Parameters, x: np.ndarray, training: bool) -> tuple[np.ndarray, tuple[int, ...]]:
        return x[:, :self.size], x.shape

    def backward(self, p: Parameters, saved: tuple[int, ...], dy: np.ndarray) -> tuple[np.ndarray, Parameters]:
        dx = np.zeros(saved, dy.dtype)
        dx[:, :self.size] = dy
        return dx, {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.size,)


def recurrent(cell: Cell, steps: int, blocks: int, outputs: int) -> Chain:
    """A recurrent network as a chain: the state from zero, blocks of consecutive steps, a dense layer on the last state.

    Every block has parameters of its own. Torn by :func:`pitsolve.networks.parareal`, each subnetwork starts from the state
    zero and has the inputs of its own steps; the coarse networks carry the difference on, without bias and with inputs zero.

    Parameters
    ----------
    cell : Cell
        The model of one step.
    steps : int
        Steps T of a sequence.
    blocks : int
        Blocks; the steps are divided among them as evenly as possible.
    outputs : int
        Numbers that come out.

    Returns
    -------
    Chain

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.networks.recurrent(ps.cells.GRU(input_size=2, hidden_size=5), steps=60, blocks=12, outputs=3)
    Chain of 12 blocks, 1638 parameters
    """
    check.a_cell(cell)
    steps, blocks = check.count("steps", steps), check.count("blocks", blocks)
    if blocks > steps or cell.input_size == 0:
        raise ValueError(f"a recurrent network needs a cell with inputs and at least one step a block, got {cell} and {steps} "
                         f"steps in {blocks} blocks")
    ends = [steps * k // blocks for k in range(blocks + 1)]
    unrolled = tuple(Unrolled(cell, first, last - first) for first, last in pairwise(ends))
    post = Sequence((("state", State(cell.state_size)), ("dense", Dense(cell.state_size, check.count("outputs", outputs)))))
    return Chain(FromZero(cell.state_size), unrolled, post)
