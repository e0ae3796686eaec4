"""How the threads of a block share a gated cell whose weights stay in registers: chosen from the sizes alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pitsolve.backends.cuda.launch import WARP

_REGISTERS = 1 << 16  # of a multiprocessor
_THREADS = 1024  # the most in a block
_SHARED_BYTES = 48 << 10  # of a block
_WORKING = 28  # registers for everything but the numbers counted here
_MOST = 128  # registers of such numbers in a thread: enough warps stay on a multiprocessor
_INPUTS = 32  # inputs of a thread beyond which it pays to slice further
_AHEAD = (8, 4, 2, 1)


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Mapping:
    """Thread (window, unit, slice) of a block; ``slices`` neighbouring threads share the columns of a unit."""

    units: int
    columns: int
    inputs: int
    gates: int
    slices: int
    ahead: int  # steps whose inputs are read and multiplied at once

    @property
    def vector(self) -> int:
        """Neighbours in the state that one load brings."""
        return 4 if self.columns > 2 * self.slices else 1

    @property
    def vectors(self) -> int:
        """Loads of a thread a step; slice s has the vectors s, s + slices, ..."""
        return -(-self.columns // (self.slices * self.vector))

    @property
    def room(self) -> int:
        """Numbers of one head in shared memory, zeros behind its units."""
        return self.vector * self.vectors * self.slices

    @property
    def group(self) -> int:
        """Threads of a window: a fraction of a warp, or whole warps."""
        group = _power(self.units) * self.slices
        return group if group < WARP else -(-self.units * self.slices // WARP) * WARP

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return max(WARP, self.group)

    @property
    def windows(self) -> int:
        """Windows of a block."""
        return self.threads // self.group

    @property
    def weights(self) -> int:
        """Recurrent weights of a thread."""
        return self.gates * self.vectors * self.vector

    @property
    def constants(self) -> dict[str, int]:
        """What the kernel is compiled with."""
        lanes = self.group // self.slices
        hidden = self.windows * (self.units // self.columns) * self.room
        staged = self.ahead * self.inputs
        return {"UNITS": self.units, "COLUMNS": self.columns, "INPUTS": self.inputs, "SLICES": self.slices,
                "LEVELS": self.slices.bit_length() - 1, "VECTOR": self.vector, "VECTORS": self.vectors, "ROOM": self.room,
                "LANES": lanes, "GROUP": self.group, "WINDOWS": self.windows, "WARPS": self.threads // WARP,
                "WEIGHTS": self.weights, "AHEAD": self.ahead, "STAGED": staged, "HELD": max(1, -(-staged // self.group)),
                "ROUNDS": -(-self.ahead // self.slices), "BUFFER": hidden, "BUFFERS": 2 * hidden,
                "INPUT_ROOM": max(1, self.windows * staged), "DRIVE": self.ahead * self.gates * lanes,
                "DRIVES": self.windows * self.ahead * self.gates * lanes}

    def fits(self, itemsize: int) -> bool:
        """Whether the numbers of a thread fit its registers, and those of a block its shared memory."""
        if self.threads > _THREADS:
            return False
        sizes = self.constants
        numbers = self.weights + sizes["HELD"] + self.gates * sizes["ROUNDS"]
        most = min(_MOST, _REGISTERS // self.threads - _WORKING)
        shared = sizes["BUFFERS"] + sizes["INPUT_ROOM"] + sizes["DRIVES"]
        return numbers * itemsize // 4 <= most and shared * itemsize <= _SHARED_BYTES


@functools.cache
def mapping(units: int, columns: int, inputs: int, gates: int, itemsize: int) -> Mapping | None:
    """The fewest slices with which everything fits; None if nothing does."""
    every = [Mapping(units, columns, inputs, gates, 1 << level, ahead) for level in range(6) for ahead in _AHEAD]
    fitting = [choice for choice in every if choice.fits(itemsize)]
    light = [choice for choice in fitting if inputs <= _INPUTS * choice.slices]
    return next(iter(light or fitting[-1:]), None)
