"""Where a call runs and where its arrays are: NumPy arrays on the host, arrays of any library on a CUDA device."""

from __future__ import annotations

import contextlib

import numpy as np

from pitsolve.backends import select

BACKENDS = ("auto", "cpu", "cuda")


def on_device(value: object) -> bool:
    """Whether it is an array in the memory of a card."""
    return hasattr(value, "__cuda_array_interface__") or hasattr(value, "__cuda_ndarray__")


class Place:
    """The backend of one call, entered for as long as the call lasts.

    Attributes
    ----------
    name : str
        "cpu" or "cuda".
    backend : module
        Its verbs.
    """

    def __init__(self, name: str, like: object):
        self.name, self._like = name, like

    def __enter__(self) -> Place:
        self._open = contextlib.ExitStack()
        if self.name == "cuda":
            try:
                from pitsolve.backends.cuda import foreign, launch
            except (ImportError, AttributeError) as error:  # numba-cuda 0.30 meets a NumPy that it does not know
                raise RuntimeError("backend 'cuda' cannot be used: the package numba-cuda is not installed, or does not fit "
                                   f"the others ({error}); pip install 'pitsolve[cuda]'") from error
            self._open.enter_context(launch.on(foreign.device_for(self._like)))
        self.backend = select(self.name)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def array(self, values):
        """A checked argument as an array of the backend."""
        return values if on_device(values) else self.backend.arrays.from_host(values)

    def give(self, values, like: object = None):
        """A result as what the caller works with: the kind of ``like``, by default of the array that leads the call."""
        if self.name == "cpu":
            return values
        from pitsolve.backends.cuda import foreign

        return foreign.restore(self.array(values), self._like if like is None else like)


def placed(backend: object, *values: object) -> Place:
    """The place of a call with these arguments, the first array among which leads; None stands for one not given."""
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"backend must be one of {' or '.join(map(repr, BACKENDS))}, got {backend!r}")
    there = [value for value in values if on_device(value)]
    if there and backend == "cpu":
        raise TypeError(f"backend='cpu' cannot take arrays on a CUDA device, got a {type(there[0]).__name__}; pass "
                        "backend='cuda' or 'auto', or copy them to the host")
    arrays = [value for value in values if on_device(value) or isinstance(value, np.ndarray)]
    name = "cuda" if there or backend == "cuda" else "cpu"
    return Place(name, arrays[0] if arrays else None)


def wrapped(value: object):
    """The memory behind an array on a device, C-contiguous, as the backend takes it."""
    from pitsolve.backends.cuda import foreign

    return foreign.wrap(value)


def on_host(array) -> np.ndarray:
    """A NumPy array of what may be on a device."""
    return select("cuda").arrays.to_host(array) if on_device(array) else array
