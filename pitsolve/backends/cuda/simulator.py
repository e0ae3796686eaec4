"""What the CUDA simulator lacks: exchange between the threads of a warp, made of block barriers; aligned shared arrays.

The exchange is valid where every thread of a block reaches every call, which is the rule for kernels of this package.
"""

import sys
import threading

import numpy as np
from numba.cuda.simulator.cudadrv.devicearray import FakeShape
from numba.cuda.simulator.kernelapi import FakeCUDAModule, FakeCUDAShared


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


def _shared_array(self, shape, dtype, alignment=None):
    """The array of this line of the kernel; the first thread that comes makes it."""
    caller = sys._getframe(1)
    array = np.empty(shape, getattr(dtype, "name", dtype))
    return self._allocations.setdefault((caller.f_code, caller.f_lineno), array)


def complete() -> None:
    """Add all that to the simulator."""
    sys.setswitchinterval(1e-5)  # a barrier waits for every thread of a block to get its turn
    FakeShape.__getitem__ = tuple.__getitem__  # on the host, shapes take negative indices, as those of a card do
    FakeCUDAShared.array = _shared_array
    FakeCUDAModule.shfl_sync = _shuffle(lambda lane, source: source)
    FakeCUDAModule.shfl_up_sync = _shuffle(lambda lane, distance: lane - distance)
    FakeCUDAModule.shfl_down_sync = _shuffle(lambda lane, distance: lane + distance)
    FakeCUDAModule.shfl_xor_sync = _shuffle(lambda lane, distance: lane ^ distance)
    FakeCUDAModule.syncwarp = lambda self, mask=0xffffffff: threading.current_thread().syncthreads()
    FakeCUDAModule.ballot_sync = lambda self, mask, flag: sum(1 << lane for lane, on in enumerate(_of_warp(flag)) if on)
    FakeCUDAModule.all_sync = lambda self, mask, flag: all(_of_warp(flag))
    FakeCUDAModule.any_sync = lambda self, mask, flag: any(_of_warp(flag))
