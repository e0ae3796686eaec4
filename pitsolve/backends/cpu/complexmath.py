"""``math`` on complex numbers, so that a step written for real scalars also takes complex steps."""

import cmath
import math

from numba.core import types
from numba.extending import overload

_NAMES = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
          "exp", "log", "log10", "sqrt")


def _extend(name: str) -> None:
    function = getattr(cmath, name)

    @overload(getattr(math, name))
    def on_complex(x):
        if isinstance(x, types.Complex):
            return lambda x: function(x)


for _name in _NAMES:
    _extend(_name)
