"""Windows of time on GRUs in float32, input width = n: shooting against the loop and torch, all methods on many memories."""

import warnings
from typing import Any

import numpy as np

import pitsolve as ps
from bench import machine, peers

SEED = 20931
FORWARD_TARGETS = {8: 4.0, 16: 3.0, 32: 2.0, 64: 2.2, 128: 3.0}
GRADIENT_TARGETS = {8: 3.5, 16: 2.5, 32: 2.0, 64: 2.0, 128: 2.5}
TORCH_TARGETS = {8: 500.0, 16: 250.0, 32: 100.0, 64: 40.0, 128: 14.0}
BATCH_TARGET, PEAK_TARGET = 1.8, 0.6
MEMORIES = {"random": (0.0, 1.0), "x3": (0.0, 3.0), "+2": (2.0, 1.0), "+4": (4.0, 1.0), "+6": (6.0, 1.0)}
METHODS = {"shooting": {}, "shooting diagonal": {"correction": "diagonal"}, "parareal": {"window": 64},
           "mgrit": {"coarsening": 8, "tol": 1e-4}, "deer": {}, "quasi-deer": {}}
PATIENCE = 60  # iterations after which a method has lost


class Case:
    """A GRU and its input (B, T, n): default initialisation, the bias of the update gate and the recurrent weights changed."""

    def __init__(self, n: int, batch: int, steps: int, bias: float = 0.0, scale: float = 1.0):
        self.cell = ps.cells.GRU(n, n)
        self.params = self.cell.init(SEED, np.float32)
        self.params["bias_ih"][n:2 * n] += np.float32(bias)
        self.params["weight_hh"] *= np.float32(scale)
        rng = np.random.default_rng(SEED)
        self.x, self.dstates = (rng.standard_normal((batch, steps, n), np.float32) for _ in range(2))

    def solve(self, method: str, **options: Any) -> ps.Solution:
        return ps.solve(self.cell, self.params, self.x, method=method, **options)

    def both(self, method: str) -> ps.Gradient:
        """Forward and gradient."""
        return ps.gradient(self.cell, self.params, self.x, self.solve(method), self.dstates, method=method)

    def flops(self) -> float:
        """Multiplications and additions of the matrix products of one forward pass."""
        batch, steps, n = self.x.shape
        return 12.0 * batch * steps * n * n


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def _speed(n: int, batch: int, steps: int, repeats: int, peak: float) -> list[dict[str, Any]]:
    """Shooting against the loop: forward, forward with gradient, and the share of the peak of matrix products."""
    case, label = Case(n, batch, steps), f"n={n} B={batch} T={steps}"
    sol, loop = case.solve("shooting"), case.solve("sequential")
    mine, theirs = case.both("shooting"), case.both("sequential")
    forward = machine.versus(
        f"forward {label}", lambda: case.solve("shooting"), lambda: case.solve("sequential"), "x sequential", repeats,
        target=FORWARD_TARGETS[n] if batch == 1 else BATCH_TARGET, iterations=int(sol.iterations.max()),
        difference=_difference(sol.states, loop.states))
    both = machine.versus(
        f"forward+gradient {label}", lambda: case.both("shooting"), lambda: case.both("sequential"), "x sequential", repeats,
        target=GRADIENT_TARGETS[n] if batch == 1 else None,
        difference=max(_difference(mine.params[name], theirs.params[name]) for name in mine.params))
    share = case.flops() / (forward["ours_ms"] * 1e-3) / peak
    achieved = machine.row(f"share of the GEMM peak {label}", share, "of peak", target=PEAK_TARGET if n >= 64 else None)
    return [forward, both, achieved]


def _against_torch(n: int, steps: int, repeats: int) -> dict[str, Any]:
    case = Case(n, 1, steps)
    peer = peers.torch_gru(case.params, case.x, np.zeros((1, n), np.float32), 1)
    return machine.versus(f"forward n={n} T={steps}", lambda: case.solve("shooting"), peer.call, "x torch", repeats,
                          target=TORCH_TARGETS[n], reason=peer.reason)


def _memory_rows(n: int, steps: int, name: str, repeats: int) -> list[dict[str, Any]]:
    """Every method on one memory against the loop; ``auto`` against the better of loop and shooting."""
    bias, scale = MEMORIES[name]
    case = Case(n, 1, steps, bias, scale)
    exact, label, rows = case.solve("sequential"), f"n={n} {name}", []
    for title, options in METHODS.items():
        method = title.split()[0]
        options = {"max_iter": PATIENCE, "on_failure": "warn", **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            sol = case.solve(method, **options)
            line = machine.versus(f"{title} {label}", lambda: case.solve(method, **options),  # noqa: B023
                                  lambda: case.solve("sequential"), "x sequential", repeats,
                                  iterations=int(sol.iterations.max()), converged=bool(sol.converged.all()),
                                  depth=sol.work.depth, difference=_difference(sol.states, exact.states))
        rows.append(line)
    best = "shooting" if rows[0]["measured"] > 1.0 and rows[0]["converged"] else "sequential"
    auto = case.solve("auto")
    rows.append(machine.versus(f"auto {label}", lambda: case.solve("auto"), lambda: case.solve(best), f"x {best}", repeats,
                               target=0.95, chosen=auto.method, difference=_difference(auto.states, exact.states)))
    return rows


def run(quick: bool) -> dict[str, Any]:
    """Shooting at all sizes, for one sequence and for eight; torch; all methods on five memories."""
    repeats, steps = (1, 2000) if quick else (9, 16_384)
    sizes = (8, 32) if quick else tuple(FORWARD_TARGETS)
    peak = machine.gemm_peak()
    tables = {"speed": [line for batch in (1, 8) for n in sizes for line in _speed(n, batch, steps, repeats, peak)]}
    machine.print_table("shooting against our own sequential loop, default initialisation", tables["speed"])
    tables["torch"] = [_against_torch(n, steps, min(repeats, 3)) for n in sizes]
    machine.print_table("shooting against torch.nn.GRU", tables["torch"])
    tables["memories"] = [line for n in sizes[:3] for name in MEMORIES
                          for line in _memory_rows(n, steps, name, min(repeats, 5))]
    machine.print_table("methods and memories, against the loop", tables["memories"])
    return tables
