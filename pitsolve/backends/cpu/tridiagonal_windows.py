"""Verbs on the windows of a block-tridiagonal matrix: factor, solve, post, transmit; one window a task."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu import tridiagonal
from pitsolve.backends.cpu.small_matrices import shape_constants
from pitsolve.compile import specialise


class TridiagonalWindows:
    """The matrices N_ii of the windows [first, last), their factors and their copies of the unknowns.

    ``overlap`` is the number of steps that two neighbours share. Messages are arrays (p, rows, n): row 0 is what the right side
    at that end lacks, the others are values on the overlap.
    """

    def __init__(self, diagonal: np.ndarray, off_diagonal: np.ndarray, first: np.ndarray, last: np.ndarray, overlap: int):
        self.diagonal, self.off_diagonal = diagonal, off_diagonal
        self.first, self.last, self.overlap = first, last, overlap
        self.offset = np.concatenate([[0], np.cumsum(last - first)])
        rows, n = int(self.offset[-1]), diagonal.shape[1]
        self.gains, self.inverses = np.empty((rows, n, n), diagonal.dtype), np.empty((rows, n, n), diagonal.dtype)
        self.copies = np.zeros((rows, n), diagonal.dtype)
        self._scratch = np.empty((rows + first.size, n), diagonal.dtype)
        self._mu, self._length = np.zeros((2, first.size))

    def _kernel(self, function):
        return specialise(function, **shape_constants(self.diagonal.shape[1], self.diagonal.dtype))

    def window(self, i: int) -> np.ndarray:
        """The copy of window i, a view."""
        return self.copies[self.offset[i]:self.offset[i + 1]]

    def begin(self, g: np.ndarray, split: bool) -> None:
        """Copies of a guess (T, n); with ``split``, halves on the overlaps."""
        for i in range(self.first.size):
            window = self.window(i)
            window[:] = g[self.first[i]:self.last[i]]
            if split:
                for shared in self._overlaps(i):
                    window[shared] /= 2

    def _overlaps(self, i: int) -> list[slice]:
        """The steps of window i that its neighbours hold too."""
        length, left, right = self.last[i] - self.first[i], i > 0, i + 1 < self.first.size
        return [slice(0, self.overlap)] * left + [slice(length - self.overlap, length)] * right

    def merge(self, split: bool) -> np.ndarray:
        """One solution (T, n) of all copies: their mean on the overlaps, or their sum."""
        g = np.empty((self.last[-1], self.copies.shape[1]), self.copies.dtype)
        for i, (first, last) in enumerate(zip(self.first, self.last)):
            window, shared = self.window(i), self.overlap if i > 0 else 0
            g[first + shared:last] = window[shared:]
            g[first:first + shared] += window[:shared]
            if not split:
                g[first:first + shared] /= 2
        return g

    def mismatch(self) -> float:
        """Largest 2-norm of what the two copies of an overlap differ by."""
        s, window = self.overlap, self.window
        return max((float(np.linalg.norm(window(i + 1)[:s] - window(i)[len(window(i)) - s:]))
                    for i in range(self.first.size - 1)), default=0.0)

    def factor(self, mu: np.ndarray, from_left: np.ndarray, from_right: np.ndarray) -> np.ndarray:
        """Factors of N_ii + mu_i P_i + the matrices (p, n, n) at both ends; the step at which each window failed, or -1."""
        self._mu, failed = mu, np.empty(mu.size, np.int64)
        scratch = np.empty((mu.size, *self.diagonal.shape[1:]), self.diagonal.dtype)
        self._kernel(tridiagonal.factor)(self.diagonal, self.off_diagonal, self.first, self.last, self.offset, self.overlap, mu,
                                         from_left, from_right, self.gains, self.inverses, scratch, failed)
        return failed

    def solve(self, chosen: np.ndarray, rhs: np.ndarray, split: bool, from_left: np.ndarray, from_right: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:
        """New copies of the chosen windows; 2-norms of the changes, zero where not chosen, and of all copies."""
        change = np.zeros(self.first.size)
        self._kernel(tridiagonal.solve)(
            chosen, self.off_diagonal, self.diagonal, rhs, self.first, self.last, self.offset, self.overlap, self._mu, split,
            self.gains, self.inverses, from_left, from_right, self._scratch, self.copies, change, self._length)
        return np.sqrt(change), np.sqrt(self._length)

    def correct(self, chosen: np.ndarray, split: bool, from_left: np.ndarray, from_right: np.ndarray
                ) -> tuple[np.ndarray, np.ndarray]:
        """The same copies as :meth:`solve` for messages that changed by the ones given, with less work."""
        change = np.zeros(self.first.size)
        self._kernel(tridiagonal.correct)(
            chosen, self.off_diagonal, self.diagonal, self.first, self.last, self.offset, self.overlap, self._mu, split,
            self.gains, self.inverses, from_left, from_right, self._scratch, self.copies, change, self._length)
        return np.sqrt(change), np.sqrt(self._length)

    def post(self, chosen: np.ndarray, for_left: np.ndarray, for_right: np.ndarray, to_left: np.ndarray, to_right: np.ndarray
             ) -> None:
        """Write the messages of the chosen windows."""
        self._kernel(tridiagonal.post)(
            chosen, self.off_diagonal, self.first, self.last, self.offset, self.overlap, to_left.shape[1] > 1, for_left,
            for_right, self.copies, to_left, to_right)

    def transmit(self, from_left: np.ndarray, from_right: np.ndarray, to_left: np.ndarray, to_right: np.ndarray) -> np.ndarray:
        """One sweep of Schur complements (p, n, n) to the neighbours; the step at which each window failed, or -1."""
        scratch = np.empty((self.first.size, 2, *self.diagonal.shape[1:]), self.diagonal.dtype)
        failed = np.empty_like(self.first)
        self._kernel(tridiagonal.transmit)(self.diagonal, self.off_diagonal, self.first, self.last, self.overlap, from_left,
                                           from_right, to_left, to_right, scratch, failed)
        return failed

    def residual(self, rhs: np.ndarray, g: np.ndarray) -> np.ndarray:
        """f - N g (T, n)."""
        out = np.empty_like(g)
        self._kernel(tridiagonal.residual)(self.diagonal, self.off_diagonal, rhs, g, out)
        return out
