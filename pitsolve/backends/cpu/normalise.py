"""Pointwise and summing kernels of batch normalisation, on images (B, P, C) of P pixels.

The sums of a batch are sums per image, which the caller adds in order: no result depends on the number of threads.
"""

import numpy as np
from numba import prange
from numba.extending import intrinsic

from pitsolve.backends.cpu.simd import load, store
from pitsolve.compile import constant, inline, kernel

LANES = constant("LANES")

MEAN, FACTOR, SHIFT = 0, 1, 2  # rows of what normalises: (x - mean) factor + shift


@intrinsic
def rectified(typing, value):
    """max(value, 0), and NaN where the value is NaN."""

    def generate(context, builder, sig, args):
        zero = value.constant(0.0)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])

    return value(value), generate


@intrinsic
def passed(typing, gradient, value):
    """The gradient where the value is positive, else zero: the transposed derivative of the rectifier."""

    def generate(context, builder, sig, args):
        zero = value.constant(0.0)
        return builder.select(builder.fcmp_ordered("<=", args[1], zero), zero, args[0])

    return gradient(gradient, value), generate


@inline
def vector(array, at, valid):
    """One vector, its first ``valid`` numbers, zeros beyond."""
    return load(array, at, 0, valid, 1, LANES)[0]


@inline
def nothing(array):
    """A vector of zeros."""
    return load(array, 0, 0, 0, 1, LANES)[0]


@inline
def put(array, at, valid, value):
    """The inverse of :func:`vector`."""
    store(array, at, 0, valid, (value,))


@kernel
def measure_image(x, at, pixels, channels, moments, to, stride):
    """Two rows of ``moments``, ``stride`` apart: the mean of an image and the sum of (x - mean)^2.

    Two passes, so that a large mean costs no digits; the second one also corrects the rounded mean of the first.
    """
    for c in range(0, channels, LANES):
        valid = channels - c
        total = nothing(x)
        for p in range(pixels):
            total = total + vector(x, at + p * channels + c, valid)
        mean = total * (1.0 / pixels)
        rest, squares = nothing(x), nothing(x)
        for p in range(pixels):
            difference = vector(x, at + p * channels + c, valid) - mean
            rest = rest + difference
            squares = squares + difference * difference
        put(moments, to + c, LANES, mean + rest * (1.0 / pixels))
        put(moments, to + stride + c, LANES, squares - rest * rest * (1.0 / pixels))


@kernel(parallel=True)
def measure(x, moments):
    """The moments (B, 2, C padded to whole vectors) of every image."""
    images, pixels, channels = x.shape
    stride = moments.shape[2]
    for number in prange(images):
        b = np.int64(number)
        measure_image(x, b * pixels * channels, pixels, channels, moments, b * 2 * stride, stride)


@kernel(parallel=True)
def measure_gradient(x, norm, g, sums):
    """sums (B, 2, C padded) of g and of g (x - mean) over the pixels of every image."""
    images, pixels, channels = x.shape
    stride = sums.shape[2]
    for number in prange(images):
        b = np.int64(number)
        at = b * pixels * channels
        for c in range(0, channels, LANES):
            valid = channels - c
            mean = vector(norm, c, LANES)
            total, product = nothing(x), nothing(x)
            for p in range(pixels):
                i = at + p * channels + c
                value = vector(g, i, valid)
                total = total + value
                product = product + value * (vector(x, i, valid) - mean)
            put(sums, b * 2 * stride + c, LANES, total)
            put(sums, (b * 2 + 1) * stride + c, LANES, product)


@kernel(parallel=True)
def combine(x, norm, g, factors, with_gradient, other, with_other, out):
    """out = factors g + (x - mean) factor + shift + other, per channel, the terms with ``g`` and ``other`` if asked for."""
    images, pixels, channels = x.shape
    stride = norm.shape[1]
    for number in prange(images):
        b = np.int64(number)
        for p in range(pixels):
            for c in range(0, channels, LANES):
                at = (b * pixels + p) * channels + c
                valid = channels - c
                value = affine(x, at, norm, stride, c, valid)
                if with_gradient:
                    value = value + vector(g, at, valid) * vector(factors, c, LANES)
                if with_other:
                    value = value + vector(other, at, valid)
                put(out, at, valid, value)


@inline
def affine(x, at, norm, stride, c, valid):
    """(x - mean) factor + shift for one vector of channels."""
    mean = vector(norm, MEAN * stride + c, LANES)
    return (vector(x, at, valid) - mean) * vector(norm, FACTOR * stride + c, LANES) + vector(norm, SHIFT * stride + c, LANES)
