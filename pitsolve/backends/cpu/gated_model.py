"""A gated cell bound to its parameters: packs the weights, owns the scratch memory and calls the kernels, slab by slab."""

from __future__ import annotations

import functools

import numpy as np

from pitsolve.backends.cpu import gated, gated_adjoint
from pitsolve.backends.cpu.gated_windows import GatedWindows
from pitsolve.backends.cpu.products import block_vectors, pack
from pitsolve.backends.cpu.simd import lanes_for
from pitsolve.backends.cpu.workspace import Workspace, aligned_zeros
from pitsolve.cells.base import GatedCell, Parameters
from pitsolve.compile import specialise

_TASKS = 8  # partial sums of the parameter gradients; fixed, so that they do not depend on the number of threads
_ACCUMULATORS = 24  # vector registers that one tile may fill


class GatedModel:
    """The verbs of a gated cell. Slabs are half-open ranges [begin, end) of time; ``previous`` is the state before."""

    VALUE, DIAGONAL, BLOCKS = gated.VALUE, gated.DIAGONAL, gated.BLOCKS

    def __init__(self, cell: GatedCell, params: Parameters):
        self.cell, self._params = cell, params
        self.dtype = params["weight_hh"].dtype
        n, heads = cell.hidden_size, cell.heads
        self.lanes = lanes = lanes_for(self.dtype, n)
        self.units = units = -(-n // lanes) * lanes
        self.width = cell.GATES * units
        self.columns = n // heads
        # Heads that do not fill vectors exactly are multiplied as one dense matrix with zeros outside the blocks.
        self.headed = heads > 1 and lanes % self.columns == 0
        self.work = Workspace(self.dtype)
        vectors = self.width // lanes
        step_vectors = block_vectors(vectors, 12)
        self._tile_vectors = 3 if vectors % 3 == 0 else 2
        self._constants = {"GATES": cell.GATES, "PARTS": cell.PARTS, "PARTS_GATES": cell.PARTS * cell.GATES,
                           "PARTS_PARTS": cell.PARTS**2, "LANES": lanes, "HEADED": self.headed,
                           "HEAD": self.columns if self.headed else 1,
                           "TILE_VECTORS": self._tile_vectors, "gates": cell.gates if cell.ratio == 1 else cell.coarse_gates}
        self._step = {"STEP_VECTORS": step_vectors, "STEP_SETS": _sets(step_vectors)}
        back_vectors = block_vectors(units // lanes, 12)
        self._back = {"STEP_VECTORS": back_vectors, "STEP_SETS": _sets(back_vectors)}

    @functools.cached_property
    def _input(self) -> tuple[np.ndarray, np.ndarray]:
        """W_ih and b_ih for tiles."""
        weight = pack(self._pad(self._params["weight_ih"]).T, self.lanes, self._tile_vectors)
        return weight, self._pad_bias(self._params["bias_ih"], weight)

    @functools.cached_property
    def _to_input(self) -> np.ndarray:
        """W_ih^T for tiles."""
        return pack(self._pad(self._params["weight_ih"]), self.lanes, self._tile_vectors)

    def _hidden(self, vectors: int) -> tuple[np.ndarray, np.ndarray]:
        """W_hh and b_hh for tiles of so many vectors, or for heads."""
        weight = self._params["weight_hh"]
        if self.headed:
            by_gate = self._pad(weight).reshape(self.cell.GATES, self.units, self.columns)
            packed = np.ascontiguousarray(by_gate.transpose(0, 2, 1))
        else:
            packed = pack(self._pad(self._dense(weight)).T, self.lanes, vectors)
        return packed, self._pad_bias(self._params["bias_hh"], packed)

    @functools.cached_property
    def _step_hidden(self) -> tuple[np.ndarray, np.ndarray]:
        return self._hidden(self._step["STEP_VECTORS"])

    @functools.cached_property
    def _tile_hidden(self) -> tuple[np.ndarray, np.ndarray]:
        return self._hidden(self._tile_vectors)

    @functools.cached_property
    def _to_hidden(self) -> np.ndarray:
        """W_hh^T for tiles, or for heads."""
        cell, weight = self.cell, self._params["weight_hh"]
        if not self.headed:
            return pack(self._pad(self._dense(weight)), self.lanes, self._back["STEP_VECTORS"])
        blocks = weight.reshape(cell.GATES, cell.heads, self.columns, self.columns)
        transposed = aligned_zeros((cell.GATES, self.columns, self.units), self.dtype)
        transposed[:, :, :cell.hidden_size] = blocks.transpose(0, 2, 1, 3).reshape(cell.GATES, self.columns, cell.hidden_size)
        return transposed

    @functools.cached_property
    def _diagonal(self) -> np.ndarray:
        """W_k[i, i] of every gate k and unit i."""
        n = self.cell.hidden_size
        by_gate = self._params["weight_hh"].reshape(self.cell.GATES, n, self.columns)
        return self._pad(by_gate[:, np.arange(n), np.arange(n) % self.columns].ravel())

    @functools.cached_property
    def _side_by_side(self) -> np.ndarray:
        """For every unit, its row of each W_k and of the identity."""
        cell, n = self.cell, self.cell.hidden_size
        rows = aligned_zeros((n, cell.GATES + 1, -(-self.columns // self.lanes) * self.lanes), self.dtype)
        rows[:, :-1, :self.columns] = self._params["weight_hh"].reshape(cell.GATES, n, self.columns).transpose(1, 0, 2)
        rows[np.arange(n), -1, np.arange(n) % self.columns] = 1.0
        return rows

    @functools.cached_property
    def _zero(self) -> np.ndarray:
        return np.zeros(max(self._to_input.shape[0] * self._to_input.shape[2], 12 * self.lanes), self.dtype)

    @functools.cached_property
    def windows(self) -> GatedWindows:
        """The verbs on windows of time."""
        columns = self._head_columns() if self.cell.heads > 1 else None
        return GatedWindows(self.cell, self._params, self._dense(self._params["weight_hh"]), columns)

    def _head_columns(self) -> np.ndarray:
        """For every row of weight_hh, the columns of the dense matrix that it holds: those of the unit's own head."""
        unit = np.arange(self.cell.GATES * self.cell.hidden_size) % self.cell.hidden_size
        return (unit // self.columns * self.columns)[:, None] + np.arange(self.columns)

    def _dense(self, weight: np.ndarray) -> np.ndarray:
        """weight_hh with the columns of all heads."""
        if self.cell.heads == 1:
            return weight
        dense = np.zeros((weight.shape[0], self.cell.hidden_size), self.dtype)
        np.put_along_axis(dense, self._head_columns(), weight, axis=1)
        return dense

    def _pad(self, rows: np.ndarray) -> np.ndarray:
        """Rows (GATES n, .) moved to (GATES units, .) with zeros between."""
        padded = np.zeros((self.cell.GATES, self.units, *rows.shape[1:]), self.dtype)
        padded[:, :self.cell.hidden_size] = rows.reshape(self.cell.GATES, self.cell.hidden_size, *rows.shape[1:])
        return padded.reshape(self.width, *rows.shape[1:])

    def _unpad(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`_pad`."""
        trimmed = rows.reshape(self.cell.GATES, self.units, *rows.shape[1:])[:, :self.cell.hidden_size]
        return trimmed.reshape(self.cell.GATES * self.cell.hidden_size, *rows.shape[1:])

    def _pad_bias(self, bias: np.ndarray, packed: np.ndarray) -> np.ndarray:
        padded = aligned_zeros((max(self.width, packed.shape[0] * packed.shape[2]),), self.dtype)
        padded[:self.width] = self._pad(bias)
        return padded

    def _kernel(self, function, **constants):
        return specialise(function, **self._constants, **constants)

    def step_bytes(self, order: int) -> int:
        """Scratch memory of one time step of one sequence, in bytes."""
        heads, m = self.cell.blocks
        jacobian = {self.VALUE: 0, self.DIAGONAL: self.cell.state_size, self.BLOCKS: heads * m * m}[order]
        gates = 4 * self.width
        return (jacobian + gates + 2 * self.cell.state_size) * self.dtype.itemsize

    def carry(self, state: np.ndarray) -> np.ndarray:
        """A state (B, S) in the padded layout that :meth:`propagate` carries along."""
        parts = state.reshape(-1, self.cell.PARTS, self.cell.hidden_size)
        padded = aligned_zeros((state.shape[0], self.cell.PARTS, self.units), self.dtype)
        padded[:, :, :self.cell.hidden_size] = parts
        return padded.reshape(state.shape[0], self.cell.PARTS * self.units)

    def state(self, carry: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`carry`."""
        parts = carry.reshape(-1, self.cell.PARTS, self.units)[:, :, :self.cell.hidden_size]
        return np.ascontiguousarray(parts).reshape(carry.shape[0], self.cell.state_size)

    def _project(self, x, begin, end, start, stop):
        weight, bias = self._input
        drive = self.work.take("drive", x.shape[0], end - begin, bias.size)
        self._kernel(gated.project)(x, weight, bias, drive, begin, start, stop)
        return drive

    def propagate(self, x, carry, states, begin, end, start, stop, source=None) -> None:
        """h_t = f(h_{t-1}, x_t) + g_t into ``states`` for begin <= t < end, one after the other; ``source`` is g or None."""
        batch = x.shape[0]
        drive = self._project(x, begin, end, start, stop)
        weight, bias = self._step_hidden
        u = self.work.take("u_step", batch, bias.size)
        added = states if source is None else source
        arguments = (drive, weight, bias, added, self.cell.ratio, carry, u, states, begin, start, stop)
        if batch == 1:  # no threads to start, which costs little on a quiet machine and much on a busy one
            self._kernel(gated.propagate_row, SOURCE=source is not None, **self._step)(*arguments, 0)
        else:
            self._kernel(gated.propagate, SOURCE=source is not None, **self._step)(*arguments)

    def linearise(self, order, x, states, previous, begin, end, start, stop) -> tuple[np.ndarray, np.ndarray]:
        """f(h_{t-1}, x_t) - h_t (B, L, S) and its Jacobian: none, diagonal (B, L, S) or blocks (B, L, k, m, m)."""
        cell, batch, length = self.cell, x.shape[0], end - begin
        heads, m = cell.blocks
        shape = {self.VALUE: (1, 1, 1), self.DIAGONAL: (batch, length, cell.state_size),
                 self.BLOCKS: (batch, length, heads, m, m)}[order]
        jacobian = self.work.take(f"jacobian{order}", *shape)
        tasks = batch * -(-length // gated.CHUNK)
        du = self.work.take("du_step", tasks, 1, cell.PARTS * self.width)
        ds = self.work.take("ds_step", tasks, 1, cell.PARTS**2 * self.units)
        defect = self._linearise(order, x, states, previous, begin, end, start, stop, du, du, ds, jacobian)
        return defect, jacobian

    def _linearise(self, order, x, states, previous, begin, end, start, stop, dp, du, ds, jacobian):
        batch, length = x.shape[0], end - begin
        drive = self._project(x, begin, end, start, stop)
        weight, bias = self._tile_hidden
        u = self.work.take("u", batch, length, bias.size)
        defect = self.work.take("defect", batch, length, self.cell.state_size)
        defect[...] = 0.0
        matrix = self._side_by_side if order == self.BLOCKS else self._diagonal
        self._kernel(gated.linearise, ORDER=order)(
            drive, weight, bias, matrix, self.cell.ratio, states, previous, u, defect, dp,
            du, ds, jacobian, begin, start, stop)
        return defect

    def totals(self, dx: np.ndarray) -> dict[str, np.ndarray]:
        """Empty sums for the parameter gradients, and the array that receives dL/dx."""
        inputs = self.cell.input_size
        by_state = (self.cell.GATES * self.columns, self.units) if self.headed else (self.width, self.cell.hidden_size)
        return {"x": dx, "input": np.zeros((_TASKS, self.width, inputs)), "state": np.zeros((_TASKS, *by_state)),
                "biases": np.zeros((_TASKS, 2, self.width))}

    def partials(self, x, states, previous, begin, end, start, stop) -> tuple[np.ndarray, ...]:
        """Derivatives of every gate at every t of the slab with respect to p, u and the parts of the state."""
        cell, batch, length = self.cell, x.shape[0], end - begin
        dp = self.work.take("dp", batch, length, cell.PARTS * self.width)
        du = self.work.take("du", batch, length, cell.PARTS * self.width)
        ds = self.work.take("ds", batch, length, cell.PARTS**2 * self.units)
        none = self.work.take("none", 1, 1, 1)
        self._linearise(gated.PARTIALS, x, states, previous, begin, end, start, stop, dp, du, ds, none)
        return dp, du, ds

    def backward(self, partials, dstates, carry, adjoint, begin, start, stop) -> None:
        """lambda_t = dL/dh_t + J_{t+1}^T lambda_{t+1} into ``adjoint``, one step after the other."""
        _, du, ds = partials
        batch = dstates.shape[0]
        v = self.work.take("v", batch, self.width)
        width = max(self.units, self._to_hidden.shape[0] * self._to_hidden.shape[2])
        product = self.work.take("product", batch, width)
        arguments = (dstates, self._to_hidden, self._zero, du, ds, carry, v, product, adjoint, begin, start, stop)
        if batch == 1:
            self._kernel(gated_adjoint.backward_row, **self._back)(*arguments, 0)
        else:
            self._kernel(gated_adjoint.backward, **self._back)(*arguments)

    def accumulate(self, totals, partials, x, states, previous, adjoint, begin, start, stop) -> None:
        """Add the parameter gradients of one slab to ``totals`` and write its dL/dx."""
        dp, du, _ = partials
        batch, length = adjoint.shape[:2]
        block = self._tile_vectors * self.lanes
        padded = self.work.take("padded", batch, length, self._to_input.shape[0] * self._to_input.shape[2])
        self._kernel(gated_adjoint.pull)(adjoint, dp, du, self._to_input, self._zero, padded, totals["x"], begin, start, stop)
        widest = -(-max(self.cell.input_size, self.cell.hidden_size, 1) // block) * block
        packed = self.work.take("packed", _TASKS, widest * gated_adjoint.PIECE)
        products = self.work.take("products", _TASKS, widest * self.width)
        self._kernel(gated_adjoint.accumulate)(
            x, states, previous, dp, du, packed, products, self._zero, totals["input"], totals["state"],
            totals["biases"], begin, start, stop)

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all slabs."""
        by_input, by_state, biases = (totals[name].sum(axis=0) for name in ("input", "state", "biases"))
        if self.headed:
            by_gate = by_state.reshape(self.cell.GATES, self.columns, self.units)
            by_state = self._unpad(by_gate.transpose(0, 2, 1).reshape(self.width, self.columns))
        else:
            by_state = np.take_along_axis(self._unpad(by_state), self._head_columns(), axis=1)
        gradients = {"weight_ih": self._unpad(by_input), "weight_hh": by_state, "bias_ih": self._unpad(biases[0]),
                     "bias_hh": self._unpad(biases[1])}
        return {name: np.ascontiguousarray(value).astype(self.dtype) for name, value in gradients.items()}


def _sets(vectors: int) -> int:
    """Accumulator sets that hide the latency of a multiply-add without running out of registers."""
    sets = 1
    while 2 * sets * vectors <= _ACCUMULATORS and sets < 8:
        sets *= 2
    return sets
