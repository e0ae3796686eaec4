"""Moving rows between memory and lanes: lane l of a vector belongs to the row that begins at ``offsets[l]``.

A square of as many numbers as lanes, of as many rows, is read along the rows, transposed in registers and written along the
lanes, or the other way round. Rows end at ``available[l]`` numbers: what lies beyond reads as zero and is never written.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from pitsolve.backends.cpu.shuffles import shuffle
from pitsolve.backends.cpu.simd import Vector, element_pointer, load_masked, mask, store_masked, vector_pointer

_INDEX = ir.IntType(64)


def _transpose(builder, rows):
    """log2(L) perfect shuffles of L vectors of L lanes."""
    lanes = len(rows)
    halves = [[source * lanes + half * lanes // 2 + k for k in range(lanes // 2) for source in (0, 1)] for half in (0, 1)]
    stages = lanes.bit_length() - 1
    for _ in range(stages):
        pairs = zip(rows[:lanes // 2], rows[lanes // 2:], strict=True)
        rows = [shuffle(builder, a, b, order) for a, b in pairs for order in halves]
    return rows


class _Square:
    """The arguments that the intrinsics share, on their way to LLVM values."""

    def __init__(self, context, builder, sig, args, vector, rows, lanes):
        self.context, self.builder, self.sig, self.args, self.vector = context, builder, sig, args, vector
        self.rows, self.lanes = rows, lanes  # positions of (array, offsets, begin, available) and of (array, places, shift)

    def _entry(self, position, at, k):
        pointer = element_pointer(self.context, self.builder, self.sig.args[position], self.args[position], self.args[at])
        return self.builder.load(self.builder.gep(pointer, [ir.Constant(_INDEX, k)]))

    def _pointer(self, position, offset):
        return element_pointer(self.context, self.builder, self.sig.args[position], self.args[position], offset)

    def row(self, lane):
        """Pointer into the row of one lane, and how many numbers it still has."""
        array, offsets, offsets_at, begin, available, available_at = self.rows
        begin = self.args[begin]
        pointer = self._pointer(array, self.builder.add(self._entry(offsets, offsets_at, lane), begin))
        return pointer, self.builder.sub(self._entry(available, available_at, lane), begin)

    def across(self, number):
        """Pointer to one number of all lanes."""
        array, places, places_at, shift = self.lanes
        pointer = self._pointer(array, self.builder.add(self._entry(places, places_at, number), self.args[shift]))
        return vector_pointer(self.builder, self.vector, pointer)

    def load_rows(self):
        return [load_masked(self.builder, self.vector, *self.row(lane)) for lane in range(self.vector.lanes)]

    def load_across(self):
        align = self.vector.scalar.bitwidth // 8
        return [self.builder.load(self.across(k), align=align) for k in range(self.vector.lanes)]


@intrinsic
def gather(typing, array, offsets, offsets_at, begin, available, available_at, out, places, places_at, shift, lanes):
    """out[places[e] + shift + l] = array[offsets[l] + begin + e], zero from number ``available[l]`` of the row on."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    vector = Vector(array.dtype, lanes.literal_value)

    def generate(context, builder, sig, args):
        square = _Square(context, builder, sig, args, vector, (0, 1, 2, 3, 4, 5), (6, 7, 8, 9))
        for k, value in enumerate(_transpose(builder, square.load_rows())):
            builder.store(value, square.across(k), align=vector.scalar.bitwidth // 8)
        return context.get_dummy_value()

    i = types.int64
    return types.void(array, offsets, i, i, available, i, out, places, i, i, lanes), generate


@intrinsic
def scatter(typing, array, offsets, offsets_at, begin, available, available_at, out, places, places_at, shift, lanes):
    """The inverse of :func:`gather`: array[offsets[l] + begin + e] = out[places[e] + shift + l] before ``available[l]``."""
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    vector = Vector(array.dtype, lanes.literal_value)

    def generate(context, builder, sig, args):
        square = _Square(context, builder, sig, args, vector, (0, 1, 2, 3, 4, 5), (6, 7, 8, 9))
        for lane, value in enumerate(_transpose(builder, square.load_across())):
            pointer, valid = square.row(lane)
            store_masked(builder, vector, pointer, value, valid)
        return context.get_dummy_value()

    i = types.int64
    return types.void(array, offsets, i, i, available, i, out, places, i, i, lanes), generate


@intrinsic
def mismatch(typing, array, offsets, offsets_at, begin, available, available_at, out, places, places_at, shift, largest):
    """max(largest, |new - old| / max(1, |old|)) of what :func:`scatter` would write over what is there; NaN wins."""
    vector = largest.dtype

    def generate(context, builder, sig, args):
        square = _Square(context, builder, sig, args, vector, (0, 1, 2, 3, 4, 5), (6, 7, 8, 9))
        total = builder.extract_value(args[10], 0)
        for lane, new in enumerate(_transpose(builder, square.load_across())):
            pointer, valid = square.row(lane)
            old = load_masked(builder, vector, pointer, valid)
            size = vector.call(builder, "maxnum", vector.call(builder, "fabs", old), vector.constant(1.0))
            change = builder.fdiv(vector.call(builder, "fabs", builder.fsub(new, old)), size)
            change = builder.select(mask(builder, vector, valid), change, vector.constant(0.0))
            total = vector.call(builder, "maximum", total, change)
        return context.make_tuple(builder, largest, [total])

    i = types.int64
    return largest(array, offsets, i, i, available, i, out, places, i, i, largest), generate
