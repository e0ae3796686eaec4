"""States of the previous epoch, kept for every sample as far as memory goes, to start the solvers of the next."""

from __future__ import annotations

import os
from glob import escape
from pathlib import Path

import numpy as np

from pitsolve.solution import Solution


class WarmStart:
    """Two generations of states: that of the last epoch is read, that of this epoch is written.

    Each solve has one array (samples, phases, steps, n). The first samples of the data are kept, as many as fit, so that what
    is kept does not depend on the order of an epoch. With a path, the arrays are files beside it, named after the epoch that
    wrote them: a run that goes on from a checkpoint finds what it would have had in memory.

    Parameters
    ----------
    samples : int
        N.
    steps : int
        T of the data.
    memory : int
        Bytes for both generations.
    path : Path, optional
        The checkpoint; None keeps the states in memory.
    """

    def __init__(self, samples: int, steps: int, memory: int, path: Path | None):
        self._samples, self._steps, self._memory, self._path = samples, steps, memory, path
        self._epoch = 0
        self._read: list[np.ndarray] = []
        self._written: list[np.ndarray] = []

    def begin(self, epoch: int, batch: int) -> None:
        """Read what the epoch before wrote from now on, and write this one, from its first batch or after a checkpoint."""
        if self._path is None:
            self._read, self._written = self._written if epoch == self._epoch + 1 else [], []
        else:
            known = (epoch - 1, epoch) if batch else (epoch - 1,)
            kept = {file for each in known for file in self._files(each)}
            for file in set(self._files("*")) - kept:
                file.unlink()
            self._read, self._written = self._open(epoch - 1), self._open(epoch)
        self._epoch = epoch

    @property
    def warm(self) -> bool:
        """Whether there is anything to start from."""
        return any(len(kept) for kept in self._read)

    def guess(self, chosen: np.ndarray, call: int, steps: int) -> np.ndarray | None:
        """First iterates of one solve for samples cut to so many steps; zero, the default, for those not kept."""
        if call >= len(self._read) or not (known := chosen < len(self._read[call])).any():
            return None
        kept = self._read[call]
        _, phases, _, n = kept.shape
        guess = np.zeros((len(chosen), phases, -(-steps // phases), n), kept.dtype)
        guess[known] = kept[chosen[known], :, :guess.shape[2]]
        return guess.reshape(-1, *guess.shape[2:])

    def put(self, chosen: np.ndarray, solutions: list[Solution]) -> None:
        """Keep the states of all solves of a batch."""
        if not self._written:
            self._written = self._new([(len(s.states) // len(chosen), s.states.shape[2]) for s in solutions],
                                      solutions[0].states.dtype)
        for kept, solution in zip(self._written, solutions, strict=True):
            states = solution.states.reshape(len(chosen), kept.shape[1], -1, kept.shape[3])
            known = chosen < len(kept)
            kept[chosen[known], :, :states.shape[2]] = states[known]

    def flush(self) -> None:
        """Bring files to the disk."""
        for array in self._written:
            if isinstance(array, np.memmap):
                array.flush()

    def _new(self, sizes: list[tuple[int, int]], dtype: np.dtype) -> list[np.ndarray]:
        shapes = [(phases, -(-self._steps // phases), n) for phases, n in sizes]
        both = 2 * dtype.itemsize * sum(int(np.prod(shape)) for shape in shapes)
        count = min(self._samples, self._memory // both)
        if self._path is None or count == 0:
            return [np.zeros((count, *shape), dtype) for shape in shapes]
        return [_file_of_zeros(self._file(self._epoch, call), dtype, (count, *shape)) for call, shape in enumerate(shapes)]

    def _open(self, epoch: int) -> list[np.ndarray]:
        return [np.load(self._file(epoch, call), mmap_mode="r+") for call in range(len(self._files(epoch)))]

    def _files(self, epoch: int | str) -> list[Path]:
        return list(self._path.parent.glob(f"{escape(self._path.name)}.states{epoch}.*.npy"))

    def _file(self, epoch: int, call: int) -> Path:
        return self._path.with_name(f"{self._path.name}.states{epoch}.{call}.npy")


def _file_of_zeros(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """An .npy file in memory with its blocks reserved: where a disk is full only later, the process ends without a word."""
    try:
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}: no room for the states of a warm start; free some, or give warm_start "
                      "the number of bytes to keep", str(path)) from error
    return array
