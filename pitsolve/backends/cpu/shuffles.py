"""Moving numbers between memory and lanes: masked access and the transposition of small records."""

from llvmlite import ir
from numba.core import cgutils

from pitsolve.backends.cpu.simd import vector_pointer

_INDEX = ir.IntType(64)
_INT = ir.IntType(32)


def shuffle(builder, first, second, lanes):
    """The lanes with the given numbers, counted through ``first`` and then ``second``."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes)))


def split(builder, raw, parts):
    """Vectors of the parts of records, from ``parts`` vectors of whole records one after the other."""
    lanes = raw[0].type.count
    if parts == 1:
        return raw
    if parts % 2 == 0:
        pairs = list(zip(raw[::2], raw[1::2], strict=True))
        halves = [split(builder, [shuffle(builder, a, b, range(odd, 2 * lanes, 2)) for a, b in pairs], parts // 2)
                  for odd in (0, 1)]
        return [part for both in zip(*halves, strict=True) for part in both]
    return [_gather(builder, raw, [lane * parts + part for lane in range(lanes)]) for part in range(parts)]


def join(builder, parts):
    """The inverse of :func:`split`."""
    count, lanes = len(parts), parts[0].type.count
    if count == 1:
        return parts
    if count % 2 == 0:
        evens, odds = join(builder, parts[::2]), join(builder, parts[1::2])
        orders = [[lanes * odd + half * lanes // 2 + k for k in range(lanes // 2) for odd in (0, 1)] for half in (0, 1)]
        return [shuffle(builder, a, b, order) for a, b in zip(evens, odds, strict=True) for order in orders]
    places = [divmod(i, count) for i in range(count * lanes)]
    return [_gather(builder, parts, [part * lanes + lane for lane, part in places[k * lanes:(k + 1) * lanes]])
            for k in range(count)]


def _gather(builder, vectors, numbers):
    """The lanes with the given numbers, counted through all ``vectors``."""
    lanes = len(numbers)
    value = vectors[0]
    for k, vector in enumerate(vectors):
        order = [lanes + n % lanes if n // lanes == k else i for i, n in enumerate(numbers)]
        value = shuffle(builder, value, vector, order)
    return value


def _masked(builder, vector, name, result, arguments):
    suffix = f"v{vector.lanes}f{vector.scalar.bitwidth}.p0"
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.masked.{name}.{suffix}")
    return builder.call(function, arguments)


def _mask(builder, vector, first, valid):
    """Lanes whose number, counted from ``first``, is below ``valid``."""
    count = ir.VectorType(_INDEX, vector.lanes)
    numbers = ir.Constant(count, [first + k for k in range(vector.lanes)])
    bound = builder.insert_element(ir.Constant(count, ir.Undefined), valid, ir.Constant(_INT, 0))
    return builder.icmp_signed("<", numbers, shuffle(builder, bound, bound, [0] * vector.lanes))


def load_lanes(builder, vector, data, first, valid, padding):
    """The numbers from ``first`` on at ``data``; those of ``padding`` from number ``valid`` on."""
    pointer = vector_pointer(builder, vector, builder.gep(data, [ir.Constant(_INDEX, first)]))
    align = ir.Constant(_INT, vector.scalar.bitwidth // 8)
    arguments = [pointer, align, _mask(builder, vector, first, valid), padding]
    return _masked(builder, vector, "load", vector.llvm, arguments)


def load_records(builder, vector, data, valid, records, parts, fill):
    """Vectors of the parts of ``records`` records at ``data``, ``fill`` in those from number ``valid`` on."""
    numbers = builder.mul(valid, ir.Constant(_INDEX, parts))
    raw = []
    for first in range(0, records * parts, vector.lanes):
        padding = ir.Constant(vector.llvm, [fill[(first + k) % parts] for k in range(vector.lanes)])
        raw.append(load_lanes(builder, vector, data, first, numbers, padding))
    return [split(builder, raw[k:k + parts], parts) for k in range(0, len(raw), parts)]


def stream_records(builder, vector, data, groups):
    """Whole vectors past the cache: ``data`` is aligned to them, and nobody reads it soon."""
    hint = builder.module.add_metadata([ir.Constant(_INT, 1)])
    for k, value in enumerate(value for group in groups for value in join(builder, group)):
        pointer = vector_pointer(builder, vector, builder.gep(data, [ir.Constant(_INDEX, k * vector.lanes)]))
        builder.store(value, pointer, align=vector.lanes * vector.scalar.bitwidth // 8).set_metadata("nontemporal", hint)


def store_records(builder, vector, data, valid, groups):
    """The inverse of :func:`load_records`."""
    align = ir.Constant(_INT, vector.scalar.bitwidth // 8)
    numbers = builder.mul(valid, ir.Constant(_INDEX, len(groups[0])))
    for k, value in enumerate(value for group in groups for value in join(builder, group)):
        first = k * vector.lanes
        pointer = vector_pointer(builder, vector, builder.gep(data, [ir.Constant(_INDEX, first)]))
        arguments = [value, pointer, align, _mask(builder, vector, first, numbers)]
        _masked(builder, vector, "store", ir.VoidType(), arguments)
