"""Verbs on the windows of a block-tridiagonal matrix: factor, solve, post, transmit; the matrices and copies on the device.

Messages between windows are small and stay on the host, as do norms and failed steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pitsolve.backends.cuda import arrays, small_matrices, tridiagonal, tridiagonal_large, tridiagonal_rows, tridiagonal_sweeps
from pitsolve.backends.cuda.launch import blocks_for, device, specialise

_THREADS = 128  # of a block whose threads have a number each
_PER_WINDOW = 32  # blocks that share the rows of one window at most


class TridiagonalWindows:
    """The matrices N_ii of the windows [first, last), their factors and their copies of the unknowns.

    ``overlap`` is the number of steps that two neighbours share. Messages are arrays (p, rows, n) of the host: row 0 is what
    the right side at that end lacks, the others are values on the overlap.
    """

    def __init__(self, diagonal, off_diagonal, first: np.ndarray, last: np.ndarray, overlap: int):
        self.diagonal, self.off_diagonal, self.dtype = diagonal.reshape(-1), off_diagonal.reshape(-1), diagonal.dtype
        self.first, self.last, self.overlap, self.steps, self.size = first, last, overlap, *diagonal.shape[:2]
        self.offset = np.concatenate([[0], np.cumsum(last - first)])
        rows, n = int(self.offset[-1]), self.size
        self._in_a_warp = small_matrices.in_a_warp(n, self.dtype)
        self.gains, self.inverses = (device().empty((rows * n * n,), self.dtype) for _ in range(2))
        self.copies, self._traces = arrays.zeros((rows, n), self.dtype), device().empty((rows,), self.dtype)
        self._right = device().empty((rows * n,), self.dtype)
        self._floors = device().empty((self.steps,), self.dtype)
        self._first, self._last, self._offset = map(device().indices, (first, last, self.offset))
        self._length, self._given = np.zeros(first.size), {}  # squared lengths of the copies; matrices already copied
        self._run(tridiagonal_rows.smallest_pivots, blocks_for(self.steps, _THREADS), _THREADS, self.diagonal, self.steps,
                  float(np.finfo(self.dtype).eps) * n, self._floors)

    def _run(self, kernel: Callable, blocks: int | tuple[int, int], threads: int, *arguments, **constants) -> None:
        n = self.size
        shape = small_matrices.shape_constants(n, self.dtype) if self._in_a_warp else tridiagonal_large.shape_constants(n)
        specialise(kernel, self.dtype, **shape, **constants)(blocks, threads, *arguments)

    def _chains(self, kernel: Callable, number: int, longest: int, *arguments) -> None:
        """A kernel on so many chains of matrices: several a warp, which goes on to the longest, or its twin, one a block."""
        if self._in_a_warp:
            groups = small_matrices.shape_constants(self.size, self.dtype)["GROUPS"]
            self._run(kernel, blocks_for(number, groups), tridiagonal.THREADS, longest, *arguments)
        else:
            self._run(getattr(tridiagonal_large, kernel.__name__), number, tridiagonal_large.THREADS, *arguments)

    def _rows(self, kernel: Callable, number: int, entries: int, *arguments, **constants) -> None:
        """A kernel on so many numbers of each of ``number`` windows."""
        if number and entries:
            self._run(kernel, (number, min(blocks_for(entries, _THREADS), _PER_WINDOW)), _THREADS, *arguments, **constants)

    def _longest(self, chosen: np.ndarray | slice = slice(None)) -> int:
        return int((self.last - self.first)[chosen].max())

    def _lengths(self) -> np.ndarray:
        return np.sqrt(np.maximum(self._length, 0.0))

    def _once(self, name: str, host: np.ndarray):
        """The device copy of matrices at the ends, made when they are first seen after they were last factored with."""
        if name not in self._given or self._given[name][0] is not host:
            self._given[name] = host, device().upload(host).reshape(-1)
        return self._given[name][1]

    def window(self, i: int):
        """The copy of window i, a view."""
        return self.copies[self.offset[i]:self.offset[i + 1]]

    def begin(self, g, split: bool) -> None:
        """Copies of a guess (T, n); with ``split``, halves on the overlaps."""
        self._rows(tridiagonal_rows.begin, self.first.size, self._longest() * self.size, g.reshape(-1), self._first,
                   self._offset, self.first.size, self.overlap, self.copies.reshape(-1), SPLIT=split)

    def merge(self, split: bool):
        """One solution (T, n) of all copies: their mean on the overlaps, or their sum."""
        g = device().empty((self.steps, self.size), self.dtype)
        self._rows(tridiagonal_rows.merge, self.first.size, self._longest() * self.size, self.copies.reshape(-1), self._first,
                   self._offset, self.first.size, self.overlap, g.reshape(-1), SPLIT=split)
        return g

    def mismatch(self) -> float:
        """Largest 2-norm of what the two copies of an overlap differ by."""
        interfaces = self.first.size - 1
        if interfaces * self.overlap == 0:
            return 0.0
        out = device().empty((interfaces,), self.dtype)
        self._run(tridiagonal_rows.mismatch, blocks_for(interfaces, _THREADS), _THREADS, self.copies.reshape(-1), self._offset,
                  interfaces, self.overlap, out)
        return float(np.sqrt(device().download(out).max()))

    def factor(self, mu: np.ndarray, from_left: np.ndarray, from_right: np.ndarray) -> np.ndarray:
        """Factors of N_ii + mu_i P_i + the matrices (p, n, n) at both ends; the step at which each window failed, or -1."""
        self._mu, self._penalties, self._given = mu, device().upload(mu.astype(self.dtype)), {}
        failed = device().empty((mu.size,), np.int32)
        self._chains(tridiagonal.factor, mu.size, self._longest(), self.diagonal, self.off_diagonal, self._floors, self._first,
                     self._last, self._offset, mu.size, self.overlap, self._penalties, device().upload(from_left).reshape(-1),
                     device().upload(from_right).reshape(-1), self.gains, self.inverses, self._traces, failed)
        return device().download(failed).astype(np.int64)

    def transmit(self, from_left: np.ndarray, from_right: np.ndarray, to_left: np.ndarray, to_right: np.ndarray) -> np.ndarray:
        """One sweep of Schur complements (p, n, n) to the neighbours; the step at which each window failed, or -1."""
        count = self.first.size
        failed = device().empty((2, count), np.int32)
        left, right = device().upload(to_left), device().upload(to_right)  # windows at the ends of the chain keep what is there
        work = () if self._in_a_warp else (device().empty((4 * left.size,), self.dtype),)
        self._chains(tridiagonal.transmit, 2 * count, self._longest() - self.overlap, self.diagonal, self.off_diagonal,
                     self._floors, self._first, self._last, count, self.overlap, device().upload(from_left).reshape(-1),
                     device().upload(from_right).reshape(-1), left.reshape(-1), right.reshape(-1), failed.reshape(-1), *work)
        to_left[...], to_right[...] = device().download(left), device().download(right)
        leftward, rightward = device().download(failed).astype(np.int64)
        return np.where(leftward >= 0, leftward, rightward)

    def _right_sides(self, chosen, rhs, reach: np.ndarray, split: bool, from_left: np.ndarray, from_right: np.ndarray) -> None:
        """Right sides of the chosen windows: of the whole problem, or of the messages alone where there is no rhs."""
        entries = (self._longest(chosen) if rhs is not None else 2 * int(reach.max())) * self.size
        self._rows(tridiagonal_rows.right_sides, chosen.size, entries, device().indices(chosen), self.diagonal,
                   self.off_diagonal, self._right if rhs is None else rhs.reshape(-1), self._first, self._offset,
                   self.first.size, device().indices(reach), from_left.shape[1], self.overlap, self._penalties,
                   device().upload(from_left).reshape(-1), device().upload(from_right).reshape(-1), self._right,
                   WHOLE=rhs is not None, VALUES=from_left.shape[1] > 1, SPLIT=split)

    def solve(self, chosen: np.ndarray, rhs, split: bool, from_left: np.ndarray, from_right: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:
        """New copies of the chosen windows; 2-norms of the changes, zero where not chosen, and of all copies."""
        self._right_sides(chosen, rhs, np.zeros(chosen.size, np.int64), split, from_left, from_right)
        change, sums = np.zeros(self.first.size), device().empty((2, chosen.size), self.dtype)
        self._chains(tridiagonal_sweeps.substitute, chosen.size, self._longest(chosen), device().indices(chosen), chosen.size,
                     self._offset, self.gains, self.inverses, self._right, self.copies.reshape(-1), sums.reshape(-1))
        change[chosen], self._length[chosen] = device().download(sums)
        return np.sqrt(change), self._lengths()

    def correct(self, chosen: np.ndarray, split: bool, from_left: np.ndarray, from_right: np.ndarray
                ) -> tuple[np.ndarray, np.ndarray]:
        """The same copies as :meth:`solve` for messages that changed by the ones given, with less work."""
        steps = (self.last - self.first)[chosen]
        reach = np.minimum(steps, np.where((self._mu[chosen] > 0) | split, self.overlap + 1, 1))  # rows that messages touch
        self._right_sides(chosen, None, reach, split, from_left, from_right)
        smallest = np.finfo(self.dtype).eps / 16 * self._lengths()[chosen] / np.sqrt(steps)
        change, sums = np.zeros(self.first.size), device().empty((2, chosen.size), self.dtype)
        self._chains(tridiagonal_sweeps.correct, chosen.size, int(reach.max()), device().indices(chosen), chosen.size,
                     device().indices(reach), device().upload(smallest.astype(self.dtype)), self._offset, self.gains,
                     self.inverses, self._traces, self._right, self.copies.reshape(-1), sums.reshape(-1))
        change[chosen], growth = device().download(sums)
        with np.errstate(over="ignore", invalid="ignore"):  # an iteration that diverges may overflow
            self._length[chosen] += growth
        return np.sqrt(change), self._lengths()

    def post(self, chosen: np.ndarray, for_left: np.ndarray, for_right: np.ndarray, to_left: np.ndarray, to_right: np.ndarray
             ) -> None:
        """Write the messages of the chosen windows. The matrices are those of the last :meth:`factor`, unchanged since."""
        shape = 2, chosen.size, *to_left.shape[1:]
        out = device().empty(shape, self.dtype)
        self._rows(tridiagonal_rows.post, chosen.size, 2 * to_left[0].size, device().indices(chosen), chosen.size,
                   self.off_diagonal, self._first, self._offset, self.first.size, self.overlap, to_left.shape[1],
                   self._once("left", for_left), self._once("right", for_right), self.copies.reshape(-1), out.reshape(-1))
        inside = chosen > 0, chosen < self.first.size - 1
        for to, sent, chosen_ones in zip((to_left, to_right), device().download(out), inside):
            to[chosen[chosen_ones]] = sent[chosen_ones]

    def residual(self, rhs, g):
        """f - N g (T, n)."""
        out = device().empty(g.shape, self.dtype)
        self._run(tridiagonal_rows.residual, min(blocks_for(g.size, _THREADS), 16 * device().multiprocessors), _THREADS,
                  self.diagonal, self.off_diagonal, rhs.reshape(-1), g.reshape(-1), self.steps, out.reshape(-1))
        return out
