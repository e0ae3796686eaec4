"""``math`` and powers on complex numbers, so that a step written for real scalars also takes complex steps."""

import cmath
import math
import operator

from numba.core import cgutils, types
from numba.extending import lower_builtin, overload

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


def _is_integer(z, exponent):
    return exponent.imag == 0.0 and abs(exponent.real) < 1024.0 and exponent.real == math.floor(exponent.real)


def _product(z, exponent):
    result = complex(1.0, 0.0)
    for _ in range(int(abs(exponent.real))):
        result *= z
    return 1.0 / result if exponent.real < 0.0 else result


def _through_logarithm(z, exponent):
    return cmath.exp(exponent * cmath.log(z))


@lower_builtin(operator.pow, types.complex128, types.complex128)
@lower_builtin(operator.ipow, types.complex128, types.complex128)
@lower_builtin(pow, types.complex128, types.complex128)
def _power(context, builder, sig, args):
    """Integer powers as products: the angle of a number below zero is near pi, where a complex step is rounded away."""
    result = cgutils.alloca_once(builder, context.get_value_type(types.complex128))
    integer = context.compile_internal(builder, _is_integer, types.boolean(*sig.args), args)
    with builder.if_else(integer) as (then, otherwise):
        with then:
            builder.store(context.compile_internal(builder, _product, sig, args), result)
        with otherwise:
            builder.store(context.compile_internal(builder, _through_logarithm, sig, args), result)
    return builder.load(result)
