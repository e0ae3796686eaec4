"""A SIMD vector type for Numba: explicit LLVM vectors, so that the code of a cell runs on lanes instead of scalars.

The auto-vectoriser of LLVM prefers 256-bit registers and gives up on reductions. Here a ``Vector(scalar, lanes)`` is a
first-class Numba value with ``+ - * /``, unary minus and ``math.tanh``; a pointwise function written for scalars compiles
for vectors unchanged. LLVM splits a vector wider than the machine's registers, so the same code runs on any processor.

All memory operations take a C-contiguous array of any rank and an offset in elements from its first one.
"""

import functools
import math
import operator

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

_CONTRACT = ("contract",)
_INDEX = ir.IntType(64)


class Vector(types.Type):
    """``lanes`` numbers of type ``scalar`` (float32 or float64)."""

    def __init__(self, scalar, lanes):
        self.scalar = scalar
        self.lanes = lanes
        super().__init__(name=f"Vector({scalar}, {lanes})")

    @property
    def llvm(self):
        return ir.VectorType(ir.FloatType() if self.scalar is types.float32 else ir.DoubleType(), self.lanes)

    def constant(self, value):
        if self.scalar is types.float32:
            value = float(np.float32(value))
        return ir.Constant(self.llvm, [value] * self.lanes)

    def call(self, builder, name, *arguments):
        """The LLVM intrinsic ``name`` on arguments of this type."""
        suffix = f"v{self.lanes}f{self.scalar.bitwidth}"
        function_type = ir.FunctionType(self.llvm, [self.llvm] * len(arguments))
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.{suffix}")
        return builder.call(function, arguments)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, frontend_type.llvm)


@functools.cache
def register_bytes() -> int:
    """Width of the host's widest SIMD registers in bytes: 64 (AVX-512), 32 (AVX) or 16."""
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


def lanes_for(dtype, width: int) -> int:
    """Lanes of the vectors for rows of ``width`` numbers: the machine's, or fewer for rows that would leave most idle."""
    most = register_bytes() // np.dtype(dtype).itemsize
    lanes = min(4, most)
    while lanes < most and lanes < width:
        lanes *= 2
    return lanes


# ---------------------------------------------------------------------------------------------------------- arithmetic


def splat(builder, vector, scalar):
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    undefined = ir.Constant(vector.llvm, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, zeros)


def _as_vector(context, builder, vector, from_type, value):
    if isinstance(from_type, Vector):
        return value
    return splat(builder, vector, context.cast(builder, value, from_type, vector.scalar))


def _vector_of(arguments):
    """The vector type of an operation, if one operand is a vector and the others are the same vector type or numbers."""
    vectors = {a for a in arguments if isinstance(a, Vector)}
    if len(vectors) == 1 and all(isinstance(a, (Vector, types.Number)) for a in arguments):
        return vectors.pop()
    return None


def _register(operation, arity, emit):
    """Type and lower ``operation`` on vectors and mixtures of vectors and numbers."""

    @infer_global(operation)
    class Typing(AbstractTemplate):
        key = operation

        def generic(self, args, kws):
            vector = _vector_of(args)
            if len(args) == arity and vector is not None and not kws:
                return signature(vector, *(types.unliteral(a) for a in args))

    def lower(context, builder, sig, args):
        vector = sig.return_type
        return emit(builder, vector, *(_as_vector(context, builder, vector, t, a) for t, a in zip(sig.args, args)))

    if arity == 1:
        lower_builtin(operation, Vector)(lower)
    else:
        for operands in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
            lower_builtin(operation, *operands)(lower)


_register(operator.add, 2, lambda builder, _, a, b: builder.fadd(a, b, flags=_CONTRACT))
_register(operator.sub, 2, lambda builder, _, a, b: builder.fsub(a, b, flags=_CONTRACT))
_register(operator.mul, 2, lambda builder, _, a, b: builder.fmul(a, b, flags=_CONTRACT))
_register(operator.truediv, 2, lambda builder, vector, a, b: _divide(builder, vector, a, b))
_register(operator.neg, 1, lambda builder, _, a: builder.fneg(a))
_register(math.tanh, 1, lambda builder, vector, x: _tanh(builder, vector, x))


def _divide(builder, vector, a, b):
    if vector.scalar is types.float32 and vector.lanes == 16 and register_bytes() == 64:
        # A 14-bit reciprocal and one Newton step: 2e-7 relative, a third of the latency of a 512-bit division.
        mask = ir.IntType(16)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector.llvm, [vector.llvm, vector.llvm, mask]),
            "llvm.x86.avx512.rcp14.ps.512")
        y = builder.call(function, [b, vector.constant(0.0), ir.Constant(mask, -1)])
        error = vector.call(builder, "fma", builder.fneg(b), y, vector.constant(1.0))
        return builder.fmul(a, vector.call(builder, "fma", y, error, y), flags=_CONTRACT)
    return builder.fdiv(a, b, flags=_CONTRACT)


def _polynomial(builder, vector, x, coefficients):
    """Horner's rule, coefficients from the highest power down."""
    value = vector.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = vector.call(builder, "fma", value, x, vector.constant(coefficient))
    return value


# tanh(x) = x P(x^2) / Q(x^2) on |x| < 7.9, beyond which float32 rounds to 1; the published minimax fit, error 3e-7.
_TANH_P = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
           1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_TANH_CLAMP = 7.90531110763549805
_INTEGER = 1.5 * 2.0**52  # added to a float64, it leaves the nearest integer in the last bits
_LOG2_HIGH, _LOG2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # log 2 in two parts, the first one short


def _tanh(builder, vector, x):
    if vector.scalar is types.float32:
        x = vector.call(builder, "minnum", x, vector.constant(_TANH_CLAMP))
        x = vector.call(builder, "maxnum", x, vector.constant(-_TANH_CLAMP))
        square = builder.fmul(x, x)
        numerator = builder.fmul(_polynomial(builder, vector, square, _TANH_P), x)
        return _divide(builder, vector, numerator, _polynomial(builder, vector, square, _TANH_Q))
    # E = expm1(2|x|) = 2^k expm1(r) + 2^k - 1 with 2|x| = k log 2 + r, expm1(r) by its Taylor series; tanh = E / (E + 2).
    y = builder.fmul(vector.call(builder, "fabs", x), vector.constant(2.0))
    y = vector.call(builder, "minnum", y, vector.constant(40.0))
    shifted = vector.call(builder, "fma", y, vector.constant(1.0 / math.log(2.0)), vector.constant(_INTEGER))
    k = builder.fsub(shifted, vector.constant(_INTEGER))
    r = vector.call(builder, "fma", k, vector.constant(-_LOG2_HIGH), y)
    r = vector.call(builder, "fma", k, vector.constant(-_LOG2_LOW), r)
    series = [1.0 / math.factorial(k) for k in range(13, 0, -1)]
    square = builder.fmul(r, r)  # two chains that do not wait for each other
    even, odd = (_polynomial(builder, vector, square, series[first::2]) for first in (0, 1))
    part = builder.fmul(vector.call(builder, "fma", odd, r, even), r)
    integers = ir.VectorType(_INDEX, vector.lanes)
    exponent = builder.add(builder.bitcast(shifted, integers), ir.Constant(integers, [1023] * vector.lanes))
    power = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [52] * vector.lanes)), vector.llvm)
    e = vector.call(builder, "fma", power, part, builder.fsub(power, vector.constant(1.0)))
    return vector.call(builder, "copysign", builder.fdiv(e, builder.fadd(e, vector.constant(2.0))), x)


# -------------------------------------------------------------------------------------------------------------- memory


def element_pointer(context, builder, array_type, array, offset):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def vector_pointer(builder, vector, pointer):
    return builder.bitcast(pointer, vector.llvm.as_pointer())


def mask(builder, vector, valid):
    """Lanes below ``valid``."""
    lanes = ir.VectorType(_INDEX, vector.lanes)
    numbers = ir.Constant(lanes, list(range(vector.lanes)))
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), valid, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    return builder.icmp_signed("<", numbers, builder.shuffle_vector(first, first, zeros))


def _masked(builder, vector, name, result, arguments):
    suffix = f"v{vector.lanes}f{vector.scalar.bitwidth}.p0"
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.{name}.{suffix}")
    return builder.call(function, arguments)


def load_masked(builder, vector, pointer, valid):
    """A vector, or its first ``valid`` lanes followed by zeros."""
    pointer = vector_pointer(builder, vector, pointer)
    align = vector.scalar.bitwidth // 8
    result = cgutils.alloca_once(builder, vector.llvm)
    whole = builder.icmp_signed(">=", valid, ir.Constant(_INDEX, vector.lanes))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            builder.store(builder.load(pointer, align=align), result)
        with otherwise:
            arguments = [pointer, ir.Constant(ir.IntType(32), align), mask(builder, vector, valid), vector.constant(0.0)]
            builder.store(_masked(builder, vector, "load", vector.llvm, arguments), result)
    return builder.load(result)


def store_masked(builder, vector, pointer, value, valid):
    pointer = vector_pointer(builder, vector, pointer)
    align = vector.scalar.bitwidth // 8
    whole = builder.icmp_signed(">=", valid, ir.Constant(_INDEX, vector.lanes))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            builder.store(value, pointer, align=align)
        with otherwise:
            arguments = [value, pointer, ir.Constant(ir.IntType(32), align), mask(builder, vector, valid)]
            _masked(builder, vector, "store", ir.VoidType(), arguments)


@intrinsic
def load(typing, array, offset, stride, valid, count, lanes):
    """``count`` vectors, ``stride`` elements apart, each the first ``valid`` lanes and zeros beyond; a tuple."""
    if not (isinstance(count, types.IntegerLiteral) and isinstance(lanes, types.IntegerLiteral)):
        return None
    vector = Vector(array.dtype, lanes.literal_value)
    result = types.UniTuple(vector, count.literal_value)

    def generate(context, builder, sig, args):
        values = []
        for k in range(result.count):
            at = builder.add(args[1], builder.mul(args[2], ir.Constant(_INDEX, k)))
            pointer = element_pointer(context, builder, sig.args[0], args[0], at)
            values.append(load_masked(builder, vector, pointer, args[3]))
        return context.make_tuple(builder, result, values)

    return result(array, types.int64, types.int64, types.int64, count, lanes), generate


@intrinsic
def store(typing, array, offset, stride, valid, values):
    """The inverse of :func:`load`: the first ``valid`` lanes of each vector of a tuple."""
    vector = values.dtype

    def generate(context, builder, sig, args):
        for k in range(sig.args[4].count):
            at = builder.add(args[1], builder.mul(args[2], ir.Constant(_INDEX, k)))
            pointer = element_pointer(context, builder, sig.args[0], args[0], at)
            store_masked(builder, vector, pointer, builder.extract_value(args[4], k), args[3])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, values), generate
