"""The verbs of a gated cell on windows of time: packs the weights for the lanes, owns the rings, calls the kernels."""

from __future__ import annotations

import functools
import math

import numpy as np

from pitsolve.backends.cpu import windows, windows_adjoint
from pitsolve.backends.cpu.simd import register_bytes
from pitsolve.backends.cpu.windows_adjoint import AFTER, BEFORE, NONE
from pitsolve.backends.cpu.workspace import Workspace, aligned_zeros
from pitsolve.cells.base import GatedCell, Parameters
from pitsolve.compile import specialise

_SHORTEST_BLOCK = 8  # steps
_BATCH_BYTES = 1 << 17  # of the outer products that one tile sums; what it reads stays in the second-level cache
_VECTORS = 2  # vectors of windows in one task: with 8 rows, 16 accumulators, two loads and a broadcast a step


def windows_at_once(dtype: np.dtype) -> int:
    """Windows of one task: the lanes of its vectors."""
    return _VECTORS * register_bytes() // dtype.itemsize


@functools.lru_cache
def _layout(parts: int, hidden: int, inputs: int, units: int, lanes: int, width: int) -> tuple[int, int, np.ndarray]:
    """Steps of a block, numbers in a slot, and where the numbers of consecutive steps stand in the ring.

    A block is so long that whole squares of inputs and states move where the sizes allow, and long enough for the processor to
    read ahead in every window. The rest of a square goes to the last
    row of a slot, which nobody reads.
    """
    block = max(lanes // math.gcd(lanes, size) for size in (parts * hidden, max(1, inputs)))
    while block < _SHORTEST_BLOCK:
        block *= 2
    stride = units + inputs + 1
    slot = (2 + parts * (stride + units)) * width
    part, unit, step = np.arange(parts)[:, None], np.arange(hidden), np.arange(block)[:, None] * slot
    state = ((1 + part * stride + unit) * width).ravel()
    added = ((1 + parts * stride + part * units + unit) * width).ravel()
    tables = [state, step + (units + 1 + np.arange(inputs)) * width, step + added, step + slot + state]
    return block, slot, _table(tables, block * max(parts * hidden, inputs) + 2 * lanes, slot - width)


@functools.lru_cache
def _adjoint_layout(parts: int, hidden: int, inputs: int, units: int, rows: int, lanes: int, width: int):
    """The same for the backward kernels, with places in the ring of c and in that of dL/dx instead of the new states."""
    block, slot, forward = _layout(parts, hidden, inputs, units, lanes, width)
    length = forward.shape[1]
    step = np.arange(block)[:, None]
    c = ((np.arange(parts)[:, None] * units + np.arange(hidden)) * width).ravel()
    slot_c, slot_x = (parts * units + 1) * width, -(-inputs // rows) * rows * width
    state = step * slot + forward[0, :parts * hidden]
    ring = _table([c, forward[1, :block * inputs], forward[2, :block * parts * hidden], state], length, slot - width)
    ring[0, c.size:] = slot_c - width
    places = np.vstack([ring, _table([step * slot_x + np.arange(inputs) * width], length, block * slot_x),
                        _table([step * slot_c + c], length, slot_c - width)])
    return block, slot, slot_c, slot_x, places


def _table(rows: list[np.ndarray], length: int, unused: int) -> np.ndarray:
    """Rows of different lengths, filled up with ``unused``."""
    table = np.full((len(rows), length), unused)
    for k, row in enumerate(rows):
        table[k, :row.size] = row.ravel()
    return table


class GatedWindows:
    """Windows are half-open ranges [first, last) of the steps of sequence ``row``; each lane of a vector holds one."""

    def __init__(self, cell: GatedCell, params: Parameters, dense: np.ndarray, head_columns: np.ndarray | None):
        self.cell, self._head_columns = cell, head_columns
        self.dtype = dense.dtype
        self.work, self._index = Workspace(self.dtype), Workspace(np.dtype(np.int64))
        self.lanes = register_bytes() // self.dtype.itemsize
        self.width = windows_at_once(self.dtype)
        n, m = cell.hidden_size, cell.input_size
        self._rows = min(8, 1 << (n - 1).bit_length())
        self._units = units = -(-n // self._rows) * self._rows
        augmented = np.zeros((cell.GATES, units, units + m + 2), self.dtype)
        augmented[:, :n, 0] = params["bias_hh"].reshape(-1, n)
        augmented[:, :n, 1:n + 1] = dense.reshape(-1, n, n)
        augmented[:, :n, units + 1:units + 1 + m] = params["weight_ih"].reshape(-1, n, m)
        augmented[:, :n, units + 1 + m] = params["bias_ih"].reshape(-1, n)
        self._augmented = augmented
        self._weight = self._pack(augmented.reshape(cell.GATES, -1, self._rows, units + m + 2).transpose(1, 0, 3, 2))
        self._columns = self.lanes * (2 if n >= 2 * self.lanes else 1)  # of the tiles of the parameter gradients
        self._constants = {"GATES": cell.GATES, "PARTS": cell.PARTS, "SUMMED": cell.SUMMED, "LANES": self.lanes,
                           "VECTORS": _VECTORS, "ROWS": self._rows,
                           "gates": cell.gates if cell.ratio == 1 else cell.coarse_gates}

    def _pack(self, values: np.ndarray) -> np.ndarray:
        packed = aligned_zeros(values.shape, self.dtype)
        packed[...] = values
        return packed

    @functools.cached_property
    def _transposed(self) -> tuple[np.ndarray, np.ndarray]:
        """W_hh^T and W_ih^T, a block of columns after the other."""
        units, rows, m = self._units, self._rows, self.cell.input_size
        by_state = self._augmented[:, :, 1:units + 1].reshape(-1, units // rows, rows)
        padded = np.zeros((self.cell.GATES * units, -(-m // rows) * rows), self.dtype)
        padded[:, :m] = self._augmented[:, :, units + 1:units + 1 + m].reshape(-1, m)
        by_input = padded.reshape(-1, padded.shape[1] // rows, rows)
        return self._pack(by_state.transpose(1, 0, 2)), self._pack(by_input.transpose(1, 0, 2))

    def _sweep(self, x, states, starts, row, first, last, source, tolerance, ends):
        cell, tasks = self.cell, -(-row.size // self.width)
        block, slot, places = _layout(cell.PARTS, cell.hidden_size, cell.input_size, self._units, self.lanes, self.width)
        ring = self.work.take("ring", tasks, (block + 1) * slot + self.width)
        sums = self.work.take("sums", tasks, 2 * cell.GATES * self._rows * self.width)
        index = self._index.take("index", tasks, 5, self.width)
        steps, differences = np.zeros(tasks, np.int64), np.zeros(tasks)
        specialise(windows.sweep, **self._constants)(
            x, states, starts, source is not None, states if source is None else source, self._weight, cell.ratio, row, first,
            last, block, places, index, ring, sums, tolerance, ends, steps, differences)
        return steps, differences

    def sweep(self, x, states, starts, row, first, last, source=None) -> np.ndarray:
        """h_t = f(h_{t-1}, x_t) + g_t through every window, from its row of ``starts`` (W, S).

        States go to ``states`` (B, T, S), the last one of every window not there but to the result (W, S).
        """
        ends = np.empty_like(starts)
        self._sweep(x, states, starts, row, first, last, source, -1.0, ends)
        return ends

    def merge(self, x, states, starts, row, first, last, tol, ends) -> tuple[np.ndarray, np.ndarray]:
        """The same again from other starts, over the states of before, until the new states agree with them within ``tol``.

        Agreement is of all windows of a task in all steps of a block; the agreeing states are not written, so that the
        difference is the residual that remains. Windows that run to their end update ``ends``. Returns the steps done and
        the difference of every window.
        """
        steps, differences = self._sweep(x, states, starts, row, first, last, None, tol, ends)
        task = np.arange(row.size) // self.width
        return np.minimum(steps[task], last - first), differences[task]

    def pull(self, x, states, previous, carries, starts, row, first, last, before=None, after=None) -> np.ndarray:
        """c <- J_t^T (c + before_t) + after_t back through every window, from its row of ``starts`` (W, S).

        c of every step goes to ``carries`` (B, T, S), that of the first step of every window not there but to the result.
        J_t is the Jacobian at (h_{t-1}, x_t), h from ``states`` and, before the first step, from ``previous`` (B, S).
        """
        ends = np.empty_like(starts)
        mode = NONE if before is None and after is None else AFTER if before is None else BEFORE
        source = states if mode == NONE else before if after is None else after
        self._pull(x, states, previous, carries, starts, row, first, last, source, mode, self.totals(0, x), ends)
        return ends

    def totals(self, windows: int, dx: np.ndarray) -> dict[str, np.ndarray]:
        """Empty sums for the parameter gradients of so many windows, and the array that receives dL/dx."""
        rows, columns = 2 * self.cell.GATES * self._units, self._columns
        blocks = -(-(self.cell.hidden_size + self.cell.input_size) // columns)
        tasks = -(-windows // self.width)
        return {"x": dx, "weights": np.zeros((tasks, rows, blocks * columns)),
                "biases": np.zeros((tasks, rows * self.lanes), self.dtype)}

    def accumulate(self, totals, x, states, previous, starts, row, first, last, before=None, tol=0.0) -> np.ndarray:
        """Like :func:`pull`, adding to the parameter gradients and to dL/dx in place of keeping c.

        Without ``before`` it adds what a change of ``starts`` does, until c falls below ``tol``.
        """
        ends = np.empty_like(starts)
        mode, source = (NONE, states) if before is None else (BEFORE, before)
        self._pull(x, states, previous, states, starts, row, first, last, source, mode, totals, ends, True, tol)
        return ends

    def finish(self, totals) -> Parameters:
        """The parameter gradients, from the sums of all tasks."""
        cell, n, m = self.cell, self.cell.hidden_size, self.cell.input_size
        weights = totals["weights"].reshape(-1, 2, cell.GATES, self._units, totals["weights"].shape[2])
        weights = weights[:, :, :, :n, :n + m].sum(axis=0)  # what lies beyond are products with unspecified padding
        biases = totals["biases"].reshape(-1, 2, cell.GATES, self._units, self.lanes)[:, :, :, :n]
        biases = biases.sum(axis=(0, 4), dtype=np.float64)
        by_input = np.concatenate([weights[0, :cell.SUMMED], weights[1, cell.SUMMED:]])
        by_state = weights[0, :, :, :n].reshape(-1, n)
        if cell.heads > 1:
            by_state = np.take_along_axis(by_state, self._head_columns, axis=1)
        gradients = {"weight_ih": by_input[:, :, n:].reshape(-1, m), "weight_hh": by_state,
                     "bias_ih": biases[1].ravel(), "bias_hh": biases[0].ravel()}
        return {name: np.ascontiguousarray(value, self.dtype) for name, value in gradients.items()}

    def _pull(self, x, states, previous, carries, starts, row, first, last, source, mode, totals, ends, accumulate=False,
              tol=0.0) -> None:
        cell, tasks = self.cell, -(-row.size // self.width)
        block, slot, slot_c, slot_x, places = _adjoint_layout(
            cell.PARTS, cell.hidden_size, cell.input_size, self._units, self._rows, self.lanes, self.width)
        gates = 2 * cell.GATES * self._units
        steps_of_batch = max(1, min(8, _BATCH_BYTES // (gates * self.width * self.dtype.itemsize))) if accumulate else 0
        row_of_batch = steps_of_batch * self.width
        columns = totals["weights"].shape[2]
        take = self.work.take
        specialise(windows_adjoint.pull, **self._constants, ACCUMULATE=accumulate, OUTER_VECTORS=self._columns // self.lanes)(
            x, states, previous, carries, starts, mode, source, self._weight, *self._transposed, cell.ratio, row, first, last,
            block, places, self._index.take("index", tasks, 6, self.width),
            take("ring", tasks, (block + 1) * slot + self.width),
            take("sums", tasks, 2 * cell.GATES * self._rows * self.width), take("ring_c", tasks, (block + 1) * slot_c),
            take("gate", tasks, gates * self.width), totals["x"],
            take("pulled", tasks, block * slot_x + self.width if accumulate else 1),
            take("batch", tasks, gates if accumulate else 1, row_of_batch),
            take("packed", tasks, columns * row_of_batch), take("partial", tasks, gates if accumulate else 1, columns),
            totals["weights"], totals["biases"], tol, ends)
