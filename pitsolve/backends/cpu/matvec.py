"""One small matrix times one vector, the step of a dense recurrence: what counts is the latency, not the throughput."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from pitsolve.backends.cpu.maps import load_lanes, shuffle
from pitsolve.backends.cpu.simd import Vector, element_pointer, splat

_INDEX = ir.IntType(64)
_CHAINS = 4  # independent sums, enough to hide the latency of an addition


def _index(value):
    return ir.Constant(_INDEX, value)


def _sums(builder, vectors):
    """Lane r is the sum of the lanes of ``vectors[r]``: halves of pairs are added until one vector is left."""
    lanes = len(vectors)
    count = lanes
    while len(vectors) > 1:
        # Each vector holds ``lanes // count`` finished groups of ``count`` partial sums; a pair makes groups of count / 2.
        count //= 2
        groups = range(0, lanes, 2 * count)
        low = [part * lanes + g + k for g in groups for part in (0, 1) for k in range(count)]
        high = [number + count for number in low]
        half = len(vectors) // 2
        vectors = [builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high))
                   for a, b in zip(vectors[:half], vectors[half:], strict=True)]
    return vectors[0]
