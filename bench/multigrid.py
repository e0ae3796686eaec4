"""One V-cycle of multigrid in time against PyMGRIT and against NumPy vectorised over intervals, on an implicit GRU.

Setting of all: n = 32, 16 inputs, T = 1,024, 3 levels, coarsening 4, FCF relaxation, nested iteration, float64. A cycle is
timed with the residual norm that each of them evaluates after it.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pitsolve as ps
from bench import machine
from bench import multigrid_peers as peers

INPUTS, HIDDEN = 16, 32
FEW, MANY = 1, 9  # cycles of the two solves whose difference is timed
NEVER = 1e-300  # a tolerance that no residual meets
PYMGRIT_TARGETS = {1: 10.0, 32: 15.0}
NUMPY_TARGETS = {1: 3.0}
OPTIONS = {"levels": 3, "coarsening": 4, "cycle": "V", "relaxation": "FCF", "nested": True}
COLOURS = {"picard": "#7f7f7f", "deer": "#1f77b4", "quasi-deer": "#17becf", "elk": "#9467bd", "quasi-elk": "#e377c2",
           "shooting": "#2ca02c", "parareal": "#ff7f0e", "mgrit V": "#d62728", "mgrit F": "#8c564b"}


class Case:
    """An implicit GRU and its input; ``solve(k)`` makes k cycles."""

    def __init__(self, batch: int, steps: int, scale: float = 1.0):
        self.cell = ps.cells.ImplicitGRU(INPUTS, HIDDEN)
        self.params, self.x = peers.random_problem(batch, steps, INPUTS, HIDDEN, scale)

    def solve(self, cycles: int, **options: Any) -> ps.Solution:
        options = {"method": "mgrit", **OPTIONS, **options} if options.get("method", "mgrit") == "mgrit" else options
        return ps.solve(self.cell, self.params, self.x, max_iter=cycles, tol=NEVER, on_failure="warn", **options)

    def defect(self, states: np.ndarray) -> float:
        """max |h_t - f(h_{t-1}, x_t)| by NumPy, the same measure for every method."""
        previous = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
        from_x = np.split(self.x @ self.params["weight_ih"].T + self.params["bias_ih"], 3, axis=-1)
        from_h = np.split(previous @ self.params["weight_hh"].T + self.params["bias_hh"], 3, axis=-1)
        reset, update = (1 / (1 + np.exp(-from_x[i] - from_h[i])) for i in range(2))
        new = np.tanh(from_x[2] + reset * from_h[2])
        return float(np.abs(states - (previous + (1 - update) * new) / (2 - update)).max())


def _our_cycle(case: Case, repeats: int) -> float:
    """Seconds of one cycle, as the difference of solves with many cycles and with few, timed in turns."""
    times = machine.compare(lambda: case.solve(FEW), lambda: case.solve(MANY), repeats)
    return (times.theirs.median - times.ours.median) / (MANY - FEW)


def _numpy_history(case: Case) -> np.ndarray:
    """Residual norms after each of ``MANY`` cycles, for every sequence."""
    solver, history = peers.Vectorised(case.params, case.x), []
    for _ in range(MANY):
        solver.cycle()
        history.append(solver.residual_norm())
    return np.array(history)


def _numpy_cycle(case: Case) -> Callable[[], Any]:
    solver = peers.Vectorised(case.params, case.x)

    def call():
        solver.cycle()
        return solver.residual_norm()

    return call


def _pymgrit_cycle(case: Case) -> Callable[[], Any]:
    """A cycle of each sequence, one after the other: PyMGRIT knows no batches."""
    solvers = [peers.pymgrit(case.params, x) for x in case.x]

    def call():
        for solver in solvers:
            peers.pymgrit_cycle(solver)
        return [peers.pymgrit_residual(solver) for solver in solvers]

    return call


def _cycle_rows(batch: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    """One V-cycle against both peers."""
    case = Case(batch, steps)
    ours = _our_cycle(case, repeats)
    solution = case.solve(MANY)
    difference = float(np.abs(solution.residuals[1:] - _numpy_history(case)).max())
    rows = []
    for name, make, target in (("PyMGRIT", _pymgrit_cycle, PYMGRIT_TARGETS.get(batch)),
                               ("NumPy", _numpy_cycle, NUMPY_TARGETS.get(batch))):
        label = f"one V-cycle B={batch} T={steps} against {name}"
        try:
            theirs = machine.median_time(make(case), repeats)
        except ImportError as error:
            rows.append(machine.row(label, None, f"x {name}", target, peer=str(error), ours_ms=1e3 * ours))
        else:
            rows.append(machine.row(label, theirs.median / ours, f"x {name}", target, ours_ms=1e3 * ours,
                                    peer_ms=1e3 * theirs.median, residuals_differ_by=difference))
    return rows


def _solve_row(batch: int, steps: int, repeats: int) -> dict[str, Any]:
    """The whole solve against our own loop, which needs no cycles."""
    case = Case(batch, steps)
    arguments = case.cell, case.params, case.x
    solution = ps.solve(*arguments, method="mgrit", tol=1e-10, **OPTIONS)
    exact = ps.solve(*arguments, method="sequential")
    return machine.versus(
        f"solve to 1e-10 B={batch} T={steps}", lambda: ps.solve(*arguments, method="mgrit", tol=1e-10, **OPTIONS),
        lambda: ps.solve(*arguments, method="sequential"), "x sequential", repeats,
        cycles=int(solution.iterations.max()), error=float(np.abs(solution.states - exact.states).max()),
        depth=solution.work.depth, steps=solution.work.fine + solution.work.coarse)


def _curves(case: Case, most: int) -> dict[str, np.ndarray]:
    """For every method: rows (steps evaluated, critical path, residual), one for each number of iterations."""
    methods = {name: {"method": name} for name in ("picard", "deer", "quasi-deer", "elk", "quasi-elk")}
    methods |= {"shooting": {"method": "shooting", "window": 64}, "parareal": {"method": "parareal", "window": 64},
                "mgrit V": {}, "mgrit F": {"cycle": "F"}}
    curves = {}
    for name, options in methods.items():
        points = []
        for k in range(1, most + 1):
            solution = case.solve(k, **options)
            work, residual = solution.work, case.defect(solution.states)
            points.append((work.fine + work.coarse, work.depth, max(residual, 1e-17)))
            if residual < 1e-15 or solution.iterations.max() < k:
                break
        curves[name] = np.array(points)
    return curves


def figure(path: Path, steps: int = 1024, most: int = 40) -> None:
    """Residual against evaluations of f, and against the critical path, for all methods on two problems."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(2, 2, figsize=(11, 8), sharey=True, layout="constrained")
    for line, (scale, words) in zip(axes, ((1.0, "random weights"), (3.0, "recurrent weights x 3")), strict=True):
        for name, points in _curves(Case(1, steps, scale), most).items():
            for axis, column in zip(line, (0, 1), strict=True):
                axis.loglog(points[:, column] / steps, points[:, 2], "--" if "elk" in name else "-", marker=".", label=name,
                            color=COLOURS[name])
        line[0].set_ylabel("max residual")
        line[0].set_title(f"work, {words}")
        line[1].set_title(f"critical path, {words}")
        line[0].set_xlabel("steps evaluated / T, Jacobians and scans not counted")
        line[1].set_xlabel("steps one after the other / T")
        for axis in line:
            axis.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
            axis.grid(alpha=0.3)
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    picture.suptitle(f"Implicit GRU, n = {HIDDEN}, T = {steps}; dotted: the loop")
    picture.savefig(path, dpi=130)
    print(f"\nfigure: {path}")


def run(quick: bool, picture: Path | None = None) -> dict[str, Any]:
    """One V-cycle against the peers for one sequence and for 32, the whole solve against the loop, and the figure."""
    repeats, steps = (1, 256) if quick else (9, 1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # solves of a few cycles do not converge, and say so
        rows = [line for batch in (1, 32) for line in _cycle_rows(batch, steps, repeats)]
        machine.print_table("one V-cycle, with its residual norm", rows)
        solves = [_solve_row(batch, steps, repeats) for batch in (1, 32)]
        machine.print_table("the whole solve against our own sequential loop", solves)
        if picture is not None:
            figure(picture, steps)
    return {"pymgrit": machine.version("pymgrit"), "cycles": rows, "solves": solves}
