"""Affine maps y -> P y + q in SIMD registers: what one step of a recurrence does to many small states at once.

A map is a tuple of ``count`` groups of ``block * block`` vectors for P, row by row, and ``block`` vectors for q; a
state is a tuple of ``count`` groups of ``block`` vectors. Lane l of a group holds the l-th of consecutive blocks in
memory, where the numbers of a block lie side by side (``shuffles.py`` goes between the two orders).

With fewer blocks in a step than lanes, a vector holds several steps, ``period`` lanes apart: :func:`prefix` composes
them in registers (Kogge-Stone) and :func:`last` takes the final one to all.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from pitsolve.backends.cpu.shuffles import load_records, shuffle, store_records, stream_records
from pitsolve.backends.cpu.simd import Vector, element_pointer


def _literals(*values):
    return [v.literal_value for v in values] if all(isinstance(v, types.Literal) for v in values) else None


def _groups(builder, values, size):
    """A tuple of vectors as a list of groups."""
    flat = [builder.extract_value(values, k) for k in range(values.type.count)]
    return [flat[k:k + size] for k in range(0, len(flat), size)]


def _tuple(context, builder, result, groups):
    return context.make_tuple(builder, result, [value for group in groups for value in group])


def _apply(builder, vector, matrix, state, offset):
    """P y + q for one group."""
    size = len(state)
    sums = list(offset)
    for k in range(size):
        sums = [vector.call(builder, "fma", matrix[i * size + k], state[k], sums[i]) for i in range(size)]
    return sums


def _compose(builder, vector, block, earlier, later):
    """(P2 P1, P2 q1 + q2) for one group."""
    size = block * block
    product = [None] * size
    for i in range(block):
        for j in range(block):
            total = builder.fmul(later[i * block], earlier[j])
            for k in range(1, block):
                total = vector.call(builder, "fma", later[i * block + k], earlier[k * block + j], total)
            product[i * block + j] = total
    return product + _apply(builder, vector, later[:size], earlier[size:], later[size:])


def _identity(block):
    return [float(i == j) for i in range(block) for j in range(block)]


def _order(block, transposed):
    """Where the entries of a matrix stand, row by row, in a matrix or in its transpose."""
    return [k * block + i if transposed else i * block + k for i in range(block) for k in range(block)]


@intrinsic
def load_maps(typing, A, a_at, b, b_at, valid, block, count, lanes, transpose):
    """The maps of ``count * lanes`` consecutive blocks; the identity from number ``valid`` on."""
    literals = (block, count, lanes, transpose)
    if _literals(*literals) is None:
        return None
    M, V, L, transposed = _literals(*literals)
    vector = Vector(b.dtype, L)
    result = types.UniTuple(vector, V * (M * M + M))
    order = _order(M, transposed)

    def generate(context, builder, sig, args):
        matrices = element_pointer(context, builder, sig.args[0], args[0], args[1])
        offsets = element_pointer(context, builder, sig.args[2], args[2], args[3])
        P = load_records(builder, vector, matrices, args[4], V * L, M * M, _identity(M))
        q = load_records(builder, vector, offsets, args[4], V * L, M, [0.0] * M)
        groups = [[p[k] for k in order] + c for p, c in zip(P, q, strict=True)]
        return _tuple(context, builder, result, groups)

    i = types.int64
    return result(A, i, b, i, i, *literals), generate


@intrinsic
def store_maps(typing, P, P_at, q, q_at, valid, maps, block, transpose):
    """The first ``valid`` maps as arrays of matrices and of vectors: the inverse of :func:`load_maps`."""
    if _literals(block, transpose) is None:
        return None
    M, transposed = _literals(block, transpose)
    order = _order(M, transposed)
    vector = maps.dtype

    def generate(context, builder, sig, args):
        groups = _groups(builder, args[5], M * M + M)
        matrices = element_pointer(context, builder, sig.args[0], args[0], args[1])
        offsets = element_pointer(context, builder, sig.args[2], args[2], args[3])
        store_records(builder, vector, matrices, args[4], [[group[k] for k in order] for group in groups])
        store_records(builder, vector, offsets, args[4], [group[M * M:] for group in groups])
        return context.get_dummy_value()

    i = types.int64
    return types.void(P, i, q, i, i, maps, block, transpose), generate


@intrinsic
def load_states(typing, y, at, valid, block, count, lanes, period):
    """The states of ``valid`` consecutive blocks, repeated every ``period`` lanes."""
    literals = (block, count, lanes, period)
    if _literals(*literals) is None:
        return None
    M, V, L, K = _literals(*literals)
    vector = Vector(y.dtype, L)
    result = types.UniTuple(vector, V * M)

    def generate(context, builder, sig, args):
        data = element_pointer(context, builder, sig.args[0], args[0], args[1])
        groups = load_records(builder, vector, data, args[2], V * L, M, [0.0] * M)
        repeat = [lane % K for lane in range(L)]
        return _tuple(context, builder, result, [[shuffle(builder, v, v, repeat) for v in group] for group in groups])

    i = types.int64
    return result(y, i, i, *literals), generate


@intrinsic
def store_states(typing, out, at, valid, states, block):
    """The first ``valid`` states."""
    if _literals(block) is None:
        return None

    def generate(context, builder, sig, args):
        data = element_pointer(context, builder, sig.args[0], args[0], args[1])
        store_records(builder, states.dtype, data, args[2], _groups(builder, args[3], block.literal_value))
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, states, block), generate


@intrinsic
def stream_states(typing, out, at, states, block):
    """All states, past the cache, to a place aligned to whole vectors."""
    if _literals(block) is None:
        return None

    def generate(context, builder, sig, args):
        data = element_pointer(context, builder, sig.args[0], args[0], args[1])
        stream_records(builder, states.dtype, data, _groups(builder, args[2], block.literal_value))
        return context.get_dummy_value()

    return types.void(out, types.int64, states, block), generate


@intrinsic
def apply(typing, maps, states, block):
    """P y + q."""
    if _literals(block) is None:
        return None
    M = block.literal_value

    def generate(context, builder, sig, args):
        pairs = zip(_groups(builder, args[0], M * M + M), _groups(builder, args[1], M), strict=True)
        groups = [_apply(builder, states.dtype, m[:M * M], y, m[M * M:]) for m, y in pairs]
        return _tuple(context, builder, states, groups)

    return states(maps, states, block), generate


@intrinsic
def compose(typing, earlier, later, block):
    """The map that applies ``earlier`` and then ``later``."""
    if _literals(block) is None:
        return None
    M = block.literal_value

    def generate(context, builder, sig, args):
        pairs = zip(*(_groups(builder, a, M * M + M) for a in args[:2]), strict=True)
        return _tuple(context, builder, later, [_compose(builder, later.dtype, M, e, m) for e, m in pairs])

    return later(earlier, later, block), generate


@intrinsic
def prefix(typing, maps, block, period, reverse):
    """Compose each step in a vector with all the steps before it (after it, in reverse)."""
    literals = (block, period, reverse)
    if _literals(*literals) is None:
        return None
    M, K, backward = _literals(*literals)
    vector = maps.dtype
    L = vector.lanes

    def generate(context, builder, sig, args):
        groups = _groups(builder, args[0], M * M + M)
        fill = [vector.constant(x) for x in _identity(M) + [0.0] * M]
        distance = K
        while distance < L:
            sources = [lane + distance if backward else lane - distance for lane in range(L)]
            order = [s if 0 <= s < L else L for s in sources]
            groups = [_compose(builder, vector, M, [shuffle(builder, v, f, order) for v, f in
                                                    zip(group, fill, strict=True)], group) for group in groups]
            distance *= 2
        return _tuple(context, builder, maps, groups)

    return maps(maps, *literals), generate


@intrinsic
def last(typing, vectors, period, reverse):
    """The last step in each vector (the first, in reverse), repeated every ``period`` lanes."""
    literals = (period, reverse)
    if _literals(*literals) is None:
        return None
    K, backward = _literals(*literals)
    L = vectors.dtype.lanes
    first = 0 if backward else (L // K - 1) * K

    def generate(context, builder, sig, args):
        groups = _groups(builder, args[0], 1)
        order = [first + lane % K for lane in range(L)]
        return _tuple(context, builder, vectors, [[shuffle(builder, v, v, order)] for (v,) in groups])

    return vectors(vectors, *literals), generate


@intrinsic
def flush(typing, maps, block):
    """Replace denormal numbers in P by zero: the processor takes a hundred times longer for each."""
    if _literals(block) is None:
        return None
    M = block.literal_value
    vector = maps.dtype
    smallest = np.finfo(np.float32 if vector.scalar is types.float32 else np.float64).tiny

    def generate(context, builder, sig, args):
        groups = _groups(builder, args[0], M * M + M)
        for group in groups:
            for k in range(M * M):
                size = vector.call(builder, "fabs", group[k])
                small = builder.fcmp_ordered("<", size, vector.constant(float(smallest)))
                group[k] = builder.select(small, vector.constant(0.0), group[k])
        return _tuple(context, builder, maps, groups)

    return maps(maps, block), generate


@intrinsic
def finite(typing, vectors):
    """Whether no lane is infinite or NaN."""
    vector = vectors.dtype

    def generate(context, builder, sig, args):
        masks = []
        for (value,) in _groups(builder, args[0], 1):
            size = vector.call(builder, "fabs", value)
            masks.append(builder.fcmp_ordered("<", size, vector.constant(float("inf"))))
        both = masks[0]
        for mask in masks[1:]:
            both = builder.and_(both, mask)
        bits = ir.IntType(vector.lanes)
        return builder.icmp_unsigned("==", builder.bitcast(both, bits), ir.Constant(bits, -1))

    return types.boolean(vectors), generate
