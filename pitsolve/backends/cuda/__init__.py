"""CUDA devices. ``__all__`` is the list of verbs that every backend offers, with the same parameters."""

from pitsolve.backends.cuda import arrays, transfer
from pitsolve.backends.cuda.costs import default_window, fewest_pullbacks, iteration_memory, loop_memory, window_gain
from pitsolve.backends.cuda.filter import gains
from pitsolve.backends.cuda.model import bind
from pitsolve.backends.cuda.newton import fused_newton
from pitsolve.backends.cuda.pointwise import magnitude, measure, update
from pitsolve.backends.cuda.scan import scan
from pitsolve.backends.cuda.tridiagonal_windows import TridiagonalWindows

__all__ = ["TridiagonalWindows", "arrays", "bind", "default_window", "fewest_pullbacks", "fused_newton", "gains",
           "iteration_memory", "loop_memory", "magnitude", "measure", "scan", "transfer", "update", "window_gain"]
