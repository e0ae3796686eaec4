"""Operations on tuples of vectors: what kernels do with the values of several gates, or of one, between load and store."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def add(typing, a, b):
    """a + b, elementwise on tuples of vectors of one length."""

    def generate(context, builder, sig, args):
        values = [builder.fadd(builder.extract_value(args[0], k), builder.extract_value(args[1], k)) for k in range(a.count)]
        return context.make_tuple(builder, a, values)

    return a(a, b), generate


@intrinsic
def contract(typing, matrix, factors):
    """out[k] = sum_a matrix[a K + k] factors[a] on tuples of vectors, K = len(matrix) / len(factors)."""
    vector = matrix.dtype
    width = matrix.count // factors.count
    result = types.UniTuple(vector, width)

    def generate(context, builder, sig, args):
        values = []
        for k in range(width):
            total = builder.fmul(builder.extract_value(args[0], k), builder.extract_value(args[1], 0))
            for a in range(1, factors.count):
                left, right = builder.extract_value(args[0], a * width + k), builder.extract_value(args[1], a)
                total = vector.call(builder, "fma", left, right, total)
            values.append(total)
        return context.make_tuple(builder, result, values)

    return result(matrix, factors), generate


@intrinsic
def larger_ratio(typing, largest, change, state):
    """max(largest, |change| / max(1, |state|)), elementwise; NaN wins."""
    vector = largest.dtype

    def generate(context, builder, sig, args):
        values = []
        for k in range(largest.count):
            old, c, s = (builder.extract_value(x, k) for x in args)
            size = vector.call(builder, "maxnum", vector.call(builder, "fabs", s), vector.constant(1.0))
            ratio = builder.fdiv(vector.call(builder, "fabs", c), size)
            values.append(vector.call(builder, "maximum", old, ratio))
        return context.make_tuple(builder, largest, values)

    return largest(largest, change, state), generate


@intrinsic
def larger(typing, largest, values):
    """max(largest, |values|), elementwise; NaN wins."""
    vector = largest.dtype

    def generate(context, builder, sig, args):
        pairs = [(builder.extract_value(args[0], k), builder.extract_value(args[1], k)) for k in range(largest.count)]
        results = [vector.call(builder, "maximum", old, vector.call(builder, "fabs", new)) for old, new in pairs]
        return context.make_tuple(builder, largest, results)

    return largest(largest, values), generate


@intrinsic
def repaired(typing, values, limit):
    """NaN becomes 0 and everything is clipped to +-limit, a compile-time constant."""
    if not isinstance(limit, types.IntegerLiteral):
        return None
    vector, bound = values.dtype, limit.literal_value

    def generate(context, builder, sig, args):
        results = []
        for k in range(values.count):
            value = builder.extract_value(args[0], k)
            value = builder.select(builder.fcmp_unordered("uno", value, value), vector.constant(0.0), value)
            value = vector.call(builder, "minnum", value, vector.constant(bound))
            results.append(vector.call(builder, "maxnum", value, vector.constant(-bound)))
        return context.make_tuple(builder, values, results)

    return values(values, limit), generate


@intrinsic
def highest(typing, values):
    """The largest number in a tuple of vectors; NaN wins."""
    vector = values.dtype

    def generate(context, builder, sig, args):
        scalar, total = vector.llvm.element, builder.extract_value(args[0], 0)
        for k in range(1, values.count):
            total = vector.call(builder, "maximum", total, builder.extract_value(args[0], k))
        name = f"llvm.vector.reduce.fmaximum.v{vector.lanes}f{vector.scalar.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(scalar, [vector.llvm]), name)
        return builder.call(function, [total])

    return vector.scalar(values), generate
