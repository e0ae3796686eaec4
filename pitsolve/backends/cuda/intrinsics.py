"""Single instructions of the card that Numba does not offer, and what stands for them in the CUDA simulator."""

from __future__ import annotations

import os

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    from pitsolve.backends.cuda.simulated import (
        exp2_approximate,
        first_half,
        load,
        load4,
        load_relaxed,
        pack,
        reciprocal_approximate,
        second_half,
        store,
        store4,
        store_relaxed,
    )
else:
    from llvmlite import ir
    from numba.core import types
    from numba.cuda.extending import intrinsic

    def _address(context, builder, array_type, array, index_type, index):
        data = context.make_array(array_type)(context, builder, array).data
        return builder.gep(data, [context.cast(builder, index, index_type, types.intp)])

    def _vector_bytes(dtype) -> tuple[int, int]:
        """(numbers in a vector of 16 bytes, vectors in four numbers)."""
        return (4, 1) if dtype.bitwidth == 32 else (2, 2)

    # An index into an array may be negative in Python: Numba tests every one of them, and keeps what it found in registers.
    @intrinsic
    def load(typing_context, array, index):
        """One number of a flat array, at an index that is not negative."""

        def generate(context, builder, signature, arguments):
            return builder.load(_address(context, builder, array, arguments[0], index, arguments[1]))

        return array.dtype(array, index), generate

    @intrinsic
    def store(typing_context, array, index, value):
        """One number to a flat array, as :func:`load`."""

        def generate(context, builder, signature, arguments):
            pointer = _address(context, builder, array, arguments[0], index, arguments[1])
            builder.store(context.cast(builder, arguments[2], value, array.dtype), pointer)
            return context.get_dummy_value()

        return types.void(array, index, value), generate

    @intrinsic
    def load4(typing_context, array, index):
        """Four neighbours from a flat array, whose address is a multiple of 16 bytes, in one instruction (two of float64)."""

        def generate(context, builder, signature, arguments):
            pointer = _address(context, builder, array, arguments[0], index, arguments[1])
            number = context.get_value_type(array.dtype)
            width, vectors = _vector_bytes(array.dtype)
            values = []
            for part in range(vectors):
                at = builder.gep(pointer, [ir.Constant(ir.IntType(64), part * width)])
                vector = builder.load(builder.bitcast(at, ir.VectorType(number, width).as_pointer()), align=16)
                values += [builder.extract_element(vector, ir.Constant(ir.IntType(32), lane)) for lane in range(width)]
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(array.dtype, 4)(array, index), generate

    @intrinsic
    def store4(typing_context, array, index, first, second, third, fourth):
        """Four neighbours to a flat array, as :func:`load4`."""

        def generate(context, builder, signature, arguments):
            pointer = _address(context, builder, array, arguments[0], index, arguments[1])
            number = context.get_value_type(array.dtype)
            width, vectors = _vector_bytes(array.dtype)
            values = [context.cast(builder, value, given, array.dtype)
                      for value, given in zip(arguments[2:], signature.args[2:])]
            for part in range(vectors):
                at = builder.gep(pointer, [ir.Constant(ir.IntType(64), part * width)])
                vector = ir.Constant(ir.VectorType(number, width), ir.Undefined)
                for lane in range(width):
                    vector = builder.insert_element(vector, values[part * width + lane], ir.Constant(ir.IntType(32), lane))
                builder.store(vector, builder.bitcast(at, vector.type.as_pointer()), align=16)
            return context.get_dummy_value()

        return types.void(array, index, first, second, third, fourth), generate

    # Loads and stores that other blocks see and the compiler neither moves nor repeats: numba's ldcv is not volatile, and a
    # loop around it never ends. No fence: whoever reads a finished word reads the value itself.
    @intrinsic
    def load_relaxed(typing_context, array, index):
        """One int64 as another block may have just written it."""

        def generate(context, builder, signature, arguments):
            pointer = _address(context, builder, array, arguments[0], index, arguments[1])
            word = ir.IntType(64)
            shape = ir.FunctionType(word, [word.as_pointer()])
            text = ir.InlineAsm(shape, "ld.relaxed.gpu.global.b64 $0, [$1];", "=l,l,~{memory}", side_effect=True)
            return builder.call(text, [pointer])

        return types.int64(array, index), generate

    @intrinsic
    def store_relaxed(typing_context, array, index, value):
        """One int64 for other blocks to see."""

        def generate(context, builder, signature, arguments):
            pointer = _address(context, builder, array, arguments[0], index, arguments[1])
            word = ir.IntType(64)
            shape = ir.FunctionType(ir.VoidType(), [word.as_pointer(), word])
            text = ir.InlineAsm(shape, "st.relaxed.gpu.global.b64 [$0], $1;", "l,l,~{memory}", side_effect=True)
            builder.call(text, [pointer, context.cast(builder, arguments[2], value, types.int64)])
            return context.get_dummy_value()

        return types.void(array, index, value), generate

    @intrinsic
    def pack(typing_context, first, second):
        """Two float32 as one int64, which is written and read as a whole."""

        def generate(context, builder, signature, arguments):
            pair = ir.Constant(ir.VectorType(ir.FloatType(), 2), ir.Undefined)
            for half in range(2):
                pair = builder.insert_element(pair, arguments[half], ir.Constant(ir.IntType(32), half))
            return builder.bitcast(pair, ir.IntType(64))

        return types.int64(types.float32, types.float32), generate

    def _half(number):
        def typed(typing_context, word):
            def generate(context, builder, signature, arguments):
                pair = builder.bitcast(arguments[0], ir.VectorType(ir.FloatType(), 2))
                return builder.extract_element(pair, ir.Constant(ir.IntType(32), number))

            return types.float32(types.int64), generate

        return typed

    first_half = intrinsic(_half(0))
    second_half = intrinsic(_half(1))

    def _approximate(instruction):
        def typed(typing_context, x):
            def generate(context, builder, signature, arguments):
                shape = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
                return builder.call(ir.InlineAsm(shape, f"{instruction} $0, $1;", "=f,f"), arguments)

            return types.float32(types.float32), generate

        return typed

    exp2_approximate = intrinsic(_approximate("ex2.approx.ftz.f32"))
    reciprocal_approximate = intrinsic(_approximate("rcp.approx.ftz.f32"))

__all__ = ["exp2_approximate", "first_half", "load", "load4", "load_relaxed", "pack", "reciprocal_approximate", "second_half",
           "store", "store4", "store_relaxed"]
