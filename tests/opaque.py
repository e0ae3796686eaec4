"""The CPU backend behind arrays that cannot be looked into: what reaches past the verbs fails here as on another device."""

import functools
import inspect

import numpy as np

from pitsolve.backends import cpu
from pitsolve.backends.cpu.gated_windows import GatedWindows
from pitsolve.backends.cpu.general_windows import GeneralWindows

ON_HOST = {"row", "at", "index", "first", "last", "start", "stop", "trust", "chosen", "mu", "from_left", "from_right",
           "to_left", "to_right", "for_left", "for_right"}  # parameters that are NumPy arrays of the host in every backend
TO_HOST = {cpu: {"measure", "update"}, cpu.arrays: {"to_host", "squares", "largest", "mismatch", "finite"},
           GatedWindows: {"merge"}, GeneralWindows: {"merge"},
           cpu.TridiagonalWindows: {"factor", "solve", "correct", "transmit"}}  # what these return is too


class Opaque:
    """An array with metadata and nothing else."""

    def __init__(self, values):
        assert values.flags.c_contiguous
        self.hidden = values
        self.shape, self.dtype, self.ndim, self.size = values.shape, values.dtype, values.ndim, values.size

    def reshape(self, shape):
        return Opaque(self.hidden.reshape(shape))

    def __array__(self, *_, **__):
        raise TypeError("an array of a device is no NumPy array")


class Veiled:
    """A module or an object of the backend: its functions take and return opaque arrays, what it is made of is veiled too."""

    def __init__(self, hidden):
        self.hidden = hidden

    def __getattr__(self, name):
        value = getattr(self.hidden, name)
        if value is cpu.TridiagonalWindows or inspect.isroutine(value):
            owner = self.hidden if inspect.ismodule(self.hidden) else type(self.hidden)
            return veiled_function(value, to_host=name in TO_HOST.get(owner, ()), from_host=name == "from_host")
        return veil(value)


def veil(value):
    """What a method gets to see."""
    if isinstance(value, np.ndarray):
        return Opaque(value)
    if isinstance(value, tuple):
        return tuple(map(veil, value))
    return Veiled(value) if inspect.ismodule(value) or type(value).__module__.startswith("pitsolve.backends") else value


def reveal(name, value):
    """What a kernel gets to see. Indices are frozen, because a backend may keep a copy of them."""
    if isinstance(value, np.ndarray):
        assert name in ON_HOST, f"{name} must be an array of the backend"
        if value.dtype.kind == "i":
            value.flags.writeable = False
            return value.copy()
    if isinstance(value, tuple) and name == "partials":
        return tuple(reveal(name, item) for item in value)
    assert not (isinstance(value, Opaque) and name in ON_HOST), f"{name} must be an array of the host"
    return value.hidden if isinstance(value, (Opaque, Veiled)) else value


def veiled_function(function, to_host, from_host):
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments, **named):
        bound = signature.bind(*arguments, **named)
        if not from_host:
            for name, value in bound.arguments.items():
                bound.arguments[name] = reveal(name, value)
        result = function(*bound.args, **bound.kwargs)
        return result if to_host else veil(result)

    return call


opaque = Veiled(cpu)
