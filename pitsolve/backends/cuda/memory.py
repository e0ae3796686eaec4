"""What stands on the card for the views and the scratch memory of cells, pitsolve/cells/memory.py.

Views are made without the reshape of Numba, which calls a library and keeps small arrays out of registers. Scratch memory is
an array of the thread. In the simulator the functions of the cells serve as they are.
"""

from __future__ import annotations

import os

from pitsolve.cells import memory

TWINS = {}

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    from llvmlite import ir
    from numba.core import types
    from numba.cuda import cgutils
    from numba.cuda.extending import intrinsic

    def _view(context, builder, array_type, data, shape, step):
        """An array over ``data`` whose neighbours along the last axis are ``step`` bytes apart."""
        itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
        strides = [step]
        for size in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        array = context.make_array(array_type)(context, builder)
        context.populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
        return array._getvalue()

    @intrinsic
    def part(typing_context, theta, begin, shape):
        """A view of a flat array from ``begin`` on; ``theta`` may be strided."""
        view = types.Array(theta.dtype, len(shape), theta.layout)

        def generate(context, builder, signature, arguments):
            source = context.make_array(theta)(context, builder, arguments[0])
            step = cgutils.unpack_tuple(builder, source.strides)[0]
            begin = context.cast(builder, arguments[1], signature.args[1], types.intp)
            pointer = builder.bitcast(source.data, ir.IntType(8).as_pointer())
            data = builder.bitcast(builder.gep(pointer, [builder.mul(begin, step)]), source.data.type)
            counts = [context.cast(builder, count, given, types.intp)
                      for count, given in zip(cgutils.unpack_tuple(builder, arguments[2]), signature.args[2])]
            return _view(context, builder, view, data, counts, step)

        return view(theta, begin, shape), generate

    @intrinsic
    def flat(typing_context, array):
        """All numbers of what :func:`part` returned."""
        view = types.Array(array.dtype, 1, array.layout)

        def generate(context, builder, signature, arguments):
            source = context.make_array(array)(context, builder, arguments[0])
            step = cgutils.unpack_tuple(builder, source.strides)[-1]
            return _view(context, builder, view, source.data, [source.nitems], step)

        return view(array), generate

    @intrinsic
    def scratch(typing_context, rows, columns, like):
        """Memory of the thread, which dies with the function that asks for it."""
        if not (isinstance(rows, types.IntegerLiteral) and isinstance(columns, types.IntegerLiteral)):
            return None
        array = types.Array(like, 2, "C")

        def generate(context, builder, signature, arguments):
            counts = [context.get_constant(types.intp, size.literal_value) for size in (rows, columns)]
            number = context.get_data_type(like)
            with builder.goto_entry_block():
                block = builder.alloca(ir.ArrayType(number, max(1, rows.literal_value * columns.literal_value)))
            data = builder.bitcast(block, number.as_pointer())
            step = context.get_constant(types.intp, context.get_abi_sizeof(number))
            return _view(context, builder, array, data, counts, step)

        return array(rows, columns, like), generate

    TWINS = {memory.part: part, memory.flat: flat, memory.scratch: scratch}
