"""Compilation, memory and launches on a CUDA device: the place that names numba.cuda, with the flags of its compiler.

Kernels are written as on the CPU: plain functions whose varying names are placeholders, marked by ``kernel`` and ``inline``.
:func:`specialise` binds the names. Two things differ. Every function that a kernel reaches becomes a device function of its
own. And every floating-point literal becomes a number of the kernel's dtype: Numba types ``1.0 - z`` as float64, which costs a
float32 kernel a factor of 32 to 64 on most cards.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import math
import os
import threading
import types
from collections.abc import Callable, Iterator

import numba
import numpy as np
from numba import cuda

from pitsolve.backends.cuda import mathematics, memory, simulated
from pitsolve.compile import copy_with, fingerprint, names_in

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
WARP = 32
if SIMULATED:
    from pitsolve.backends.cuda import simulator

    simulator.complete()
elif getattr(cuda, "implementation", None) == "NVIDIA":
    from numba.cuda.core import config

    # Small problems have small grids, and users can do nothing about it; a filter of warnings would not outlive pytest's.
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
_REMEMBERED, _REMEMBERED_BYTES = 64, 1 << 16  # lengths and windows of a call, which every launch of it needs
# Multiply-adds are fused in any case; any fastmath flag would turn tanh and division into their crude forms.
_FLAGS = {"fastmath": False}
_CACHED = {} if SIMULATED else {"cache": True}
_one_by_one = threading.RLock()  # threads that make Numba start the driver, or load a kernel of its cache, at once get errors


class Kernel:
    """A kernel with its constants bound; it is compiled when it is first launched."""

    def __init__(self, function: types.FunctionType, name: str, dtype: np.dtype, bounds: tuple[int, int] | None):
        self.function, self.name, self.dtype, self.bounds = function, name, dtype, bounds

    @functools.cached_property
    def compiled(self) -> Callable:
        options = {} if self.bounds is None or SIMULATED else {"launch_bounds": self.bounds}
        return cuda.jit(self.function, **_FLAGS, **_CACHED, **options)

    def __call__(self, blocks: int | tuple[int, ...], threads: int, *arguments) -> None:
        """Run on ``blocks`` of ``threads`` threads: whole numbers go as int32 if they fit, others in the kernel's dtype."""
        if math.prod(blocks) if isinstance(blocks, tuple) else blocks:
            device().launch(self, blocks, threads, tuple(map(self._argument, arguments)))

    def _argument(self, value: object) -> object:
        if isinstance(value, (bool, int)):
            return np.int32(value) if value < 1 << 31 else np.int64(value)
        return self.dtype.type(value) if isinstance(value, float) else value


class Device:
    """The card of the calling thread: memory, copies and launches, all on one stream."""

    def __init__(self, stream: object = 0):
        self.stream = stream
        self._indices = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype):
        """Unspecified memory; a MemoryError says what was asked for and what there is."""
        array = self._allocated(shape, dtype)
        if array is None:
            gc.collect()  # Numba's compiler leaves cycles that hold the arrays of the first call
            array = self._allocated(shape, dtype)
        if array is None:
            free = cuda.current_context().get_memory_info().free
            wanted = math.prod(shape) * np.dtype(dtype).itemsize
            raise MemoryError(f"the CUDA device has {free / 2**20:.0f} MiB free, and an array of shape {tuple(shape)} and "
                              f"dtype {np.dtype(dtype)} takes {wanted / 2**20:.0f} MiB; shorter or fewer sequences, float32 "
                              "or a smaller max_memory would fit")
        return array

    def _allocated(self, shape: tuple[int, ...], dtype: np.dtype):
        """Unspecified memory, None where there is no room."""
        try:
            return cuda.device_array(shape, dtype, stream=self.stream)
        except Exception as error:
            if "OUT_OF_MEMORY" not in str(error).upper().replace(" ", "_"):
                raise
            return None

    def preset(self, array) -> None:
        """Every bit of an array to one."""
        if SIMULATED:
            array.copy_to_device(np.full(array.shape, -1, np.int8 if array.dtype.itemsize == 1 else f"i{array.dtype.itemsize}")
                                 .view(array.dtype))
        else:
            from numba.cuda.cudadrv import driver

            driver.device_memset(array, 0xff, array.nbytes, self.stream)

    def upload(self, host: np.ndarray):
        """A copy of an array of the host; a MemoryError where there is no room."""
        host = np.ascontiguousarray(host)
        array = self.empty(host.shape, host.dtype)
        if host.size:
            array.copy_to_device(host, stream=self.stream)
        return array

    def indices(self, host: np.ndarray):
        """Whole numbers below 2^31, as int32; the same few numbers, asked for again, are not copied again."""
        if host.nbytes > _REMEMBERED_BYTES:
            return self.upload(host.astype(np.int32))
        key = host.shape, host.tobytes()
        if key not in self._indices:
            if len(self._indices) >= _REMEMBERED:
                del self._indices[next(iter(self._indices))]
            self._indices[key] = self.upload(host.astype(np.int32))
        return self._indices[key]

    def download(self, array) -> np.ndarray:
        """A host copy, once all that was launched before is done."""
        host = array.copy_to_host(stream=self.stream)
        if self.stream:
            self.stream.synchronize()
        return host

    def launch(self, kernel: Kernel, blocks: int | tuple[int, ...], threads: int, arguments: tuple) -> None:
        with _one_by_one:
            kernel.compiled[blocks, threads, self.stream](*arguments)

    @functools.cached_property
    def multiprocessors(self) -> int:
        return 1 if SIMULATED else cuda.get_current_device().MULTIPROCESSOR_COUNT


_chosen = contextvars.ContextVar("device", default=Device())  # noqa: B039  (every thread without a choice shares it)


def device() -> Device:
    """Where everything runs now."""
    return _chosen.get()


@contextlib.contextmanager
def on(chosen: Device) -> Iterator[Device]:
    """Run on another device or stream inside the block."""
    token = _chosen.set(chosen)
    try:
        yield chosen
    finally:
        _chosen.reset(token)


_specialised: dict[tuple, Kernel] = {}


def specialise(function: Callable, dtype: np.dtype, bounds: tuple[int, int] | None = None, **constants: object) -> Kernel:
    """The kernel ``function`` with the given names bound and its literals in ``dtype``.

    ``REAL`` is bound to the Numba type of ``dtype``. Functions among the constants (the gates of a cell, a user's step) and
    functions of any module that a kernel calls by a global name become device functions. ``bounds`` are the launch bounds:
    threads of a block and blocks that shall fit a multiprocessor. Calls with equal arguments return the same object.
    """
    dtype = np.dtype(dtype)
    identity = (function, dtype, bounds, *constants.items())
    if identity not in _specialised:
        bound = {**constants, "REAL": getattr(numba, dtype.name)}
        key = fingerprint({**constants, "REAL": dtype.name, "BOUNDS": bounds})
        copy = _Narrowed(dtype).function(function, bound, f"{function.__name__}_{key}")
        _specialised[identity] = Kernel(copy, f"{function.__module__.rpartition('.')[2]}.{function.__name__}", dtype, bounds)
    return _specialised[identity]


class _Narrowed:
    """Copies of functions in which literals are numbers of one dtype and callees are device functions."""

    def __init__(self, dtype: np.dtype):
        self.dtype, self.done = dtype, {}

    def function(self, function: types.FunctionType, constants: dict, qualname: str) -> types.FunctionType:
        """Such a copy, with ``constants`` bound in it and in all functions of the package that it calls."""
        names = {}
        for name in names_in(function.__code__):
            if name in constants:
                names[name] = self.value(constants[name], {})
            elif name in function.__globals__ and name != "cuda":
                names[name] = self.value(function.__globals__[name], constants)
        copy = copy_with(function, names, qualname)
        copy.__code__ = self._literals(copy.__code__)
        if function.__closure__:
            cells = tuple(types.CellType(self.value(cell.cell_contents, {})) for cell in function.__closure__)
            copy = types.FunctionType(copy.__code__, copy.__globals__, copy.__name__, copy.__defaults__, cells)
            copy.__qualname__, copy.__module__ = qualname, function.__module__
        return copy

    @functools.cached_property
    def mathematics(self) -> types.ModuleType:
        """``math`` with the tanh of the card in float32; in float64 the simulator needs one that takes complex numbers."""
        module = types.ModuleType("math")
        own = {"tanh": self.value(mathematics.tanh, {})} if self.dtype == np.float32 else simulated.MATHEMATICS
        vars(module).update({**vars(math), **own})
        return module

    def value(self, value: object, constants: dict) -> object:
        """What a name is bound to in a kernel."""
        if value is math and (SIMULATED or self.dtype == np.float32):
            return self.mathematics
        plain = getattr(value, "py_func", value)
        if isinstance(plain, types.FunctionType) and plain.__module__ != "pitsolve.backends.cuda.intrinsics":
            if plain in memory.TWINS:
                return memory.TWINS[plain]
            identity = (plain, bool(constants))
            if identity not in self.done:
                copy = self.function(plain, constants, plain.__qualname__)
                needs_device = not SIMULATED or "cuda" in names_in(copy.__code__)
                self.done[identity] = cuda.jit(copy, device=True, **_FLAGS) if needs_device else copy
            return self.done[identity]
        if isinstance(value, float):
            return self.dtype.type(value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value.astype(self.dtype)
        return value

    def _literals(self, code: types.CodeType) -> types.CodeType:
        def narrow(constant: object) -> object:
            if isinstance(constant, tuple):
                return tuple(map(narrow, constant))
            return self.dtype.type(constant) if isinstance(constant, float) else constant

        return code.replace(co_consts=tuple(map(narrow, code.co_consts)))


def unavailable() -> str | None:
    """Why nothing can run here, in a sentence for users; None if it can."""
    if SIMULATED:
        return None
    if getattr(cuda, "implementation", None) != "NVIDIA":
        return "the package numba-cuda is not installed: pip install 'pitsolve[cuda]'"
    with _one_by_one:
        available = cuda.is_available()
    if not available:
        return "there is no CUDA device that Numba can use here (numba -s shows what it finds)"
    return None


def blocks_for(items: int, threads: int) -> int:
    """Blocks of ``threads`` threads that hold so many items."""
    return -(-items // threads)
