"""What stands for single instructions of the card in the CUDA simulator, which runs kernels as Python.

The simulator also lacks exchange between the threads of a warp, which is made of block barriers here. That is valid where every
thread of a block reaches every call, which is the rule for kernels of this package.
"""

import cmath
import math
import threading

import numpy as np
from numba.cuda.simulator.kernelapi import FakeCUDAModule


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
    if index % width:
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


def _exchange(value):
    """What every thread of the block passed, by thread number."""
    thread = threading.current_thread()
    box = thread._manager.__dict__.setdefault("_passed", {})
    box[thread.thread_id] = value
    thread.syncthreads()
    passed = dict(box)
    thread.syncthreads()
    return thread.thread_id, passed


def _shuffle(source):
    """Each thread gets what thread ``source(lane, argument)`` of its warp passed, or its own if there is none."""

    def shuffle(self, mask, value, argument):
        number, passed = _exchange(value)
        lane = source(number % 32, int(argument))
        return passed.get(number - number % 32 + lane, value) if 0 <= lane < 32 else value

    return shuffle


def _of_warp(value):
    number, passed = _exchange(value)
    first = number - number % 32
    return [passed[first + lane] for lane in range(32) if first + lane in passed]


def add_warps() -> None:
    """Give the simulator the warp primitives."""
    FakeCUDAModule.shfl_sync = _shuffle(lambda lane, source: source)
    FakeCUDAModule.shfl_up_sync = _shuffle(lambda lane, distance: lane - distance)
    FakeCUDAModule.shfl_down_sync = _shuffle(lambda lane, distance: lane + distance)
    FakeCUDAModule.shfl_xor_sync = _shuffle(lambda lane, distance: lane ^ distance)
    FakeCUDAModule.syncwarp = lambda self, mask=0xffffffff: threading.current_thread().syncthreads()
    FakeCUDAModule.ballot_sync = lambda self, mask, flag: sum(1 << lane for lane, on in enumerate(_of_warp(flag)) if on)
    FakeCUDAModule.all_sync = lambda self, mask, flag: all(_of_warp(flag))
    FakeCUDAModule.any_sync = lambda self, mask, flag: any(_of_warp(flag))


def _of_either(name):
    on_real, on_complex = getattr(math, name), getattr(cmath, name)
    return lambda x: np.complex128(on_complex(x)) if isinstance(x, complex) else np.float64(on_real(x))


# Functions of math that also take complex numbers, as complexmath.py teaches them to the compiler. Results are of NumPy's
# types: a Python number times a float32 would be narrowed, while the card computes in float64.
MATHEMATICS = {name: _of_either(name) for name in (
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "exp", "log", "log10", "sqrt")}
