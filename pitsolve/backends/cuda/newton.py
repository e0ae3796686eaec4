"""Whole iterations of Newton's method for gated cells: what the slab-wise path does with four verbs and stored Jacobians."""

from __future__ import annotations

import copy
import math

import numpy as np

from pitsolve.backends.cuda import arrays, look_back, newton_apply, newton_chunks, newton_tiles, newton_time
from pitsolve.backends.cuda.gated_linearise import own_weights
from pitsolve.backends.cuda.launch import WARP, blocks_for, device, specialise
from pitsolve.backends.cuda.scan import scan
from pitsolve.backends.cuda.workspace import Workspace
from pitsolve.cells.base import GatedCell

_COLUMNS_BYTES = 64  # of the columns of a map that a lane holds, twice, in registers beside its weights
_WEIGHTS_BYTES = 384  # of the rows of weights in registers, when maps are diagonal
_THREADS = 128
_CARD = 132 * 640  # threads that a card holds; fixed, so that no result depends on the card
_SHORTEST, _LONGEST = 16, 64  # steps of a chunk
_SHORT = 64  # so few steps do not fill a tile
_TILE_THREADS = {4: 256, 8: 128}  # by the bytes of a number


def fused_newton(model, order: int, damping: float, x, h0, states, stop: np.ndarray, max_memory: int) -> Fused | None:
    """Iterations that improve ``states`` in place, or None where the slab-wise path has to do."""
    cell = model.cell
    if not isinstance(cell, GatedCell):
        return None
    drive_bytes = 0 if _inputs(cell) else x.shape[0] * x.shape[1] * cell.GATES * cell.hidden_size * model.dtype.itemsize
    if cell.hidden_size == cell.heads and cell.PARTS == 1 and x.shape[1] > _SHORT and drive_bytes <= max_memory:
        return InTiles(model, 1.0 - damping, x, h0, states, stop)
    diagonal = order == model.DIAGONAL
    row_bytes = cell.hidden_size // cell.heads * model.dtype.itemsize
    if cell.GATES * row_bytes <= _WEIGHTS_BYTES if diagonal else cell.PARTS**2 * row_bytes <= _COLUMNS_BYTES:
        return InChunks(model, diagonal, 1.0 - damping, x, h0, states, stop, max_memory)
    return None


class Fused:
    """What iterations in chunks and in tiles have in common."""

    def __init__(self, model, keep: float, x, h0, states, stop: np.ndarray):
        self._model, self._keep, self._x, self._h0, self._states, self._stop = model, keep, x, h0, states, stop
        self._work = Workspace(model.dtype)
        self._integer = np.dtype(f"i{model.dtype.itemsize}")
        self._zeros = arrays.zeros(h0.shape, h0.dtype)

    def _project(self, begin: int, end: int):
        """W_ih x + b_ih of the steps of a slab, in memory of its own: the certificate projects into that of the model."""
        alone = copy.copy(self._model)
        alone.work = self._work
        return alone.project(self._x, begin, end, np.zeros_like(self._stop), self._stop).reshape(-1)

    def sweep(self, tol: float, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One iteration: norms of the defect and first bad steps, of the iterate before it, and sizes of the update."""
        nothing = np.concatenate([np.zeros(2 * self._stop.size), self._stop]).astype(self._integer)
        record = device().upload(nothing)
        self._iterate(tol, device().indices(start), device().indices(self._stop), record)
        norms, steps, first = device().download(record).reshape(3, -1)
        norms, steps = (bits.copy().view(self._model.dtype).astype(np.float64) for bits in (norms, steps))
        return np.where(np.isnan(norms), np.inf, norms), first.astype(np.int64), steps

    def finish(self) -> None:
        """The states hold the newest iterate at any time."""


class InChunks(Fused):
    """Two passes over chunks of time with a scan over chunks between them; kernels in newton_chunks.py, newton_apply.py.

    All steps at once where ``max_memory`` holds their input products and the maps of their chunks, else slab by slab.
    """

    def __init__(self, model, diagonal: bool, keep: float, x, h0, states, stop: np.ndarray, max_memory: int):
        super().__init__(model, keep, x, h0, states, stop)
        cell, (batch, steps, _) = model.cell, states.shape
        self._diagonal = diagonal
        self._columns = cell.hidden_size // cell.heads
        self._size = cell.PARTS * self._columns
        wanted = _CARD // self._columns
        self._length = min(max(_SHORTEST, steps * batch * cell.heads // wanted), _LONGEST)
        self._map = (cell.state_size,) if diagonal else (cell.heads, self._size, self._size)
        of_chunk = cell.GATES * cell.hidden_size * self._length + 2 * cell.state_size + math.prod(self._map)
        chunks = max(2, max_memory // (batch * of_chunk * model.dtype.itemsize))
        self._slab = min(steps, chunks * self._length)
        self._constants = self._bind(cell)
        self._drive = self._project(0, steps) if self._slab == steps else None

    def _bind(self, cell) -> dict[str, object]:
        n, size, warps = self._columns, self._size, _THREADS // WARP
        padded, couples = blocks_for(n, 4) * 4, blocks_for(size * (cell.PARTS - 1), 4) * 4
        pitch = 0 if self._diagonal else padded + 4
        place, places = size * pitch + 2 * padded + couples + 4, blocks_for(WARP, n)
        return {"GATES": cell.GATES, "PARTS": cell.PARTS, "gates": self._model.weights.constants["gates"],
                "BITS": self._integer.type, "DIAGONAL": self._diagonal, "HEADS": cell.heads, "N": n, "SIZE": size,
                "PADDED": padded, "WEIGHTS": cell.GATES * padded, "COLUMNS": cell.PARTS * (1 if self._diagonal else size),
                "PER_WARP": WARP // n, "PLACES": places, "PITCH": pitch, "PLACE": place, "PLACE_APPLY": 4 * padded,
                "SHARED": warps * places * place, "SHARED_APPLY": warps * places * 4 * padded, "STEPS": self._length}

    def _iterate(self, tol, start, stop, record):
        steps = self._states.shape[1]
        previous, carry = self._h0, self._zeros
        for begin in range(0, steps, self._slab):
            end = min(begin + self._slab, steps)
            after = arrays.at_step(self._states, end - 1) if end < steps else None  # of this iterate: the slab changes it
            ends = self._advance(tol, start, stop, record, begin, end, previous, carry)
            previous, carry = after, arrays.at_step(ends, ends.shape[1] - 1) if end < steps else None

    def _advance(self, tol, start, stop, record, begin: int, end: int, previous, carry):
        """One slab, from the states and the correction before it; the corrections after its chunks."""
        batch, steps, state_size = self._states.shape
        weights, cell, dtype = self._model.weights, self._model.cell, self._model.dtype
        per_sequence = blocks_for(end - begin, self._length)
        chunks = batch * per_sequence * cell.heads
        blocks = blocks_for(chunks, _THREADS // WARP * (WARP // self._columns))
        drive = self._project(begin, end) if self._drive is None else self._drive
        states, entries = self._states.reshape(-1), previous.reshape(-1)
        own = own_weights(weights) if self._diagonal else weights.hidden_bias
        common = drive, weights.hidden, weights.hidden_bias, own, float(cell.ratio), self._keep
        where = start, stop, chunks, steps, begin, end
        ends = self._work.take("ends", batch, per_sequence, state_size)
        if per_sequence > 1:
            products = self._work.take("products", batch, per_sequence, *self._map)
            entries = self._work.take("entries", chunks * self._size)
            specialise(newton_chunks.reduce_chunks, dtype, **self._constants)(
                blocks, _THREADS, *common, previous.reshape(-1), states, entries, products.reshape(-1), ends.reshape(-1),
                *where)
            scan(products, ends, carry, ends, np.zeros(batch, np.int64), np.full(batch, per_sequence))
        specialise(newton_apply.apply_chunks, dtype, **self._constants)(
            blocks, _THREADS, *common, tol, states, entries, carry.reshape(-1), ends.reshape(-1), record, *where, batch)
        return ends


class InTiles(Fused):
    """One pass over memory, for units that see only themselves; kernels in newton_tiles.py, newton_time.py."""

    def __init__(self, model, keep: float, x, h0, states, stop: np.ndarray):
        super().__init__(model, keep, x, h0, states, stop)
        cell, (batch, steps, n), size = model.cell, states.shape, model.dtype.itemsize
        threads, per_thread = _TILE_THREADS[size], 4 if n % 4 == 0 else 1
        across = min(4, _power_of_two(n // per_thread))
        depth = (32 if n == 1 or per_thread == 1 else 16) // size
        inputs = _inputs(cell)
        drivers = inputs or cell.GATES
        self._threads, self._channels = threads, across * per_thread
        self._rows = batch * blocks_for(n, self._channels)
        self._constants = {**look_back.constants(model.dtype, threads, self._channels, per_thread, repair=True),
                           "GATES": cell.GATES, "gates": model.weights.constants["gates"], "BITS": self._integer.type,
                           "INPUTS": inputs, "DRIVERS": drivers, "BUNDLE": 4 * drivers, "OWN": cell.GATES * per_thread,
                           "DEPTH": depth, "HELD": depth * per_thread, "STEPS": threads // across * depth}
        self._tiles = blocks_for(steps + 3 if n == 1 else steps, self._constants["STEPS"])
        self._values = x.reshape(-1) if inputs else self._project(0, steps)
        self._entries, self._exits = (self._work.take(name, (self._tiles + 1) * self._rows * self._channels)
                                      for name in ("entries", "exits"))
        places = (self._tiles + 1) * self._rows * self._channels
        for array in (self._entries, self._exits):  # the states before the first tiles never change
            self._kernel(newton_tiles.enter)(blocks_for(places, threads), threads, h0.reshape(-1), states.reshape(-1), array,
                                             steps, n, self._rows, self._tiles)

    def _kernel(self, function, bounds=None):
        return specialise(function, self._model.dtype, bounds, **self._constants)

    def _iterate(self, tol, start, stop, record):
        batch, steps, n = self._states.shape
        weights, cell = self._model.weights, self._model.cell
        words, ends = look_back.unwritten_words(self._tiles, self._rows, self._channels, self._model.dtype)
        numbers = float(cell.ratio), self._keep, tol
        places = self._zeros.reshape(-1), self._states.reshape(-1), self._entries, self._exits, record, start, stop, words, ends
        own = own_weights(weights), weights.hidden_bias
        if n == 1:
            bounds = (self._threads, 4) if self._model.dtype == np.float32 else None  # 64 registers, which are just enough
            self._kernel(newton_time.iterate_time, bounds)(
                self._tiles * self._rows, self._threads, self._values, weights.input, weights.input_bias, *own, *numbers,
                *places, steps, self._rows)
        else:
            self._kernel(newton_tiles.iterate_channels, (self._threads, 2))(
                self._tiles * self._rows, self._threads, self._values, *own, *numbers, *places, steps, n, self._rows, batch)
        self._entries, self._exits = self._exits, self._entries


def _inputs(cell) -> int:
    """Inputs that a tile multiplies itself: those of a single unit, where they are fewer than its gates."""
    return cell.input_size if cell.hidden_size == 1 and 0 < cell.input_size < cell.GATES else 0


def _power_of_two(number: int) -> int:
    """The largest power of two that is not larger."""
    return 1 << number.bit_length() - 1
