"""Scalar functions that several cells share; they run on scalars, on SIMD lanes and on CUDA threads alike."""

import math

from numba.extending import register_jitable


@register_jitable
def sigmoid(x):
    """1 / (1 + exp(-x)), through tanh: no overflow, and one hard function for all gates."""
    return 0.5 * math.tanh(0.5 * x) + 0.5


@register_jitable
def power(z, k):
    """z to a positive whole power, by repeated squaring."""
    result = z
    k -= 1
    while k > 0:
        if k % 2 == 1:
            result = result * z
        z = z * z
        k //= 2
    return result
