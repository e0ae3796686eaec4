"""What pitsolve runs on: versions, threads, vector width, cache of compiled code, CUDA device."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable

_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


def _versions() -> str:
    import llvmlite
    import numba
    import numpy

    import pitsolve

    return (f"pitsolve {pitsolve.__version__}, Python {platform.python_version()}, numpy {numpy.__version__}, "
            f"numba {numba.__version__}, llvmlite {llvmlite.__version__}")


def _threads() -> str:
    import numba
    import numpy as np

    from pitsolve.scan import affine_scan

    # Numba chooses the layer when the first parallel kernel starts.
    affine_scan(np.ones((4, 1)), np.ones((4, 1)))
    return f"{numba.get_num_threads()} of {os.cpu_count()} processors, threading layer {numba.threading_layer()}"


def _simd() -> str:
    from pitsolve.backends.cpu.simd import register_bytes

    return f"{8 * register_bytes()} bits: {register_bytes() // 4} float32 or {register_bytes() // 8} float64 at once"


def _cache() -> str:
    from pitsolve.backends.cpu import pointwise
    from pitsolve.compile import specialise

    return f"{specialise(pointwise.measure_rows).stats.cache_path} (NUMBA_CACHE_DIR moves it)"


def _driver_text(driver: ctypes.CDLL, code: int) -> str:
    """The driver's own words for an error code."""
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode()} (code {code})"


def _devices() -> list[str]:
    """Names of the CUDA devices that the driver sees; an OSError or RuntimeError says why there is none."""
    name = _DRIVERS.get(sys.platform)
    if name is None:
        raise OSError(f"there is no CUDA driver for {sys.platform}")
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        raise OSError(f"the NVIDIA driver is not installed ({name} not found)") from None
    count = ctypes.c_int()
    for code in (driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(count))):
        if code:
            raise RuntimeError(f"the NVIDIA driver reports: {_driver_text(driver, code)}")
    if count.value == 0:
        raise RuntimeError("the NVIDIA driver sees no device")
    names = []
    for number in range(count.value):
        device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceGetName(text, len(text), device)
        names.append(text.value.decode(errors="replace"))
    return names


def _cuda() -> str:
    try:
        seen = ", ".join(_devices())
    except (OSError, RuntimeError) as reason:
        seen = f"no device: {reason}"
    try:
        return f"{seen}; numba-cuda {importlib.metadata.version('numba-cuda')}"
    except importlib.metadata.PackageNotFoundError:
        return f"{seen}; numba-cuda is not installed (pip install 'pitsolve[cuda]')"


def _line(name: str, describe: Callable[[], str]) -> str:
    try:
        text = describe()
    except Exception as error:  # a report on a broken installation must still print its other lines
        text = f"unknown, {type(error).__name__}: {' '.join(str(error).split())}"
    return f"{name:10s}{text}"


def info() -> str:
    """The report of ``python -m pitsolve info``, one fact a line.

    Returns
    -------
    str

    Examples
    --------
    >>> from pitsolve.info import info
    >>> info().splitlines()[-1]
    'products  own kernels; solve, gradient and affine_scan do not use BLAS'
    """
    facts = {"versions": _versions, "machine": lambda: f"{platform.machine()}, {platform.platform()}", "threads": _threads,
             "vectors": _simd, "cache": _cache, "cuda": _cuda,
             "products": lambda: "own kernels; solve, gradient and affine_scan do not use BLAS"}
    return "\n".join(_line(name, describe) for name, describe in facts.items())
