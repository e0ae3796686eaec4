"""What stands for single instructions of the card in the CUDA simulator, which runs kernels as Python."""

import cmath
import math

import numpy as np


def load(array, index):
    """One number."""
    if index < 0:
        raise IndexError(f"index {index} is negative")
    return array[index]


def store(array, index, value):
    """One number."""
    if index < 0:
        raise IndexError(f"index {index} is negative")
    array[index] = value


def load4(array, index):
    """Four neighbours; the address must be a multiple of 16 bytes, as on the card."""
    _aligned(array, index)
    return array[index], array[index + 1], array[index + 2], array[index + 3]


def store4(array, index, first, second, third, fourth):
    """Four neighbours."""
    _aligned(array, index)
    array[index], array[index + 1], array[index + 2], array[index + 3] = first, second, third, fourth


def _aligned(array, index):
    width = min(4, 16 // array.dtype.itemsize)
    if index < 0 or index % width:
        raise IndexError(f"a vector of {width} numbers cannot begin at index {index}")


def load_relaxed(array, index):
    """One int64."""
    return array[index]


def store_relaxed(array, index, value):
    """One int64."""
    array[index] = value


def pack(first, second):
    """Two float32 as one int64."""
    return np.array([first, second], np.float32).view(np.int64)[0]


def first_half(word):
    """The first of two float32."""
    return np.array([word], np.int64).view(np.float32)[0]


def second_half(word):
    """The second of two float32."""
    return np.array([word], np.int64).view(np.float32)[1]


def exp2_approximate(x):
    """2 to the power x."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp2(np.float32(x))


def reciprocal_approximate(x):
    """1 / x."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.float32(1.0) / np.float32(x)


def _of_either(name):
    on_real, on_complex = getattr(math, name), getattr(cmath, name)
    return lambda x: np.complex128(on_complex(x)) if isinstance(x, complex) else np.float64(on_real(x))


# Functions of math that also take complex numbers, as complexmath.py teaches them to the compiler. Results are of NumPy's
# types: a Python number times a float32 would be narrowed, while the card computes in float64.
MATHEMATICS = {name: _of_either(name) for name in (
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "exp", "log", "log10",
    "sqrt")}
