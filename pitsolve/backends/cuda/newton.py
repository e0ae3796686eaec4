"""Whole iterations of Newton's method for gated cells: what the slab-wise path does with four verbs and stored Jacobians."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cuda import newton_chunks
from pitsolve.backends.cuda.launch import WARP, blocks_for, device, specialise
from pitsolve.backends.cuda.scan import scan
from pitsolve.backends.cuda.workspace import Workspace

_DENSE = 16  # the largest state of a head whose maps fit the registers
_DIAGONAL = 32  # the most units of a head, whose rows of weights do
_THREADS = 128
_CARD = 132 * 640  # threads that a card holds; fixed, so that no result depends on the card
_SHORTEST, _LONGEST = 16, 64  # steps of a chunk


def fused_newton(model, order: int, damping: float, x, h0, states, stop: np.ndarray) -> InChunks | None:
    """Iterations that improve ``states`` in place, or None where the slab-wise path is the better one."""
    cell = model.cell
    columns = cell.hidden_size // cell.heads
    if columns <= _DIAGONAL if order == model.DIAGONAL else cell.PARTS * columns <= _DENSE:
        return InChunks(model, order == model.DIAGONAL, 1.0 - damping, x, h0, states, stop)
    return None


class InChunks:
    """Two passes over chunks of time with a scan over chunks between them; kernels in newton_chunks.py."""

    def __init__(self, model, diagonal: bool, keep: float, x, h0, states, stop: np.ndarray):
        self._model, self._diagonal, self._keep = model, diagonal, keep
        self._x, self._h0, self._states, self._stop = x, h0, states, stop
        cell, (batch, steps, _) = model.cell, states.shape
        self._columns = cell.hidden_size // cell.heads
        self._size = cell.PARTS * self._columns
        wanted = _CARD // self._columns
        self._length = min(max(_SHORTEST, steps * batch * cell.heads // wanted), _LONGEST)
        self._chunks = batch * blocks_for(steps, self._length) * cell.heads
        self._work = Workspace(model.dtype)
        self._integer = np.dtype(f"i{model.dtype.itemsize}")
        self._constants = self._bind(cell)

    def _bind(self, cell) -> dict[str, object]:
        n, size, warps = self._columns, self._size, _THREADS // WARP
        padded = blocks_for(n, 4) * 4
        pitch = padded + 4
        couples = size * (cell.PARTS - 1)
        place = size * pitch * (not self._diagonal) + 2 * padded + blocks_for(couples, 4) * 4 + 4
        places = blocks_for(WARP, n)
        return {**self._model.weights.constants, "BITS": self._integer.type, "DIAGONAL": self._diagonal,
                "PARTS_GATES": cell.PARTS * cell.GATES, "PARTS_PARTS": cell.PARTS**2, "HEADS": cell.heads, "N": n, "SIZE": size,
                "PADDED": padded, "WEIGHTS": cell.GATES * padded, "COLUMNS": cell.PARTS * (1 if self._diagonal else size),
                "PER_WARP": WARP // n, "PLACES": places, "PITCH": 0 if self._diagonal else pitch, "PLACE": place,
                "PLACE_APPLY": 4 * padded, "SHARED": warps * places * place, "SHARED_APPLY": warps * places * 4 * padded,
                "STEPS": self._length}

    def _kernel(self, function):
        constants = {name: value for name, value in self._constants.items() if name != "SUMMED"}
        return specialise(function, self._model.dtype, **constants)

    def sweep(self, tol: float, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One iteration: norms of the defect and first bad steps, which belong to the iterate before it; sizes of the update."""
        batch, steps, state_size = self._states.shape
        weights, cell = self._model.weights, self._model.cell
        blocks = blocks_for(self._chunks, _THREADS // WARP * (WARP // self._columns))
        per_sequence = blocks_for(steps, self._length)
        first, last = device().indices(start), device().indices(self._stop)
        begin = device().upload(np.concatenate([np.zeros(2 * batch), self._stop]).astype(self._integer))
        states, entries = self._states.reshape(-1), self._h0.reshape(-1)
        own = weights.hidden_bias if not self._diagonal else _own_weights(weights)
        common = weights.hidden, weights.hidden_bias, own, float(cell.ratio), self._keep
        drive = self._drive()
        ends = self._work.take("ends", batch, per_sequence, state_size)
        if per_sequence > 1:
            shape = (state_size,) if self._diagonal else (cell.heads, self._size, self._size)
            products = self._work.take("products", batch, per_sequence, *shape)
            entries = self._work.take("entries", self._chunks * self._size)
            self._kernel(newton_chunks.reduce_chunks)(
                blocks, _THREADS, drive, *common, self._h0.reshape(-1), states, entries, products.reshape(-1),
                ends.reshape(-1), first, last, self._chunks, steps)
            scan(products, ends, self._zero(), ends, np.zeros(batch, np.int64), np.full(batch, per_sequence))
        self._kernel(newton_chunks.apply_chunks)(
            blocks, _THREADS, drive, *common, tol, states, entries, ends.reshape(-1), begin, first, last, self._chunks, steps,
            batch)
        return self._result(begin)
