"""CUDA devices: the verbs of backends/cpu, with the same parameters, on arrays of the device."""

from pitsolve.backends.cuda import arrays
from pitsolve.backends.cuda.pointwise import magnitude
from pitsolve.backends.cuda.tridiagonal_windows import TridiagonalWindows

__all__ = ["TridiagonalWindows", "arrays", "magnitude"]
