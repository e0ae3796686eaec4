"""Recurrent layers: a cell run over each sequence, forwards or backwards in time, in steps of any stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Cell, Parameters
from pitsolve.networks.layer import Layer
from pitsolve.sequences.evaluation import Evaluation
from pitsolve.solution import Solution


@dataclass(frozen=True)
class Recurrent(Layer):
    r"""The states of a cell over a sequence, :math:`h_t = f(h_{t-s}, x_t)`.

    Parameters
    ----------
    cell : Cell
        f. Of a state of several parts, such as that of an LSTM, the first is the output.
    stride : int
        s. The s phases of a sequence are sequences of their own, s times shorter.
    reverse : bool
        Whether time runs from the end of each sequence to its beginning.

    Notes
    -----
    Inputs (B, T, m), outputs (B, T, n). Past the end of a shorter sequence, outputs are zero and inputs are not read.

    References
    ----------
    Strides: Kasim, DEER slides (2024), "Multi-head GRU".

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.sequences.Recurrent(ps.cells.GRU(input_size=2, hidden_size=3), stride=4).shapes["weight_hh"]
    (9, 3)
    """

    cell: Cell
    stride: int = 1
    reverse: bool = False

    keeps_shape = False

    def __post_init__(self) -> None:
        check.a_cell(self.cell)
        check.count("stride", self.stride)
        check.flag("reverse", self.reverse)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.cell.shapes

    @property
    def width(self) -> int:
        """Width n of the outputs."""
        return getattr(self.cell, "hidden_size", self.cell.state_size)

    def init(self, seed: int | np.random.Generator, dtype: type = np.float32) -> Parameters:
        return self.cell.init(seed, dtype)

    def forward(self, p: Parameters, x: np.ndarray, run: Evaluation) -> tuple[np.ndarray, tuple]:
        inputs, lengths = self._arranged(x, run.lengths), self._lengths(x, run.lengths)
        solution = run.solve(self.cell, p, inputs, lengths)
        return self._restored(solution.states[..., :self.width], x.shape[1], run.lengths), (inputs, solution, run)

    def backward(self, p: Parameters, saved: tuple[np.ndarray, Solution, Evaluation], dy: np.ndarray):
        inputs, solution, run = saved
        arranged = self._arranged(dy, run.lengths)
        dstates = arranged
        if self.width != self.cell.state_size:
            dstates = np.zeros(solution.states.shape, dy.dtype)
            dstates[..., :self.width] = arranged
        found = run.gradient(self.cell, p, inputs, solution, dstates)
        return self._restored(found.x, dy.shape[1], run.lengths), found.params

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2 or shape[1] != self.cell.input_size:
            raise ValueError(f"{self} takes sequences of shape (T, {self.cell.input_size}), got {shape}")
        return shape[0], self.width

    def _arranged(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """The phases as sequences, in the direction of time: (B s, ceil(T / s), m)."""
        x = reversed_in_time(x, lengths) if self.reverse else x
        if self.stride == 1:
            return x
        batch, steps, width = x.shape
        rounds = -(-steps // self.stride)
        padded = np.zeros((batch, rounds * self.stride, width), x.dtype)
        padded[:, :steps] = x
        phases = padded.reshape(batch, rounds, self.stride, width).transpose(0, 2, 1, 3)
        return phases.reshape(batch * self.stride, rounds, width)

    def _restored(self, y: np.ndarray, steps: int, lengths: np.ndarray | None) -> np.ndarray:
        """The inverse of :meth:`_arranged`, zero past the end of each sequence."""
        if self.stride > 1:
            rows, rounds, width = y.shape
            phases = y.reshape(rows // self.stride, self.stride, rounds, width).transpose(0, 2, 1, 3)
            y = phases.reshape(-1, rounds * self.stride, width)[:, :steps]
        return np.ascontiguousarray(reversed_in_time(y, lengths) if self.reverse else y)

    def _lengths(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray | None:
        """Lengths of the phases: phase j of a sequence of L steps has ceil((L - j) / s)."""
        batch, steps = x.shape[:2]
        if self.stride == 1 or (lengths is None and steps % self.stride == 0):
            return lengths
        lengths = np.full(batch, steps) if lengths is None else lengths
        phases = -((np.arange(self.stride) - lengths[:, None]) // self.stride)
        return np.maximum(phases, 0).ravel()


def reversed_in_time(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Each sequence back to front; zero past its end."""
    if lengths is None:
        return np.ascontiguousarray(x[:, ::-1])
    y = np.zeros_like(x)
    for b, length in enumerate(lengths):
        y[b, :length] = x[b, :length][::-1]
    return y
