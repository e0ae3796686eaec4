"""Kernels built for a card that is not there: what a verb would launch is recorded, compiled and linked as at run time.

The link is the one that numba-cuda does, of LTO code; the report of the assembler gives registers, stack and spills.
"""

import contextlib
import re
import types
from dataclasses import dataclass

import numpy as np
from cuda.bindings import nvjitlink
from cuda_registers import CEILINGS
from numba import cuda, from_dtype, typeof
from numba.cuda import dispatcher
from numba.types import Array

from pitsolve.backends.cuda import launch

ARCHITECTURES = ((8, 0), (9, 0))


class Recorder(launch.Device):
    """A device that keeps NumPy arrays and remembers launches without running them: all results are zero."""

    multiprocessors = 132

    def __init__(self):
        super().__init__()
        self.launches = {}

    def empty(self, shape, dtype):
        return np.zeros(shape, dtype)

    def preset(self, array):
        pass

    def upload(self, host):
        return np.ascontiguousarray(host)

    def download(self, array):
        return array.copy()

    def launch(self, kernel, blocks, threads, arguments):
        signature = tuple(_type(argument) for argument in arguments)
        self.launches[kernel.function.__qualname__, signature] = kernel, signature


def _type(argument):
    if isinstance(argument, np.ndarray):
        return Array(from_dtype(argument.dtype), argument.ndim, "C")
    return typeof(argument)


@dataclass
class Build:
    """What the assembler said about one kernel."""

    name: str
    registers: int
    stack: int
    spilled: int


@contextlib.contextmanager
def _pretend(capability):
    """Numba asks the current device for its architecture wherever a kernel calls a device function."""
    real = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = real


def _link(code, kind, capability, *options):
    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-verbose", *options]
    handle = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(handle, kind, code, len(code), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return log.decode()


def build(kernel, signature, capability):
    """Compile and link one kernel for one architecture."""
    options = {"fastmath": False} | ({"launch_bounds": kernel.bounds} if kernel.bounds else {})
    with _pretend(capability):
        codes, _ = cuda.compile_all(kernel.function, signature, cc=capability, device=False, abi="numba", output="ltoir",
                                     **options)
    log = _link(codes[0], nvjitlink.InputType.LTOIR, capability, "-lto")
    stack, stores, loads = map(int, re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log).groups())
    return Build(kernel.name, int(re.search(r"Used (\d+) registers", log)[1]), stack, stores + loads)


def ptx(kernel, signature, capability=(9, 0)):
    """The PTX of a kernel."""
    with _pretend(capability):
        return cuda.compile_ptx(kernel.function, signature, cc=capability)[0]


def doubles(kernel, signature, capability=(9, 0)):
    """Instructions with float64 in the PTX of a kernel."""
    return len(re.findall(r"\.f64\b", ptx(kernel, signature, capability)))


def record(verbs):
    """The launches of ``verbs()``, a function that calls verbs of the CUDA backend."""
    recorder = Recorder()
    with launch.on(recorder):
        verbs()
    assert recorder.launches
    return list(recorder.launches.values())


def check(verbs, capability, may_use_doubles=(), may_use_stack=()):
    """Every kernel that ``verbs()`` launches: no stack, no spills, registers within its ceiling, no hidden float64."""
    for kernel, signature in record(verbs):
        built = build(kernel, signature, capability)
        assert kernel.name in CEILINGS, built
        ceiling = CEILINGS[kernel.name][0 if kernel.dtype == np.float32 else 1]
        assert built.spilled == 0 and (built.stack == 0 or kernel.name in may_use_stack), built
        assert built.registers <= ceiling, built
        if kernel.dtype == np.float32 and kernel.name not in may_use_doubles and capability == ARCHITECTURES[0]:
            assert doubles(kernel, signature) == 0, built
