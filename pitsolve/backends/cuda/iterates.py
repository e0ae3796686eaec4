"""What kernels that improve an iterate share: sizes relative to the states, their maxima, repair of NaN and infinity.

Maxima are taken of bit patterns: numbers that are not negative have their order, NaN lies above infinity, and the integer
maximum over threads and blocks is the same in any order.
"""

from pitsolve.backends.cuda.launch import cuda
from pitsolve.compile import constant, inline

BITS = constant("BITS")  # the integer of as many bits as a number has

NEVER = 0x7fffffff  # later than every step
_ALL = 0xffffffff  # threads of a warp
LIMIT = 1e8  # bound on repaired iterates, as in the authors' code of DEER


@inline
def relative(value, state):
    """|value| / max(1, |state|)."""
    size, scale = abs(value), abs(state)
    return size / scale if scale > 1.0 else size


@inline
def largest(one, other):
    """The larger of two sizes; NaN if one is NaN."""
    return other if other > one or other != other else one


@inline
def repaired(state):
    """NaN becomes 0, everything is clipped to +-1e8."""
    if state != state:
        state = 0.0
    return min(max(state, -LIMIT), LIMIT)


@inline
def write_record(record, b, batch, defect, change, first):
    """Add what a thread has seen of sequence b to ``record``: (3, batch) integers, the largest defect and the largest change
    as bits and the first step beyond the tolerance. All threads of a warp call it, those without work with 0, 0, NEVER.
    """
    defect, change = defect.view(BITS), change.view(BITS)
    alone = not cuda.all_sync(_ALL, b == cuda.shfl_sync(_ALL, b, 0))
    for bit in range(5):
        other_defect = cuda.shfl_xor_sync(_ALL, defect, 1 << bit)
        other_change = cuda.shfl_xor_sync(_ALL, change, 1 << bit)
        other_first = cuda.shfl_xor_sync(_ALL, first, 1 << bit)
        if not alone:
            defect, change, first = max(defect, other_defect), max(change, other_change), min(first, other_first)
    if alone or cuda.threadIdx.x & 31 == 0:
        # Most find that they have nothing to add; whoever reads an old value at worst adds nothing.
        if defect > record[b]:
            cuda.atomic.max(record, b, defect)
        if change > record[batch + b]:
            cuda.atomic.max(record, batch + b, change)
        if first < record[2 * batch + b]:
            cuda.atomic.min(record, 2 * batch + b, first)
