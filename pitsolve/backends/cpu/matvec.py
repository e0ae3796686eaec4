"""One small matrix times one vector, the step of a dense recurrence: what counts is the latency, not the throughput."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from pitsolve.backends.cpu.shuffles import load_lanes, shuffle
from pitsolve.backends.cpu.simd import Vector, element_pointer, splat

_INDEX = ir.IntType(64)
_CHAINS = 4  # independent sums, enough to hide the latency of an addition


def _index(value):
    return ir.Constant(_INDEX, value)


def _sums(builder, vectors):
    """Lane r is the sum of the lanes of ``vectors[r]``: halves of pairs are added until one vector is left."""
    lanes = len(vectors)
    count = lanes
    while len(vectors) > 1:
        # A pair of vectors of groups of ``count`` partial sums gives one of twice the groups of half the size.
        count //= 2
        groups = range(0, lanes, 2 * count)
        low = [part * lanes + g + k for g in groups for part in (0, 1) for k in range(count)]
        high = [number + count for number in low]
        half = len(vectors) // 2
        vectors = [builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high))
                   for a, b in zip(vectors[:half], vectors[half:], strict=True)]
    return vectors[0]


def _dot_products(builder, vector, matrix, first, state, block):
    """Rows of the matrix from ``first`` on, each times the state."""
    def row(r):
        # Rows beyond the last repeat it: their sums are not stored, and nothing outside the matrix is read.
        number = builder.add(first, _index(r))
        inside = builder.icmp_signed("<", number, _index(block))
        number = builder.select(inside, number, _index(block - 1))
        return builder.gep(matrix, [builder.mul(number, _index(block))])

    rows = [row(r) for r in range(vector.lanes)]
    totals = [None] * vector.lanes
    for k in range(0, block, vector.lanes):
        part = load_lanes(builder, vector, state, k, _index(block), vector.constant(0.0))
        for r, data in enumerate(rows):
            numbers = load_lanes(builder, vector, data, k, _index(block), vector.constant(0.0))
            totals[r] = vector.call(builder, "fma", numbers, part, totals[r]) if k else builder.fmul(numbers, part)
    return _sums(builder, totals)


def _combination(builder, vector, matrix, first, state, block):
    """The sum of the rows of the matrix times the numbers of the state, columns from ``first`` on."""
    totals = []
    for k in range(block):
        data = builder.gep(matrix, [builder.add(first, _index(k * block))])
        numbers = load_lanes(builder, vector, data, 0, builder.sub(_index(block), first), vector.constant(0.0))
        factor = splat(builder, vector, builder.load(builder.gep(state, [_index(k)])))
        if k < _CHAINS:
            totals.append(builder.fmul(numbers, factor))
        else:
            totals[k % _CHAINS] = vector.call(builder, "fma", numbers, factor, totals[k % _CHAINS])
    while len(totals) > 1:
        totals = [*totals[2:], builder.fadd(totals[0], totals[1])]
    return totals[0]


@intrinsic
def times(typing, A, at, first, source, source_at, block, lanes, transpose):
    """``lanes`` numbers of A y or A^T y from number ``first`` on, for the matrix and the vector at the given offsets.

    The result is a tuple of one vector.
    """
    literals = (block, lanes, transpose)
    if not all(isinstance(x, types.Literal) for x in literals):
        return None
    M, L, transposed = (x.literal_value for x in literals)
    vector = Vector(A.dtype, L)
    result = types.UniTuple(vector, 1)

    def generate(context, builder, sig, args):
        matrix = element_pointer(context, builder, sig.args[0], args[0], args[1])
        state = element_pointer(context, builder, sig.args[3], args[3], args[4])
        emit = _combination if transposed else _dot_products
        return context.make_tuple(builder, result, [emit(builder, vector, matrix, args[2], state, M)])

    i = types.int64
    return result(A, i, i, source, i, *literals), generate
