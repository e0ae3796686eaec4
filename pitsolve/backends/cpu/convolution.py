"""Forward kernel of convolutions: normalise, rectify, multiply, add, measure, one image after the other.

An image is copied into scratch memory with its border of zeros; normalisation and rectifier happen on the way, so their result
never reaches main memory. In the layout (pixels, channels) the columns of a patch stand side by side, so eight patches are
eight rows of numbers that a tile multiplies with the weights.
"""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.normalise import LANES, affine, measure_image, put, rectified, vector
from pitsolve.backends.cpu.patches import patch_tile
from pitsolve.compile import constant, inline, kernel

VECTORS = constant("VECTORS")  # of output channels in one tile
ROWS = 8  # pixels of one tile


@kernel(parallel=True)
def convolve(x, norm, active, weight, stride, residual, added, measured, zeros, padded, lines, moments, y):
    """y = w * a(x) + residual, a(x) = max(0, (x - mean) factor + shift) if ``active``, else x; moments of y if ``measured``.

    ``weight`` is (blocks, k, k C, numbers of a tile). The images are dealt to as many workers as there are rows of scratch.
    """
    workers = padded.shape[0]
    for number in prange(workers):
        worker = np.int64(number)
        for b in range(worker, y.shape[0], workers):
            convolve_image(x, norm, active, weight, stride, residual, added, zeros, padded[worker], lines[worker], y, b)
            if measured:
                _, height, width, channels = y.shape
                measure_image(y, b * height * width * channels, height * width, channels, moments,
                              b * 2 * moments.shape[2], moments.shape[2])


@kernel
def convolve_image(x, norm, active, weight, stride, residual, added, zeros, padded, line, y, b):
    fill(x, b, norm, active, padded, weight.shape[1] // 2)
    _, height, width, channels = y.shape
    for i in range(height):
        multiply_row(padded, i * stride, stride, x.shape[2], x.shape[3], weight, width, zeros, line)
        finish_row(line, weight.shape[0] * weight.shape[3], residual, added, y, (b * height + i) * width * channels, width,
                   channels)


@kernel
def fill(x, b, norm, active, padded, border):
    """Image b, or what the next product needs of it, inside its border."""
    _, height, width, channels = x.shape
    for i in range(height):
        at = (b * height + i) * width * channels
        to = ((i + border) * (width + 2 * border) + border) * channels
        for j in range(0, width * channels, channels):
            for c in range(0, channels, LANES):
                valid = channels - c
                if active:
                    value = rectified(affine(x, at + j + c, norm, norm.shape[1], c, valid))
                else:
                    value = vector(x, at + j + c, valid)
                put(padded, to + j + c, valid, value)


@inline
def multiply_row(padded, row, stride, width, channels, weight, count, zeros, line):
    """One row of ``count`` output pixels, whose patches begin at ``row``; channels padded to whole tiles."""
    blocks, size, length, numbers = weight.shape
    pitch = (width + size // 2 * 2) * channels
    for j in range(0, count, ROWS):
        at = row * pitch + j * stride * channels
        for q in range(blocks):
            patch_tile(padded, at, stride * channels, 1, pitch, weight, q * size * length * numbers, numbers, length * numbers,
                       length, size, zeros, 0, 0, line, j * blocks * numbers + q * numbers, blocks * numbers,
                       ROWS, VECTORS, LANES)


@inline
def finish_row(line, pitch, residual, added, y, at, width, channels):
    for j in range(width):
        for c in range(0, channels, LANES):
            valid = channels - c
            value = vector(line, j * pitch + c, LANES)
            if added:
                value = value + vector(residual, at + j * channels + c, valid)
            put(y, at + j * channels + c, valid, value)
