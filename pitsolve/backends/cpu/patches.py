"""The tile of convolutions: products summed over two nested indices, such as the rows of a patch and the numbers in a row.

It is :func:`pitsolve.backends.cpu.products.tile` with one more loop, so that the sums stay in registers over a whole patch
(a convolution) or over all pixels of an image (the gradient of its weights).
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pitsolve.backends.cpu.simd import Vector, element_pointer, splat, vector_pointer

_INDEX = ir.IntType(64)


@intrinsic
def patch_tile(typing, a, a_at, a_row, a_step, a_outer, b, b_at, b_step, b_outer, inner, outer, start, start_at, start_row,
               out, out_at, out_row, rows, vectors, lanes):
    """out[r, v] = start[r, v] + sum_o sum_k A[r, o, k] B[o, k, v]; ``*_row``, ``*_step``, ``*_outer`` stride in r, k, o."""
    literals = (rows, vectors, lanes)
    if not all(isinstance(x, types.IntegerLiteral) for x in literals):
        return None
    R, V, L = (x.literal_value for x in literals)
    vector = Vector(b.dtype, L)
    align = vector.scalar.bitwidth // 8

    def generate(context, builder, sig, args):
        def constant(value):
            return ir.Constant(_INDEX, value)

        def at(position, offset):
            return element_pointer(context, builder, sig.args[position], args[position], offset)

        def vector_at(pointer, v):
            return vector_pointer(builder, vector, builder.gep(pointer, [constant(v * L)]))

        a_data, b_data = at(0, args[1]), at(5, args[6])
        a_rows = [builder.mul(args[2], constant(r)) for r in range(R)]
        sums = [[cgutils.alloca_once(builder, vector.llvm) for _ in range(V)] for _ in range(R)]
        for r in range(R):
            pointer = at(11, builder.add(args[12], builder.mul(args[13], constant(r))))
            for v in range(V):
                builder.store(builder.load(vector_at(pointer, v), align=align), sums[r][v])
        with cgutils.for_range(builder, args[10], intp=_INDEX) as patch:
            a_patch = builder.gep(a_data, [builder.mul(patch.index, args[4])])
            b_patch = builder.gep(b_data, [builder.mul(patch.index, args[8])])
            with cgutils.for_range(builder, args[9], intp=_INDEX) as loop:
                b_row = builder.gep(b_patch, [builder.mul(loop.index, args[7])])
                b_vectors = [builder.load(vector_at(b_row, v), align=align) for v in range(V)]
                a_column = builder.gep(a_patch, [builder.mul(loop.index, args[3])])
                for r in range(R):
                    factor = splat(builder, vector, builder.load(builder.gep(a_column, [a_rows[r]])))
                    for v in range(V):
                        old = builder.load(sums[r][v])
                        builder.store(vector.call(builder, "fma", factor, b_vectors[v], old), sums[r][v])
        for r in range(R):
            pointer = at(14, builder.add(args[15], builder.mul(args[16], constant(r))))
            for v in range(V):
                builder.store(builder.load(sums[r][v]), vector_at(pointer, v), align=align)
        return context.get_dummy_value()

    i = types.int64
    return types.void(a, i, i, i, i, b, i, i, i, i, i, start, i, i, out, i, i, *literals), generate
