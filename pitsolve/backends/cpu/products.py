"""Small matrix products in registers: the tile that every linear part of a kernel goes through.

One intrinsic serves all of them. It keeps ``rows`` x ``vectors`` accumulators in registers and multiplies scalars of A,
read with any two strides, by packed rows of B:

    out[r, v] = start[r, v] + sum_k A[r, k] B[k, v].

With 8 rows it is a block of a matrix-matrix product (throughput-bound, 8 x 3 accumulators); with one row and several
accumulator ``sets`` it is a matrix-vector product whose additions do not wait for each other (latency-bound). The order of
the additions into one output depends only on ``sets``, so the number of rows in a tile never changes a bit.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pitsolve.backends.cpu.simd import Vector, element_pointer, splat, vector_pointer
from pitsolve.backends.cpu.workspace import aligned_zeros

_INDEX = ir.IntType(64)


@intrinsic
def tile(typing, a, a_at, a_row, a_step, b, b_at, length, start, start_at, start_row, out, out_at, out_row,
         rows, vectors, sets, lanes):
    """One tile. ``*_at`` are offsets, ``a_row``/``a_step`` the strides of A in r and k, ``start_row`` may be 0."""
    literals = (rows, vectors, sets, lanes)
    if not all(isinstance(x, types.IntegerLiteral) for x in literals):
        return None
    R, V, S, L = (x.literal_value for x in literals)
    vector = Vector(b.dtype, L)
    align = vector.scalar.bitwidth // 8

    def generate(context, builder, sig, args):
        def constant(value):
            return ir.Constant(_INDEX, value)

        def at(position, offset):
            return element_pointer(context, builder, sig.args[position], args[position], offset)

        def vector_at(pointer, v):
            return vector_pointer(builder, vector, builder.gep(pointer, [constant(v * L)]))

        a_data, b_data = at(0, args[1]), at(4, args[5])
        sums = [[[cgutils.alloca_once(builder, vector.llvm) for _ in range(V)] for _ in range(R)] for _ in range(S)]
        for r in range(R):
            pointer = at(7, builder.add(args[8], builder.mul(args[9], constant(r))))
            for v in range(V):
                builder.store(builder.load(vector_at(pointer, v), align=align), sums[0][r][v])
                for s in range(1, S):
                    builder.store(vector.constant(0.0), sums[s][r][v])

        def step(k, s):
            b_row = builder.gep(b_data, [builder.mul(k, constant(V * L))])
            b_vectors = [builder.load(vector_at(b_row, v), align=align) for v in range(V)]
            a_column = builder.gep(a_data, [builder.mul(k, args[3])])
            for r in range(R):
                scalar = builder.load(builder.gep(a_column, [builder.mul(args[2], constant(r))]))
                factor = splat(builder, vector, scalar)
                for v in range(V):
                    old = builder.load(sums[s][r][v])
                    builder.store(vector.call(builder, "fma", factor, b_vectors[v], old), sums[s][r][v])

        whole = builder.sdiv(args[6], constant(S))
        with cgutils.for_range(builder, whole, intp=_INDEX) as loop:
            for s in range(S):
                step(builder.add(builder.mul(loop.index, constant(S)), constant(s)), s)
        if S > 1:
            done = builder.mul(whole, constant(S))
            with cgutils.for_range(builder, builder.sub(args[6], done), intp=_INDEX) as loop:
                step(builder.add(done, loop.index), 0)
        for r in range(R):
            pointer = at(10, builder.add(args[11], builder.mul(args[12], constant(r))))
            for v in range(V):
                total = builder.load(sums[0][r][v])
                for s in range(1, S):
                    total = builder.fadd(total, builder.load(sums[s][r][v]))
                builder.store(total, vector_at(pointer, v), align=align)
        return context.get_dummy_value()

    i = types.int64
    return types.void(a, i, i, i, b, i, i, start, i, i, out, i, i, *literals), generate


def _head_mask(lanes, size, j):
    """Lanes of the ``j``-th unit of each lane's own head, for heads of ``size`` units that fill the vector exactly."""
    return ir.Constant(ir.VectorType(ir.IntType(32), lanes), [lane // size * size + j for lane in range(lanes)])


@intrinsic
def head_product(typing, values, weight, at, stride, start, size):
    """start[i] + sum_j W[j, i] values[first unit of i's head + j], 0 <= j < size, for one vector of units."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    vector = values.dtype

    def generate(context, builder, sig, args):
        value, total = builder.extract_value(args[0], 0), builder.extract_value(args[4], 0)
        for j in range(size.literal_value):
            offset = builder.add(args[2], builder.mul(args[3], ir.Constant(_INDEX, j)))
            pointer = vector_pointer(builder, vector, element_pointer(context, builder, sig.args[1], args[1], offset))
            row = builder.load(pointer, align=vector.scalar.bitwidth // 8)
            factor = builder.shuffle_vector(value, value, _head_mask(vector.lanes, size.literal_value, j))
            total = vector.call(builder, "fma", row, factor, total)
        return context.make_tuple(builder, values, [total])

    return values(values, weight, types.int64, types.int64, values, size), generate


@intrinsic
def head_outer(typing, gate, values, sums, at, stride, size):
    """sums[j, i] += gate[i] values[first unit of i's head + j], 0 <= j < size, for one vector of units."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    vector = values.dtype

    def generate(context, builder, sig, args):
        left, value = builder.extract_value(args[0], 0), builder.extract_value(args[1], 0)
        for j in range(size.literal_value):
            offset = builder.add(args[3], builder.mul(args[4], ir.Constant(_INDEX, j)))
            pointer = vector_pointer(builder, vector, element_pointer(context, builder, sig.args[2], args[2], offset))
            factor = builder.shuffle_vector(value, value, _head_mask(vector.lanes, size.literal_value, j))
            align = vector.scalar.bitwidth // 8
            total = vector.call(builder, "fma", left, factor, builder.load(pointer, align=align))
            builder.store(total, pointer, align=align)
        return context.get_dummy_value()

    return types.void(gate, values, sums, types.int64, types.int64, size), generate


def block_vectors(vectors: int, most: int) -> int:
    """Vectors in one block when ``vectors`` of them are cut into equal blocks of at most ``most``."""
    blocks = -(-vectors // most)
    return -(-vectors // blocks)


def pack(matrix: np.ndarray, lanes: int, vectors: int) -> np.ndarray:
    """Rows of B in the order in which :func:`tile` reads them: (blocks, k, vectors * lanes), padded with zeros."""
    length, width = matrix.shape
    block = vectors * lanes
    blocks = -(-width // block)
    packed = aligned_zeros((blocks, length, block), matrix.dtype)
    for q in range(blocks):
        columns = matrix[:, q * block:(q + 1) * block]
        packed[q, :, :columns.shape[1]] = columns
    return packed
