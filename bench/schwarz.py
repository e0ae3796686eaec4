"""Least squares in time by windows against direct solvers: SciPy's banded and sparse ones, and smoothers in covariance form.

The problem of all is the smoother of a random stable state-space model of n states, observed by n/2 numbers at every second
step; float64. Comparisons on one thread limit BLAS to one as well.
"""

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

import pitsolve as ps
from bench import machine, schwarz_peers
from pitsolve.leastsquares.iteration import Options, Schwarz
from pitsolve.leastsquares.windows import Chain, equal_boundaries

SIZES, STEPS = (2, 8, 32), (10_000, 100_000)
OVERLAP, SWEEP_TARGET = 4, 1.0
SLOW, FEW = 1.0, 5  # seconds from which a call is timed a few times only
MOST_MEMORY = 0.6  # part of the free memory that a peer may take
TOLERANCE = 1e-10  # on the estimated error, the default in float64
MOST_ITERATIONS = 400  # after which windows have lost
MEMORIES = {"short memory": {"radius": 0.9, "every": 2, "process": 0.1},
            "long memory": {"radius": 0.99, "every": 8, "process": 0.001}}
VARIANTS = {"dirichlet, overlap 4": {"overlap": 4}, "dirichlet, overlap 16": {"overlap": 16},
            "schur, overlap 4, 1 sweep": {"overlap": 4, "transmission": "schur", "sweeps": 1},
            "schur, overlap 4, 4 sweeps": {"overlap": 4, "transmission": "schur", "sweeps": 4}}
COLOURS = ("#1f77b4", "#17becf", "#d62728", "#ff7f0e")


class Case(schwarz_peers.Case):
    """The model and its least-squares problem."""

    def __init__(self, n: int, steps: int, **options: Any):
        super().__init__(n, steps, **options)
        self.problem = ps.leastsquares.BlockTridiagonal(*self.blocks)

    def chain(self, windows: int, overlap: int = OVERLAP) -> Chain:
        return Chain(equal_boundaries(self.steps, windows), overlap)

    def solve(self, windows: int, **options: Any) -> ps.leastsquares.SchwarzSolution:
        return ps.schwarz_lstsq(self.problem, windows, **options)


@contextlib.contextmanager
def threads(count: int) -> Iterator[int]:
    """So many threads for Numba, as far as there are, and one for BLAS where threadpoolctl is installed."""
    before, count = numba.get_num_threads(), min(count, numba.config.NUMBA_NUM_THREADS)
    with contextlib.ExitStack() as stack:
        if machine.version("threadpoolctl"):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(1, "blas"))
        numba.set_num_threads(count)
        stack.callback(numba.set_num_threads, before)
        yield count


def _visits(call: Callable[[], Any], repeats: int) -> int:
    """Fewer repeats for a call that is slow."""
    call()
    begin = time.perf_counter()
    call()
    return repeats if time.perf_counter() - begin < SLOW else min(repeats, FEW)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    return machine.median_time(call, _visits(call, repeats)).median


def _fastest(case: Case, repeats: int) -> tuple[str, Callable[[], np.ndarray], dict[str, Any]]:
    """SciPy's faster solver on one thread, the times of both, or why one was left out."""
    makers = {"solveh_banded": schwarz_peers.by_bands, "splu": schwarz_peers.by_sparse_factors}
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    details, calls = {}, {}
    for name, need in schwarz_peers.scipy_bytes(case.n, case.steps).items():
        if need > MOST_MEMORY * free:
            details[name] = f"left out: needs {need / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
            continue
        calls[name] = makers[name](case.blocks)
        details[f"{name}_ms"] = 1e3 * _seconds(calls[name], min(repeats, 3))
    if not calls:
        return "", None, details
    best = min(calls, key=lambda name: details[f"{name}_ms"])
    return best, calls[best], details


def _direct_rows(n: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Factorisation and one sweep, one window, and two windows on two threads, against direct solvers on one thread."""
    case, label, rows = Case(n, steps), f"n={n} T={steps}", []
    chain = case.chain(2)
    with threads(1):
        name, theirs, details = _fastest(case, repeats)
        reason, unit = "no SciPy solver fits into memory", f"x {name or 'SciPy'}"
        visits = _visits(lambda: case.solve(1), repeats)
        exact = case.solve(1).solution
        difference = None if theirs is None else float(np.abs(theirs() - exact).max())
        rows.append(machine.versus(f"factors and one sweep, 2 windows, 1 thread {label}",
                                   lambda: Schwarz(case.problem, chain, Options()).sweep(), theirs, unit, visits,
                                   target=SWEEP_TARGET, reason=reason, **details))
        rows.append(machine.versus(f"one window, 1 thread {label}", lambda: case.solve(1), theirs, unit, visits,
                                   reason=reason, difference=difference))
        smoother = schwarz_peers.Smoother(case, 1)
        rows.append(machine.versus(f"one window, 1 thread {label}", lambda: case.solve(1), smoother.call, "x Kalman and RTS",
                                   visits, difference=float(np.abs(smoother.call() - exact).max())))
    with threads(2) as count:
        found = case.solve(2)
        rows.append(machine.versus(
            f"2 windows, {count} threads {label}", lambda: case.solve(2), theirs, unit, visits, reason=reason,
            iterations=found.iterations, difference=float(np.abs(found.solution - exact).max())))
        rows.append(machine.versus(f"2 windows, {count} threads {label}", lambda: case.solve(2), lambda: case.solve(1),
                                   "x one window", visits, iterations=found.iterations))
    return rows


class Times(NamedTuple):
    """Seconds on one thread: factors (and set-up sweeps) of all windows, the first sweep, the whole iteration."""

    factors: float
    first: float
    whole: float
    iterations: int

    @property
    def later(self) -> float:
        """One of the later sweeps, which visit only the steps that news from neighbours reaches."""
        return (self.whole - self.first) / max(1, self.iterations - 1)


def _times(case: Case, windows: int, repeats: int, overlap: int = OVERLAP, sweeps: int = 0, **_: Any) -> Times:
    """Every timed iteration starts from zero: a sweep after the last one has nothing to do and would take no time."""
    schwarz, zero = Schwarz(case.problem, case.chain(windows, overlap), Options(sweeps=sweeps)), np.zeros_like(case.problem.rhs)

    def first():
        schwarz.start(zero)
        schwarz.sweep()

    def whole():
        return schwarz.run(zero, TOLERANCE, MOST_ITERATIONS)

    factors = _seconds(lambda: Schwarz(case.problem, schwarz.chain, Options(sweeps=sweeps)), repeats)
    return Times(factors, _seconds(first, repeats), _seconds(whole, repeats), whole().iterations)


def _iteration_rows(n: int, lengths: tuple[int, ...], counts: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Times of an iteration, on one thread, for many lengths and for many numbers of windows."""
    rows, seconds = [], []
    with threads(1):
        for steps, windows in [(steps, 8) for steps in lengths] + [(lengths[-1], windows) for windows in counts]:
            times, total = _times(Case(n, steps), windows, repeats), steps + (windows - 1) * OVERLAP
            if windows == 8:
                seconds.append(times.first)
            rows.append(machine.row(f"first sweep n={n} T={steps} p={windows}", 1e9 * times.first / total, "ns a step",
                                    ms=1e3 * times.first, factors_ms=1e3 * times.factors))
            rows.append(machine.row(f"later sweeps n={n} T={steps} p={windows}", 1e6 * times.later / windows, "us a window",
                                    ms=1e3 * times.later, iterations=times.iterations))
    growth = float(np.polyfit(np.log(lengths), np.log(seconds[:len(lengths)]), 1)[0])
    return [*rows, machine.row("first sweep: exponent of T, 1 is linear", growth, "", lengths=lengths)]


def _message_rows(n: int, steps: int) -> list[dict[str, Any]]:
    """Bytes that cross one interface in one direction, against the formula."""
    case, rows = Case(n, steps), []
    variants = {"dirichlet": ({}, 1), "schur": ({"transmission": "schur"}, 1), "mu = 1": ({"mu": 1.0}, OVERLAP + 1),
                "split": ({"formulation": "split"}, OVERLAP + 1)}
    for name, (options, values) in variants.items():
        for windows in (2, 8):
            found = case.solve(windows, overlap=OVERLAP, max_iter=3, on_failure="warn", **options)
            rows.append(machine.row(f"{name} n={n} T={steps} p={windows} s={OVERLAP}", found.bytes_per_interface, "bytes",
                                    8.0 * n * values, smaller=True))
    return rows


def _exact_model(case: Case, windows: int, repeats: int) -> float:
    """Seconds of the exact smoother on so many processors: phases of all blocks divided, joins by a tree."""
    smoother = schwarz_peers.Smoother(case, windows)
    smoother.call()
    at_once = sum(_seconds(phase, repeats) for phase in (smoother.forward, smoother.middle, smoother.backward))
    joins = sum(_seconds(phase, repeats) for phase in (smoother.join, smoother.join_back)) if windows > 1 else 0.0
    return (at_once + 2 * math.ceil(math.log2(windows)) * joins) / windows


def _scaling(memory: str, n: int, steps: int, counts: list[int], repeats: int) -> dict[str, Any]:
    """Predicted seconds on p processors, one window each, for every variant; messages cost nothing in this model."""
    case, lines = Case(n, steps, **MEMORIES[memory]), {}
    with threads(1):
        one = _seconds(lambda: Schwarz(case.problem, case.chain(1, 0), Options()).sweep(), repeats)
        exact = [_exact_model(case, windows, repeats) for windows in counts]
        for name, options in VARIANTS.items():
            points = []
            for windows in counts[1:]:
                found = case.solve(windows, tol=TOLERANCE, max_iter=MOST_ITERATIONS, on_failure="warn", **options)
                if found.status is not ps.leastsquares.SchwarzStatus.CONVERGED:
                    continue
                times = _times(case, windows, repeats, **options)
                points.append({"windows": windows, "iterations": times.iterations,
                               "seconds": (times.factors + times.whole) / windows, **times._asdict()})
            lines[name] = points
    return {"memory": memory, "n": n, "steps": steps, "one_window": one, "sequential_smoother": exact[0],
            "exact_smoother": [{"windows": windows, "seconds": taken} for windows, taken in zip(counts, exact, strict=True)],
            "windows": lines}


def _scaling_rows(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Speed-ups over the faster of the sequential solvers."""
    base = min(model["one_window"], model["sequential_smoother"])
    curves = {**model["windows"], "exact smoother": model["exact_smoother"]}
    return [machine.row(f"{model['memory']}: {name} p={point['windows']}", base / point["seconds"], "x sequential (model)",
                        iterations=point.get("iterations")) for name, points in curves.items() for point in points]


def _curve(points: list[dict[str, Any]], base: float) -> tuple[list[int], list[float]]:
    return [point["windows"] for point in points], [base / point["seconds"] for point in points]


def figure(models: list[dict[str, Any]], path: Path) -> None:
    """Speed-ups of the model against the number of processors."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    for axis, model in zip(axes, models, strict=True):
        base = min(model["one_window"], model["sequential_smoother"])
        for colour, (name, points) in zip(COLOURS, model["windows"].items(), strict=True):
            axis.loglog(*_curve(points, base), ".-", color=colour, label=name, base=2)
        axis.loglog(*_curve(model["exact_smoother"], base), "k.--", label="exact smoother in blocks", base=2)
        axis.axhline(base / model["one_window"], color="black", linewidth=0.8, label="one window, sequential")
        axis.axhline(base / model["sequential_smoother"], color="black", linewidth=0.8, linestyle=":",
                     label="Kalman and RTS, sequential")
        settings = MEMORIES[model["memory"]]
        axis.set_title(f"{model['memory']}: spectral radius {settings['radius']}, Q = {settings['process']} I, "
                       f"observed every {settings['every']} steps", fontsize="small")
        axis.set_xlabel("processors = windows")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("speed-up over the faster sequential solver")
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    picture.suptitle(f"Model from times on one thread, messages free: n = {models[0]['n']}, T = {models[0]['steps']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=130)
    print(f"\nfigure: {path}")


def run(quick: bool, picture: Path | None = None) -> dict[str, Any]:
    """Against direct solvers; time of an iteration; messages; the model of scaling, and its figure."""
    repeats, sizes, lengths = (1, SIZES[:2], (2000,)) if quick else (9, SIZES, STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # runs that are cut short say so
        tables = {"direct": [line for n in sizes for steps in lengths for line in _direct_rows(n, steps, repeats)]}
        machine.print_table("windows against direct solvers", tables["direct"])
        tables["iterations"] = _iteration_rows(8, (1000, 2000) if quick else (10_000, 20_000, 50_000, 100_000),
                                               (2, 16) if quick else (2, 32, 128, 512), min(repeats, 5))
        machine.print_table("time of one iteration, 1 thread", tables["iterations"])
        tables["messages"] = [line for n in sizes for line in _message_rows(n, 2000)]
        machine.print_table("bytes an interface, direction and iteration", tables["messages"])
        counts = [1, 2, 4, 8, 16] if quick else [1, 2, 4, 8, 16, 64, 256, 1024]
        models = [_scaling(memory, 8, 2000 if quick else 100_000, counts, min(repeats, 3)) for memory in MEMORIES]
    tables["scaling"] = [line for model in models for line in _scaling_rows(model)]
    machine.print_table("model of strong scaling, n = 8: messages free", tables["scaling"])
    if picture is not None:
        figure(models, picture)
    return {"threadpoolctl": machine.version("threadpoolctl"), **tables, "models": models}
