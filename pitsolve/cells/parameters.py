"""Between the flat array of all parameters and the named tuple ``p`` of arrays that scalar functions read."""

import functools
import math
from collections import namedtuple
from collections.abc import Callable

import numpy as np

from pitsolve.cells.memory import flat, part

Fields = tuple[tuple[str, tuple[int, ...]], ...]  # name and shape of everything in p


def checked_fields(parameters: dict[str, tuple[int, ...]], reserved: str | None) -> Fields:
    """What a user states as ``parameters``; ``reserved`` is the name of a constant in ``p``, if there is one."""
    other = f" other than {reserved!r}" if reserved else ""
    fields = []
    for name, shape in parameters.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or name == reserved:
            raise ValueError(f"parameters must have names that are Python identifiers{other}, got {name!r}")
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if not shape or any(not isinstance(size, (int, np.integer)) or size < 1 for size in shape):
            raise ValueError(f"parameters[{name!r}] must be a shape of positive integers, got {shape!r}")
        fields.append((name, tuple(map(int, shape))))
    return tuple(fields)


@functools.cache
def packing(fields: Fields) -> tuple[Callable, Callable, Callable]:
    """Three functions: ``bundle(theta)``, the named tuple of views; ``gather(p, theta)``, its inverse; ``scatter(theta, p)``,
    which adds to the arrays. Equal fields have the same functions, so that equal cells share their kernels."""
    views, gathered, scattered, offset = [], ["pass"], ["pass"], 0
    for name, shape in fields:
        size = math.prod(shape)
        views.append(f"part(theta, {offset}, {shape!r})")
        loop = f"values = flat(p.{name})\n    for i in range({size}): "  # array expressions take seconds to compile
        gathered.append(f"{loop} theta[{offset} + i] = values[i]")
        scattered.append(f"{loop} values[i] += theta[{offset} + i]")
        offset += size
    # The name of a module makes compiled code that uses these functions loadable from the cache.
    names = {"__name__": __name__, "Parameters": namedtuple("Parameters", dict(fields)), "part": part, "flat": flat}
    exec(f"def bundle(theta):\n    return Parameters({', '.join(views)})\n"
         "def gather(p, theta):\n    " + "\n    ".join(gathered) + "\n"
         "def scatter(theta, p):\n    " + "\n    ".join(scattered), names)
    return names["bundle"], names["gather"], names["scatter"]
