"""Dual numbers for Numba, v + s e with e^2 = 0: a function written for scalars also computes a directional derivative.

Value and slope are real or complex. With complex ones the slope can itself be differentiated by a complex step, which gives
second derivatives that are exact to rounding. :class:`Row` stands in for an array where a user's function reads or writes a
vector of dual numbers; :func:`stack` is scratch memory that no heap knows of.
"""

import math
import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typeconv import Conversion
from numba.extending import (
    intrinsic,
    lower_cast,
    make_attribute_wrapper,
    models,
    overload,
    overload_attribute,
    register_jitable,
    register_model,
)

from pitsolve.backends.cpu import complexmath  # noqa: F401  (math on complex numbers)


class Dual(types.Type):
    """A value and a slope of type ``number`` (float64 or complex128)."""

    def __init__(self, number):
        self.number = number
        super().__init__(name=f"Dual({number})")

    def can_convert_from(self, typing, other):
        return Conversion.safe if isinstance(other, types.Number) else None

    def unify(self, typing, other):
        return self if isinstance(other, types.Number) else None


@register_model(Dual)
class _DualModel(models.StructModel):
    def __init__(self, manager, dual):
        super().__init__(manager, dual, [("value", dual.number), ("slope", dual.number)])


make_attribute_wrapper(Dual, "value", "value")
make_attribute_wrapper(Dual, "slope", "slope")


class Row(types.Type):
    """A vector of dual numbers, as two arrays of one type."""

    def __init__(self, array):
        self.array = array
        super().__init__(name=f"Row({array})")


@register_model(Row)
class _RowModel(models.StructModel):
    def __init__(self, manager, row):
        super().__init__(manager, row, [("values", row.array), ("slopes", row.array)])


make_attribute_wrapper(Row, "values", "values")
make_attribute_wrapper(Row, "slopes", "slopes")


def _pair(context, builder, sig, args):
    """A struct of two members, each with a reference of its own."""
    pair = cgutils.create_struct_proxy(sig.return_type)(context, builder)
    for name, kind, value in zip(pair._datamodel._fields, sig.args, args):
        context.nrt.incref(builder, kind, value)
        setattr(pair, name, value)
    return pair._getvalue()


@intrinsic
def dual(typing, value, slope):
    """A dual number."""
    number = typing.unify_types(types.float64, value, slope)
    return Dual(number)(number, number), _pair


@intrinsic
def dual_row(typing, values, slopes):
    """A vector of dual numbers over two arrays (n,)."""
    return Row(values)(values, values), _pair


@intrinsic
def stack(typing, like, rows, columns):
    """An uninitialised array (rows, columns) of numbers like ``like``, at least float64. It dies with its function."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(columns, types.IntegerLiteral)):
        return None
    array = types.Array(typing.unify_types(types.float64, like), 2, "C")
    shape = rows.literal_value, columns.literal_value

    def generate(context, builder, sig, args):
        number = context.get_data_type(array.dtype)
        size = context.get_abi_sizeof(number)
        data = cgutils.alloca_once(builder, number, size=ir.Constant(ir.IntType(64), shape[0] * shape[1]))
        result = context.make_array(array)(context, builder)
        counts = [context.get_constant(types.intp, count) for count in shape]
        strides = [context.get_constant(types.intp, stride) for stride in (shape[1] * size, size)]
        context.populate_array(result, data=data, shape=counts, strides=strides,
                               itemsize=context.get_constant(types.intp, size), meminfo=None)
        return result._getvalue()

    return array(like, rows, columns), generate


# ---------------------------------------------------------------------------------------------------------- arithmetic


@lower_cast(types.Number, Dual)
def _number_to_dual(context, builder, from_type, to_type, value):
    result = cgutils.create_struct_proxy(to_type)(context, builder)
    result.value = context.cast(builder, value, from_type, to_type.number)
    result.slope = context.get_constant_null(to_type.number)
    return result._getvalue()


@overload(operator.neg)
def _neg(a):
    if isinstance(a, Dual):
        return lambda a: dual(-a.value, -a.slope)


@overload(operator.pos)
def _pos(a):
    if isinstance(a, Dual):
        return lambda a: a


def _binary(name, both, left, right):
    """An operator on two dual numbers, on a dual number and a number, and on a number and a dual number."""

    def on_duals(a, b):
        if isinstance(a, Dual):
            return both if isinstance(b, Dual) else left if isinstance(b, types.Number) else None
        return right if isinstance(b, Dual) and isinstance(a, types.Number) else None

    overload(getattr(operator, name))(on_duals)
    overload(getattr(operator, f"i{name}"))(on_duals)


_binary("add", lambda a, b: dual(a.value + b.value, a.slope + b.slope),
        lambda a, b: dual(a.value + b, a.slope), lambda a, b: dual(a + b.value, b.slope))
_binary("sub", lambda a, b: dual(a.value - b.value, a.slope - b.slope),
        lambda a, b: dual(a.value - b, a.slope), lambda a, b: dual(a - b.value, -b.slope))
_binary("mul", lambda a, b: dual(a.value * b.value, a.slope * b.value + a.value * b.slope),
        lambda a, b: dual(a.value * b, a.slope * b), lambda a, b: dual(a * b.value, a * b.slope))
_binary("truediv", lambda a, b: dual(a.value / b.value, (a.slope - a.value / b.value * b.slope) / b.value),
        lambda a, b: dual(a.value / b, a.slope / b), lambda a, b: dual(a / b.value, -(a / b.value) * b.slope / b.value))


@overload(operator.pow)
@overload(operator.ipow)
def _pow(a, b):
    if isinstance(a, Dual) and isinstance(b, types.Number):
        return lambda a, b: dual(a.value**b, b * a.value ** (b - 1) * a.slope if b != 0 else a.slope * 0.0)
    if isinstance(b, Dual) and isinstance(a, (Dual, types.Number)):
        return lambda a, b: math.exp(b * math.log(a))


# --------------------------------------------------------------------------------------------------- functions of math


def _function(name, rule):
    """math.``name`` on dual numbers; ``rule`` gives its value and its derivative."""
    rule = register_jitable(rule)

    @register_jitable
    def chain(x):
        value, derivative = rule(x.value)
        return dual(value, derivative * x.slope)

    @overload(getattr(math, name))
    def on_dual(x):
        if isinstance(x, Dual):
            return lambda x: chain(x)


@register_jitable
def _tanh(x):
    value = math.tanh(x)
    return value, 1.0 - value * value


@register_jitable
def _tan(x):
    value = math.tan(x)
    return value, 1.0 + value * value


@register_jitable
def _exp(x):
    value = math.exp(x)
    return value, value


@register_jitable
def _sqrt(x):
    value = math.sqrt(x)
    return value, 0.5 / value


_function("tanh", _tanh)
_function("tan", _tan)
_function("exp", _exp)
_function("sqrt", _sqrt)
_function("sin", lambda x: (math.sin(x), math.cos(x)))
_function("cos", lambda x: (math.cos(x), -math.sin(x)))
_function("sinh", lambda x: (math.sinh(x), math.cosh(x)))
_function("cosh", lambda x: (math.cosh(x), math.sinh(x)))
_function("log", lambda x: (math.log(x), 1.0 / x))
_function("log10", lambda x: (math.log10(x), 1.0 / (x * math.log(10.0))))
_function("asin", lambda x: (math.asin(x), 1.0 / math.sqrt(1.0 - x * x)))
_function("acos", lambda x: (math.acos(x), -1.0 / math.sqrt(1.0 - x * x)))
_function("atan", lambda x: (math.atan(x), 1.0 / (1.0 + x * x)))
_function("asinh", lambda x: (math.asinh(x), 1.0 / math.sqrt(x * x + 1.0)))
_function("acosh", lambda x: (math.acosh(x), 1.0 / (math.sqrt(x - 1.0) * math.sqrt(x + 1.0))))
_function("atanh", lambda x: (math.atanh(x), 1.0 / (1.0 - x * x)))


# ---------------------------------------------------------------------------------------------------------------- rows


@overload(operator.getitem)
def _read(row, index):
    if isinstance(row, Row):
        return lambda row, index: dual(row.values[index], row.slopes[index])


@overload(operator.setitem)
def _write(row, index, number):
    if isinstance(row, Row) and isinstance(number, Dual):
        def write(row, index, number):
            row.values[index] = number.value
            row.slopes[index] = number.slope
        return write
    if isinstance(row, Row) and isinstance(number, types.Number):
        def write(row, index, number):
            row.values[index] = number
            row.slopes[index] = 0.0
        return write


@overload(len)
def _length(row):
    if isinstance(row, Row):
        return lambda row: row.values.size


@overload_attribute(Row, "size")
def _size(row):
    return lambda row: row.values.size
