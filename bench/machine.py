"""What every benchmark needs: facts and limits of the machine, timers that a noisy machine does not bias, tables."""

import functools
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
import numpy as np

SETTLE = 0.2  # seconds after which the workers of OpenMP and BLAS have stopped spinning
BURST = 0.02  # seconds of calls in one visit of a timer, so that short functions are timed warm
PACKAGES = ("pitsolve", "numpy", "numba", "numba-cuda", "llvmlite", "jax", "torch")


class Timing(NamedTuple):
    """Seconds of one call: ``first`` is the first call of all, with compilation; the others come after it."""

    median: float
    minimum: float
    first: float


class Comparison(NamedTuple):
    """Two functions timed in turns; ``ratio`` is the median of theirs / ours over the turns."""

    ours: Timing
    theirs: Timing
    ratio: float


def version(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def simd_bits() -> int:
    """Width of the widest vector registers this processor has, in bits."""
    features = llvm.get_host_cpu_features()
    widths = {"avx512f": 512, "avx2": 256, "avx": 256}
    return max((bits for name, bits in widths.items() if features.get(name)), default=128)


def cpu_name() -> str:
    """The processor in words, or LLVM's name for it where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                llvm.get_host_cpu_name())


def blas_threads() -> int | None:
    """Threads of NumPy's BLAS, or None where threadpoolctl is not installed to ask."""
    if version("threadpoolctl") is None:
        return None
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=None)


def facts() -> dict[str, Any]:
    """Processor, cores, threads, SIMD width, versions and the load at this moment."""
    return {
        "cpu": cpu_name(),
        "target": llvm.get_host_cpu_name(),
        "cores": os.cpu_count(),
        "numba_threads": numba.get_num_threads(),
        "blas_threads": blas_threads(),
        "simd_bits": simd_bits(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version(package) or "not installed" for package in PACKAGES},
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _visit(f: Callable[[], Any], estimate: float) -> float:
    """Median seconds of the calls that fit in one burst, after the workers of whoever ran before have gone to sleep."""
    time.sleep(SETTLE)
    if estimate < BURST:
        f()  # wakes our own workers and fills the caches
    times = []
    while sum(times) < BURST:
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _first(f: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the first call, which compiles, and of the second, which does not."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return times[0], times[1]


def _timing(times: Sequence[float], first: float) -> Timing:
    return Timing(statistics.median(times), min(times), first)


def median_time(f: Callable[[], Any], repeats: int = 7) -> Timing:
    """Time one function.

    Parameters
    ----------
    f : callable
        Takes nothing; returns when its work is done.
    repeats : int
        Visits; each is a burst of calls after a pause of ``SETTLE`` seconds.

    Returns
    -------
    Timing
        Median and minimum over the visits; the first call of all apart.
    """
    first, second = _first(f)
    return _timing([_visit(f, second) for _ in range(repeats)], first)


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int = 7) -> Comparison:
    """Time two functions in turns A B A B, so that a machine that drifts slows both alike.

    Parameters
    ----------
    ours, theirs : callable
        Take nothing; return when their work is done.
    repeats : int
        Turns of each.

    Returns
    -------
    Comparison
        A timing of each and the median over the turns of theirs / ours: above 1 means that ours is faster.
    """
    (first_ours, second_ours), (first_theirs, second_theirs) = _first(ours), _first(theirs)
    pairs = [(_visit(ours, second_ours), _visit(theirs, second_theirs)) for _ in range(repeats)]
    times_ours, times_theirs = zip(*pairs, strict=True)
    ratio = statistics.median(b / a for a, b in pairs)
    return Comparison(_timing(times_ours, first_ours), _timing(times_theirs, first_theirs), ratio)


@functools.cache
def _copy_kernel() -> Callable[[np.ndarray, np.ndarray], None]:
    @numba.njit(parallel=True)
    def copy(source, target):
        for i in numba.prange(source.size):
            target[i] = source[i]

    return copy


def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copy a flat array on all threads."""
    _copy_kernel()(source, target)


def copy_bandwidth(elements: int = 10_000_000, repeats: int = 7) -> float:
    """Bytes per second of a float32 copy on all threads: 8 bytes an element, one read and one written."""
    source, target = np.ones(elements, np.float32), np.zeros(elements, np.float32)
    return 8 * elements / median_time(lambda: copy(source, target), repeats).median


def gemm_peak(size: int = 1536, dtype: type = np.float32, repeats: int = 5) -> float:
    """Floating-point operations per second of NumPy's product of two square matrices."""
    rng = np.random.default_rng(20931)
    left, right = (rng.normal(size=(size, size)).astype(dtype) for _ in range(2))
    out = np.empty((size, size), dtype)
    return 2 * size**3 / median_time(lambda: np.matmul(left, right, out=out), repeats).median


def row(name: str, measured: float | None, unit: str, target: float | None = None, *, smaller: bool = False,
        **details: Any) -> dict[str, Any]:
    """One line of a result: what was measured, what was hoped for, and whether it was met (``smaller`` is better?)."""
    if measured is None or target is None:
        verdict = "-"
    else:
        verdict = "met" if (measured <= target if smaller else measured >= target) else "missed"
    return {"name": name, "measured": measured, "unit": unit, "target": target, "verdict": verdict, **details}


def versus(name: str, ours: Callable[[], Any], theirs: Callable[[], Any] | None, unit: str, repeats: int, *,
           target: float | None = None, reason: str = "", **details: Any) -> dict[str, Any]:
    """A row that measures theirs / ours; without ``theirs`` it gives our time, and the ``reason``."""
    if theirs is None:
        ours_only = median_time(ours, repeats)
        return row(name, None, unit, target, peer=reason, ours_ms=1e3 * ours_only.median, **details)
    result = compare(ours, theirs, repeats)
    return row(name, result.ratio, unit, target, ours_ms=1e3 * result.ours.median, peer_ms=1e3 * result.theirs.median,
               ours_min_ms=1e3 * result.ours.minimum, peer_min_ms=1e3 * result.theirs.minimum, **details)


def _words(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows made by :func:`row`, the details of each as ``key=value`` at its end."""
    columns = ("name", "measured", "unit", "target", "verdict")
    cells = [[_words(line[column]) for column in columns]
             + ["  ".join(f"{key}={_words(value)}" for key, value in line.items() if key not in columns)]
             for line in rows]
    cells = [[*columns, "details"], *cells]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        print("  " + "  ".join([text.ljust(width) for text, width in zip(line, widths, strict=False)] + line[-1:]))


def write_json(name: str, result: dict[str, Any], folder: Path) -> Path:
    """Write ``folder/name.json`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def run(quick: bool) -> dict[str, Any]:
    """Facts, copy bandwidth and GEMM peak."""
    repeats = 3 if quick else 9
    rows = [row("copy bandwidth, float32", copy_bandwidth(repeats=repeats) / 1e9, "GB/s")]
    rows += [row(f"GEMM peak, {np.dtype(dtype).name}", gemm_peak(512 if quick else 2048, dtype, repeats) / 1e9,
                 "GFLOP/s") for dtype in (np.float32, np.float64)]
    for key, value in facts().items():
        print(f"  {key}: {value}")
    print_table("limits", rows)
    return {"rows": rows}
