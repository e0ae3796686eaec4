"""Backward kernel of convolutions: gradients of the input and of the weights, with what normalisation needs on either side.

Of y = w * a(x), where y is normalised next: dL/dy follows from the rectified gradient g of the next normalisation as
g factor + (y - mean) factor' + shift', computed while it is copied into scratch memory; dL/dx passes the rectifier and is
summed for the normalisation before. A stride spreads dL/dy over the pixels that it skipped, with zeros between them.
"""

import numpy as np
from numba import prange

from pitsolve.backends.cpu.convolution import ROWS, fill
from pitsolve.backends.cpu.normalise import FACTOR, LANES, SHIFT, affine, passed, put, vector
from pitsolve.backends.cpu.patches import patch_tile
from pitsolve.compile import constant, inline, kernel

VECTORS = constant("VECTORS")  # of output channels in a tile of the gradient of the weights
WEIGHT_ROWS = constant("WEIGHT_ROWS")  # of the same tile: numbers of a patch
INPUT_VECTORS = constant("INPUT_VECTORS")  # of input channels in a tile of dL/dx


def weight_rows(vectors: int) -> int:
    """Rows of a tile of the gradient of the weights: 16 sums in registers."""
    return 16 // vectors


@kernel(parallel=True)
def convolve_backward(x, norm, active, y, following, factors, followed, g, weight, stride, zeros, padded, spread, lines, dx,
                      sums, dweight):
    """dL/dx (before the rectifier, if ``active``), the sums of it and of it times x - mean, and the gradient of the weights.

    ``weight`` is flipped and transposed, (blocks, k, k K', numbers of a tile) with K' channels of whole tiles. The gradient of
    the weights comes in a fixed number of parts, each from the same images for any number of workers.
    """
    workers, tasks = padded.shape[0], dweight.shape[0]
    for number in prange(workers):
        worker = np.int64(number)
        for task in range(worker, tasks, workers):
            for b in range(task, x.shape[0], tasks):
                fill(x, b, norm, active, padded[worker], weight.shape[1] // 2)
                fill_spread(y, following, factors, followed, g, b, stride, x.shape[2], spread[worker], dweight.shape[3],
                            weight.shape[1] // 2)
                weight_gradient(padded[worker], spread[worker], x, g, stride, dweight, task)
                input_gradient(spread[worker], weight, x, norm, active, zeros, lines[worker], dx, sums, b)


@kernel
def fill_spread(y, following, factors, followed, g, b, stride, width, spread, pitch, border):
    """dL/dy of image b inside its border, ``pitch`` numbers a pixel."""
    _, rows, columns, channels = g.shape
    for i in range(rows):
        at = (b * rows + i) * columns * channels
        to = ((i * stride + border) * (width + 2 * border) + border) * pitch
        for j in range(columns):
            for c in range(0, channels, LANES):
                valid = channels - c
                here = at + j * channels + c
                value = vector(g, here, valid)
                if followed:
                    value = value * vector(factors, c, LANES) + affine(y, here, following, following.shape[1], c, valid)
                put(spread, to + j * stride * pitch + c, valid, value)


@kernel
def weight_gradient(padded, spread, x, g, stride, dweight, task):
    """Add the sums over the pixels of an image of a(x) dL/dy."""
    width, channels = x.shape[2:]
    _, size, rows, pitch = dweight.shape
    row = (width + size // 2 * 2) * channels
    row_spread = (width + size // 2 * 2) * pitch
    first = size // 2 * (row_spread + pitch)
    for k in range(size):
        for c in range(0, rows, WEIGHT_ROWS):
            for q in range(0, pitch, VECTORS * LANES):
                at = ((task * size + k) * rows + c) * pitch + q
                patch_tile(padded, k * row + c, 1, stride * channels, stride * row, spread, first + q, stride * pitch,
                           stride * row_spread, g.shape[2], g.shape[1], dweight, at, pitch, dweight, at, pitch,
                           WEIGHT_ROWS, VECTORS, LANES)


@kernel
def input_gradient(spread, weight, x, norm, active, zeros, line, dx, sums, b):
    _, height, width, channels = x.shape
    blocks, size, length, numbers = weight.shape
    pitch = length // size
    row = (width + size // 2 * 2) * pitch
    for i in range(height):
        for j in range(0, width, ROWS):
            for q in range(blocks):
                patch_tile(spread, i * row + j * pitch, pitch, 1, row, weight, q * size * length * numbers, numbers,
                           length * numbers, length, size, zeros, 0, 0, line, (j * blocks + q) * numbers, blocks * numbers,
                           ROWS, INPUT_VECTORS, LANES)
        finish_row(line, blocks * numbers, x, norm, active, dx, (b * height + i) * width * channels, width, channels, sums, b)


@inline
def finish_row(line, pitch, x, norm, active, dx, at, width, channels, sums, b):
    stride = norm.shape[1]
    for c in range(0, channels, LANES):
        valid = channels - c
        if active:
            mean = vector(norm, c, LANES)
            factor = vector(norm, FACTOR * stride + c, LANES)
            shift = vector(norm, SHIFT * stride + c, LANES)
            total = vector(sums, 2 * b * stride + c, LANES)
            product = vector(sums, (2 * b + 1) * stride + c, LANES)
            for j in range(width):
                difference = vector(x, at + j * channels + c, valid) - mean
                value = passed(vector(line, j * pitch + c, LANES), difference * factor + shift)
                total = total + value
                product = product + value * difference
                put(dx, at + j * channels + c, valid, value)
            put(sums, 2 * b * stride + c, LANES, total)
            put(sums, (2 * b + 1) * stride + c, LANES, product)
        else:
            for j in range(width):
                put(dx, at + j * channels + c, valid, vector(line, j * pitch + c, LANES))
