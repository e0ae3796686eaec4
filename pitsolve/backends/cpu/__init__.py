"""CPU threads and SIMD lanes. ``__all__`` is the list of verbs that every backend offers, with the same parameters."""

from pitsolve.backends.cpu import arrays, transfer
from pitsolve.backends.cpu.costs import default_window, fewest_pullbacks, iteration_memory, loop_memory, window_gain
from pitsolve.backends.cpu.filter import gains
from pitsolve.backends.cpu.model import bind, fused_newton
from pitsolve.backends.cpu.pointwise import magnitude, measure, update
from pitsolve.backends.cpu.scan import scan
from pitsolve.backends.cpu.tridiagonal_windows import TridiagonalWindows

__all__ = ["TridiagonalWindows", "arrays", "bind", "default_window", "fewest_pullbacks", "fused_newton", "gains",
           "iteration_memory", "loop_memory", "magnitude", "measure", "scan", "transfer", "update", "window_gain"]
