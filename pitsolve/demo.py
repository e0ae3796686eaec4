"""The demo: a GRU on one long sequence, evaluated and differentiated by every method, in one table and one figure."""

from __future__ import annotations

import statistics
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pitsolve.cells.gru import GRU
from pitsolve.demo_input import UserError, read, sequence, signal
from pitsolve.gradient import gradient
from pitsolve.solution import Solution, Status
from pitsolve.solve import METHODS, default_tolerance, solve

_STEPS = 16384
_SEED = 20417
_REPEATS, _FEWEST, _ENOUGH = 15, 3, 2.0  # repeats end early, after three, once they have taken two seconds
_FIGURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class _Run:
    """One method: what it found, seconds, and times over those of the sequential loop that ran in turns with it."""

    solution: Solution
    gradient: dict[str, np.ndarray]
    first: float
    forward: float
    both: float
    forward_ratio: float
    both_ratio: float


# ---------------------------------------------------------------------------------------------------------- measurement


class _Progress:
    """A bar on a terminal where tqdm is installed, else a line before each first call; table rows pass in between."""

    def __init__(self, total: int):
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar = None
        else:
            bar = tqdm(total=total, unit="call", leave=False, disable=None)  # None: only on a terminal
            self._bar = None if bar.disable else bar

    def begin(self, method: str) -> None:
        if self._bar is None:
            print(f"... {method}: the first call compiles what is not in the cache", file=sys.stderr, flush=True)
        else:
            self._bar.set_description(f"{method} (compiling)")

    def compiled(self, method: str) -> None:
        if self._bar is not None:
            self._bar.set_description(f"{method} (timing)")
        self.advance()

    def advance(self, calls: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(calls)

    def row(self, text: str) -> None:
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _call(cell: GRU, params: dict, x: np.ndarray, method: str) -> tuple[Solution, dict, float, float]:
    """States, gradient of the mean square of the states, seconds of the first and of both."""
    begin = time.perf_counter()
    solution = solve(cell, params, x, method=method)
    if solution.status is Status.OVERFLOW:
        raise UserError("the GRU overflows on this sequence; scale the values down")
    middle = time.perf_counter()
    by_params = gradient(cell, params, x, solution, solution.states * np.float32(2.0 / solution.states.size)).params
    return solution, by_params, middle - begin, time.perf_counter() - begin


def _measure(cell: GRU, params: dict, x: np.ndarray, method: str, progress: _Progress) -> _Run:
    progress.begin(method)
    solution, by_params, _, first = _call(cell, params, x, method)
    progress.compiled(method)
    times, ratios = [], []
    begin = time.perf_counter()
    while len(times) < _REPEATS and (len(times) < _FEWEST or time.perf_counter() - begin < _ENOUGH):
        # In turns, so that what else the machine does slows both alike.
        ours = _call(cell, params, x, method)[2:]
        loop = ours if method == "sequential" else _call(cell, params, x, "sequential")[2:]
        times.append(ours)
        ratios.append([mine / its for mine, its in zip(ours, loop, strict=True)])
        progress.advance()
    progress.advance(_REPEATS - len(times))
    medians = [statistics.median(column) for table in (times, ratios) for column in zip(*table, strict=True)]
    return _Run(solution, by_params, first, *medians)


# ---------------------------------------------------------------------------------------------------------------- table

_COLUMNS = "{:11s}{:>4s}{:>9s}{:>8s}{:>9s}{:>9s}{:>8s}{:>9s}{:>8s}{:>7s}"
_HEADER = "\n".join(_COLUMNS.format(*words).rstrip() for words in (
    ("", "", "", "", "gradient", "forward", "", "+gradient", "", "first"),
    ("method", "iter", "residual", "error", "error", "ms", "ratio", "ms", "ratio", "call s")))

_LEGEND = """error: largest difference of a state from sequential, and of the gradient, relative
ratio: time over that of the sequential loop, run in turns; medians of a few calls
first call: forward and gradient, with compiling or loading from the cache"""


def _difference(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """Largest difference of two gradients over the largest entry; NaN where huge inputs make a gradient infinite."""
    with np.errstate(invalid="ignore"):
        scale = max(float(np.abs(value).max(initial=0.0)) for value in reference.values())
        largest = max(float(np.abs(ours[name] - value).max(initial=0.0)) for name, value in reference.items())
    return largest / scale if scale else largest


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100.0 else f"{value:.0f}"


def _row(run: _Run, reference: _Run) -> str:
    solution = run.solution
    error = float(np.abs(solution.states - reference.solution.states).max())
    accuracy = ["-"] * 4
    if run is not reference:
        accuracy = [f"{solution.iterations}", f"{solution.residual:.1e}", f"{error:.1e}",
                    f"{_difference(run.gradient, reference.gradient):.1e}"]
    text = _COLUMNS.format(
        solution.method, *accuracy, f"{1e3 * run.forward:.1f}", _ratio(run.forward_ratio),
        f"{1e3 * run.both:.1f}", _ratio(run.both_ratio), f"{run.first:.1f}")
    if solution.status is Status.FALLBACK:
        text += f"\n           did not converge; sequential from step {solution.resumed_at} on"
    return text


def _count(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def _conclusion(runs: dict[str, _Run], threads: int) -> str:
    """What the table says, from its numbers only."""
    parallel = [name for name in runs if name != "sequential"]
    best = min(parallel, key=lambda name: runs[name].forward_ratio)
    ratio = runs[best].forward_ratio
    best_both = min(runs, key=lambda name: runs[name].both_ratio)
    with_gradient = f"With the gradient the fastest was {best_both}."
    if ratio < 1.0:
        return f"Fastest forward here: {best}, {1.0 / ratio:.2f} times as fast as the sequential loop. {with_gradient}"
    rounds = max(1, int(runs[best].solution.iterations))
    return (f"Fastest forward here: the sequential loop. The next, {best}, took {ratio:.2f} times as long: it went over the "
            f"whole sequence {rounds} times at {ratio / rounds:.2f} of the loop each, which {_count(threads)} cannot make "
            f"up for. {with_gradient}")


# --------------------------------------------------------------------------------------------------------------- figure


def _plot(runs: dict[str, _Run], path: Path, title: str) -> str:
    """Write the convergence histories; returns what to tell the user."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return 'No figure: matplotlib is not installed; pip install "pitsolve[plot]" brings it.'
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    marked = (run.solution for name, run in runs.items() if name != "sequential")
    for marker, solution in zip("osD^vP<>X*", marked, strict=False):
        history = np.where(np.isfinite(solution.residuals) & (solution.residuals > 0), solution.residuals, np.nan)
        axes.plot(history, marker=marker, markersize=4, linewidth=1.2, label=solution.method)
    tol = default_tolerance(np.dtype(np.float32))
    axes.axhline(tol, color="black", linestyle="--", linewidth=1.0, label=f"tolerance {tol:.1e}")
    axes.set(yscale="log", xlabel="iteration", ylabel="residual  max |h - f(h)| / max(1, |h|)", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        return f"No figure: {path} cannot be written ({error.strerror})."
    return f"Convergence histories: {path.resolve()}"


def demo(steps: int | None = None, hidden: int = 32, source: str | None = None, key: str | None = None,
         plot: str = "pitsolve-demo.png") -> None:
    """Print the table of every method on one sequence, and write the figure if matplotlib is installed.

    Parameters
    ----------
    steps : int, optional
        Length of the generated sequence, 16,384 by default, or of the part of the user's that is taken (all of it).
    hidden : int
        Units of the GRU.
    source, key : str, optional
        An .npz or .npy file with an array (T, m) or (N, T, m), and the name of the array in an .npz file.
    plot : str
        Path of the figure: .png, .pdf or .svg.

    Raises
    ------
    UserError
        If the file, the array in it or the path of the figure cannot be used.
    """
    import numba

    path = Path(plot)
    if path.suffix.lower() not in _FIGURES:
        raise UserError(f"--plot must end in {', '.join(_FIGURES)}, got {plot!r}")
    if not path.parent.is_dir():
        raise UserError(f"--plot: there is no folder {path.parent}")
    if source is None:
        if key is not None:
            raise UserError("--key needs --input")
        x, name = signal(steps or _STEPS), "a generated signal"
    else:
        x, name = read(Path(source), key)
        x = sequence(x, name, steps)
    cell = GRU(input_size=x.shape[1], hidden_size=hidden)
    params = cell.init(seed=_SEED, dtype=np.float32)
    threads = numba.get_num_threads()
    setting = f"GRU of {hidden} units on {len(x):,} steps of {x.shape[1]} channels"
    print(f"{setting}: {name}; float32, {_count(threads)}\n\n{_HEADER}", flush=True)
    runs = _table(cell, params, x)
    print(f"\n{_LEGEND}\n\n{textwrap.fill(_conclusion(runs, threads), 88)}\n{_plot(runs, path, setting)}")


def _table(cell: GRU, params: dict, x: np.ndarray) -> dict[str, _Run]:
    """Run every method, sequential first, and print each row when it is ready."""
    methods = sorted(set(METHODS) - {"auto"}, key=lambda method: (method != "sequential", METHODS.index(method)))
    progress = _Progress(len(methods) * (1 + _REPEATS))
    runs: dict[str, _Run] = {}
    try:
        for method in methods:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of a model that overflows; reported below
                run = _measure(cell, params, x, method, progress)
            runs[method] = run
            progress.row(_row(run, runs["sequential"]))
    finally:
        progress.close()
    return runs
