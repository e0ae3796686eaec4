"""Layers on rows of features (rows, C): layer normalisation, rectifier, gated linear unit, dropout; the verbs are at the end.

Each is one pass over memory. Tasks are fixed chunks of rows or of numbers, and what a chunk adds up is added in order: no
result depends on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from pitsolve.backends.cpu.normalise import nothing, passed, put, rectified, vector
from pitsolve.backends.cpu.simd import lanes_for, mask, register_bytes
from pitsolve.backends.cpu.workspace import aligned, aligned_zeros
from pitsolve.cells.functions import sigmoid
from pitsolve.compile import constant, inline, kernel, specialise

LANES = constant("LANES")

CHUNK = 256  # rows of one parallel task; fixed, so that no sum depends on the number of threads
PART = 1 << 14  # numbers of one parallel task where rows do not matter

# SplitMix64 of Steele, Lea and Flood (2014): number k of the stream of a seed is mix(seed + (k + 1) * _GAMMA).
_GAMMA, _MIX, _BITS = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)), 64


@intrinsic
def leading(typing, value, valid):
    """The first ``valid`` lanes, zeros beyond."""

    def generate(context, builder, sig, args):
        return builder.select(mask(builder, value, args[1]), args[0], value.constant(0.0))

    return value(value, types.int64), generate


@intrinsic
def across(typing, value):
    """The sum of all lanes, in halves: the first to the second, until one is left."""

    def generate(context, builder, sig, args):
        index, total, count = ir.IntType(32), args[0], value.lanes
        while count > 1:
            count //= 2
            halves = (ir.Constant(ir.VectorType(index, count), list(range(first, first + count))) for first in (0, count))
            total = builder.fadd(*(builder.shuffle_vector(total, total, half) for half in halves))
        return builder.extract_element(total, ir.Constant(index, 0))

    return value.scalar(value), generate


@intrinsic
def spared(typing, value, seed, position, threshold):
    """Zero where the random number of a position, the first lane's and those after it, is below the threshold."""

    def generate(context, builder, sig, args):
        lanes = ir.VectorType(ir.IntType(_BITS), value.lanes)

        def everywhere(number):
            return ir.Constant(lanes, [number % 2**_BITS] * value.lanes)

        def broadcast(scalar):
            index, indices = ir.IntType(32), ir.VectorType(ir.IntType(32), value.lanes)
            single = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.Constant(index, 0))
            return builder.shuffle_vector(single, single, ir.Constant(indices, [0] * value.lanes))

        first = builder.add(args[1], builder.mul(args[2], ir.Constant(ir.IntType(_BITS), _GAMMA)))
        steps = ir.Constant(lanes, [(k + 1) * _GAMMA % 2**_BITS for k in range(value.lanes)])
        random = builder.add(broadcast(first), steps)
        for shift, factor in _MIX:
            random = builder.mul(builder.xor(random, builder.lshr(random, everywhere(shift))), everywhere(factor))
        random = builder.xor(random, builder.lshr(random, everywhere(31)))
        dropped = builder.icmp_unsigned("<", random, broadcast(args[3]))
        return builder.select(dropped, value.constant(0.0), args[0])

    return value(value, types.uint64, types.int64, types.uint64), generate


# ----------------------------------------------------------------------------------------------------------- numbers


@kernel(parallel=True)
def rectify_numbers(x, y):
    """y = max(x, 0)."""
    for number in prange((x.size + PART - 1) // PART):
        part = np.int64(number)
        end = min(x.size, (part + 1) * PART)
        for i in range(part * PART, end, LANES):
            put(y, i, end - i, rectified(vector(x, i, end - i)))


@kernel(parallel=True)
def rectify_backward_numbers(y, dy, dx):
    """dx = dy where y > 0, else zero."""
    for number in prange((y.size + PART - 1) // PART):
        part = np.int64(number)
        end = min(y.size, (part + 1) * PART)
        for i in range(part * PART, end, LANES):
            put(dx, i, end - i, passed(vector(dy, i, end - i), vector(y, i, end - i)))


@kernel(parallel=True)
def drop_numbers(x, seed, threshold, scale, y):
    """y = scale x, zero where the random number of its position is below the threshold."""
    for number in prange((x.size + PART - 1) // PART):
        part = np.int64(number)
        end = min(x.size, (part + 1) * PART)
        for i in range(part * PART, end, LANES):
            put(y, i, end - i, spared(vector(x, i, end - i) * scale, seed, i, threshold))


# -------------------------------------------------------------------------------------------------------------- rows


@kernel(parallel=True)
def gate_rows(x, y):
    """y = a sigmoid(b) for the halves a and b of the rows of x."""
    rows, width = y.shape
    for number in prange((rows + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        for row in range(chunk * CHUNK, min(rows, (chunk + 1) * CHUNK)):
            for c in range(0, width, LANES):
                at, valid = 2 * row * width + c, width - c
                put(y, row * width + c, valid, vector(x, at, valid) * sigmoid(vector(x, at + width, valid)))


@kernel(parallel=True)
def gate_backward_rows(x, dy, dx):
    """da = dy sigmoid(b), db = dy a sigmoid(b) (1 - sigmoid(b))."""
    rows, width = dy.shape
    for number in prange((rows + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        for row in range(chunk * CHUNK, min(rows, (chunk + 1) * CHUNK)):
            for c in range(0, width, LANES):
                at, valid = 2 * row * width + c, width - c
                gate = sigmoid(vector(x, at + width, valid))
                da = vector(dy, row * width + c, valid) * gate
                put(dx, at, valid, da)
                put(dx, at + width, valid, da * vector(x, at, valid) * (1.0 - gate))


@kernel(parallel=True)
def normalise_rows(x, eps, weight, bias, affine, statistics, y):
    """y = (x - mean) factor, times the weight plus the bias if asked for; ``statistics`` (rows, 2) receives mean and factor."""
    rows, width = x.shape
    for number in prange((rows + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        for row in range(chunk * CHUNK, min(rows, (chunk + 1) * CHUNK)):
            measure_row(x, row, width, eps, statistics)
            mean, factor = statistics[row, 0], statistics[row, 1]
            for c in range(0, width, LANES):
                at, valid = row * width + c, width - c
                value = (vector(x, at, valid) - mean) * factor
                if affine:
                    value = value * vector(weight, c, valid) + vector(bias, c, valid)
                put(y, at, valid, value)


@inline
def measure_row(x, row, width, eps, statistics):
    """Mean and 1 / sqrt(variance + eps); two passes, so that a large mean costs no digits."""
    at, share = row * width, 1.0 / width
    total, squares = nothing(x), nothing(x)
    for c in range(0, width, LANES):
        total = total + vector(x, at + c, width - c)
    mean = across(total) * share
    for c in range(0, width, LANES):
        difference = leading(vector(x, at + c, width - c) - mean, width - c)
        squares = squares + difference * difference
    statistics[row, 0] = mean
    statistics[row, 1] = 1.0 / math.sqrt(across(squares) * share + eps)


@kernel(parallel=True)
def normalise_backward_rows(x, statistics, weight, affine, dy, dx, sums):
    """dx = factor (g - mean(g) - n mean(g n)) with g = weight dy and n = (x - mean) factor.

    ``sums`` (chunks, 2, C), zeros at first, receives the sums of dy n and of dy over the rows of each chunk, if affine.
    """
    rows, width = x.shape
    for number in prange((rows + CHUNK - 1) // CHUNK):
        chunk = np.int64(number)
        for row in range(chunk * CHUNK, min(rows, (chunk + 1) * CHUNK)):
            mean, factor = statistics[row, 0], statistics[row, 1]
            total, product = nothing(x), nothing(x)
            for c in range(0, width, LANES):
                at, valid = row * width + c, width - c
                g, normalised = vector(dy, at, valid), (vector(x, at, valid) - mean) * factor
                if affine:
                    add_to(sums, 2 * chunk * width + c, valid, g * normalised)
                    add_to(sums, (2 * chunk + 1) * width + c, valid, g)
                    g = g * vector(weight, c, valid)
                total = total + g
                product = product + g * normalised
            shift, slope = across(total) / width, across(product) / width
            for c in range(0, width, LANES):
                at, valid = row * width + c, width - c
                g, normalised = vector(dy, at, valid), (vector(x, at, valid) - mean) * factor
                if affine:
                    g = g * vector(weight, c, valid)
                put(dx, at, valid, (g - shift - normalised * slope) * factor)


@inline
def add_to(array, at, valid, value):
    put(array, at, valid, vector(array, at, valid) + value)


# ------------------------------------------------------------------------------------------------------------- verbs


def _on_numbers(function, x, *rest):
    """Call a kernel that sees arrays like x as one row, with the result last, and return that."""
    out = aligned(x.shape, x.dtype)
    flat = [value.reshape(-1) if isinstance(value, np.ndarray) else value for value in (x, *rest, out)]
    specialise(function, LANES=register_bytes() // x.itemsize)(*flat)
    return out


def rectify(x: np.ndarray) -> np.ndarray:
    """max(x, 0); NaN stays NaN."""
    return _on_numbers(rectify_numbers, x)


def rectify_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dL/dx of :func:`rectify` from its result."""
    return _on_numbers(rectify_backward_numbers, y, dy)


def drop(x: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """x / (1 - rate), a share ``rate`` of it zero; which, is a function of the position and the 64 bits of the seed."""
    return _on_numbers(drop_numbers, x, np.uint64(seed % 2**_BITS), np.uint64(int(rate * 2.0**_BITS)), 1.0 / (1.0 - rate))


def _on_rows(function, width, *arguments):
    specialise(function, LANES=lanes_for(arguments[0].dtype, width))(*arguments)


def gate(x: np.ndarray) -> np.ndarray:
    """a sigmoid(b) (rows, C / 2) for the halves a and b of the rows of x."""
    y = aligned((x.shape[0], x.shape[1] // 2), x.dtype)
    _on_rows(gate_rows, y.shape[1], x, y)
    return y


def gate_backward(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dL/dx of :func:`gate`."""
    dx = aligned(x.shape, x.dtype)
    _on_rows(gate_backward_rows, dy.shape[1], x, dy, dx)
    return dx


def normalise(x: np.ndarray, eps: float, weight: np.ndarray | None = None, bias: np.ndarray | None = None
              ) -> tuple[np.ndarray, np.ndarray]:
    """Rows with mean 0 and variance 1, times the weight plus the bias if there are; and (rows, 2) for the way back."""
    y, statistics = aligned(x.shape, x.dtype), aligned((x.shape[0], 2), x.dtype)
    affine, unused = weight is not None, x.reshape(-1)
    _on_rows(normalise_rows, x.shape[1], x, float(eps), weight if affine else unused, bias if affine else unused, affine,
             statistics, y)
    return y, statistics


def normalise_backward(x: np.ndarray, statistics: np.ndarray, weight: np.ndarray | None, dy: np.ndarray
                       ) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dx of :func:`normalise`, and dL/dweight and dL/dbias (2, C) if there is a weight."""
    rows, width = x.shape
    dx, affine = aligned(x.shape, x.dtype), weight is not None
    sums = aligned_zeros((-(-rows // CHUNK) if affine else 1, 2, width), x.dtype)
    _on_rows(normalise_backward_rows, width, x, statistics, weight if affine else x.reshape(-1), affine, dy, dx, sums)
    return dx, sums.sum(axis=0, dtype=np.float64).astype(x.dtype) if affine else None
