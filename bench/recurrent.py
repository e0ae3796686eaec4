"""Recurrent networks in float32, input width = n: each method against its peers and against our own sequential loop."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import pitsolve as ps
from bench import machine, peers

SEED = 20931
FORWARD_TARGETS = {(32, 1): 30.0, (64, 1): 12.0, (128, 1): 4.0, **{(n, 16): 1.0 for n in (8, 32, 64, 128)}}
GRADIENT_TARGETS = {(32, 1): 100.0, (64, 1): 40.0, (128, 1): 12.0}
DEER_TARGET = 10.0


class Case(NamedTuple):
    """A GRU with random parameters, its input (B, T, n), a random dL/dh and its states by the float64 loop."""

    cell: ps.cells.GRU
    params: dict[str, np.ndarray]
    x: np.ndarray
    dstates: np.ndarray
    exact: np.ndarray | None

    @property
    def h0(self) -> np.ndarray:
        return np.zeros((len(self.x), self.cell.hidden_size), np.float32)

    def solve(self, method: str) -> ps.Solution:
        return ps.solve(self.cell, self.params, self.x, method=method)

    def gradient(self, method: str) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Forward by ``method`` and the exact gradient, in the order in which the peers give them."""
        solution = self.solve(method)
        found = ps.gradient(self.cell, self.params, self.x, solution, self.dstates)
        return solution.states, found.params, found.x, found.h0


def _case(n: int, batch: int, steps: int, heads: int = 1) -> Case:
    cell = ps.cells.GRU(input_size=n, hidden_size=n, heads=heads)
    params = cell.init(seed=SEED, dtype=np.float32)
    rng = np.random.default_rng(SEED)
    x, dstates = (rng.standard_normal((batch, steps, n), np.float32) for _ in range(2))
    exact = peers.gru_loop(params, x, np.zeros((batch, n))) if heads == 1 else None
    return Case(cell, params, x, dstates, exact)


def _error(case: Case, states: np.ndarray) -> float:
    return float(np.abs(states.reshape(case.exact.shape) - case.exact).max())


def _gradient_error(case: Case, gradient: tuple) -> float:
    """A directional derivative against central differences of the float64 loop, over the norm of the gradient."""
    _, by_params, dx, dh0 = gradient
    rng, eps = np.random.default_rng(SEED + 1), 1e-5
    found = {**by_params, "x": dx.reshape(case.x.shape), "h0": dh0.reshape(case.h0.shape)}
    given = {**case.params, "x": case.x, "h0": case.h0}
    direction = {name: rng.standard_normal(value.shape) for name, value in given.items()}

    def loss(step: float) -> float:
        moved = {name: value + step * direction[name] for name, value in given.items()}
        return float(np.vdot(peers.gru_loop(moved, moved["x"], moved["h0"]), case.dstates))

    slope = sum(np.vdot(direction[name], found[name].astype(np.float64)) for name in found)
    norm = np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in found.values()))
    return float(abs(slope - (loss(eps) - loss(-eps)) / (2 * eps)) / norm)


def _torch_row(name: str, target: float | None, ours: Callable[[], Any], make_peer: Callable[[int], peers.Peer],
               error: Callable[[Any], float], repeats: int) -> dict[str, Any]:
    """Ours against torch at one thread and at all of them; the row is the one that is better for torch."""
    rows = []
    for threads in sorted({1, os.cpu_count() or 1}):
        peer = make_peer(threads)
        peer_error = error(peer.call()) if peer.call else None
        rows.append(machine.versus(name, ours, peer.call, "x torch", repeats, target=target, reason=peer.reason,
                                   torch_threads=threads, error=error(ours()), peer_error=peer_error))
    return min(rows, key=lambda line: line.get("peer_ms", 0.0))


def _against_torch(sizes: tuple[int, ...], steps: int, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """``sequential`` forward, and forward with gradient, for one sequence and for 16."""
    forward, gradient = [], []
    for batch in (1, 16):
        for n in sizes:
            case = _case(n, batch, steps)
            label = f"n={n} B={batch} T={steps}"
            forward.append(_torch_row(
                f"forward {label}", FORWARD_TARGETS.get((n, batch)), lambda case=case: case.solve("sequential").states,
                lambda threads, case=case: peers.torch_gru(case.params, case.x, case.h0, threads),
                lambda states, case=case: _error(case, states), repeats))
            gradient.append(_torch_row(
                f"forward+gradient {label}", GRADIENT_TARGETS.get((n, batch)),
                lambda case=case: case.gradient("sequential"),
                lambda threads, case=case: peers.torch_gru_gradient(case.params, case.x, case.h0, case.dstates,
                                                                    threads),
                lambda found, case=case: _gradient_error(case, found), max(2, repeats - 4)))
    machine.print_table("sequential against torch.nn.GRU, forward", forward)
    machine.print_table("sequential against torch.nn.GRU, forward and gradient", gradient)
    return {"torch_forward": forward, "torch_gradient": gradient}


def _deer_rows(n: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    """``deer`` against DEER in JAX at the same residual tolerance: forward, and forward with gradient."""
    case = _case(n, 1, steps)
    solution = case.solve("deer")
    one = case.params, case.x[0], case.h0[0]
    peer = peers.jax_deer(*one, tol=solution.tol)
    facts = {"iterations": int(solution.iterations[0]), "error": _error(case, solution.states)}
    if peer.call is not None:
        states, iterations = peer.call()
        _, paper_iterations = peers.jax_deer(*one, criterion="step", tol=(1e-4, 1e-3)).call()
        facts |= {"jax_iterations": iterations, "jax_iterations_paper_rule": paper_iterations,
                  "peer_error": _error(case, states)}
    forward = machine.versus(f"deer forward n={n} T={steps}", lambda: case.solve("deer"), peer.call, "x JAX DEER",
                             repeats, target=DEER_TARGET, reason=peer.reason, tol=solution.tol, **facts)
    peer = peers.jax_deer_gradient(*one, case.dstates[0], tol=solution.tol)
    facts = {"error": _gradient_error(case, case.gradient("deer"))}
    if peer.call is not None:
        facts["peer_error"] = _gradient_error(case, peer.call())
    both = machine.versus(f"deer forward+gradient n={n} T={steps}", lambda: case.gradient("deer"), peer.call,
                          "x JAX DEER", repeats, reason=peer.reason, **facts)
    return [forward, both]


def _against_sequential(case: Case, label: str, methods: tuple[str, ...], repeats: int) -> list[dict[str, Any]]:
    """Every method against the loop: below 1 the loop is faster."""
    loop = case.solve("sequential").states
    rows = []
    for method in methods:
        solution = case.solve(method)
        rows.append(machine.versus(
            f"{method} {label}", lambda method=method: case.solve(method), lambda: case.solve("sequential"),
            "x sequential", repeats, iterations=int(solution.iterations.max()),
            converged=bool(solution.converged.all()), residual=float(solution.residual.max()),
            difference=float(np.abs(solution.states - loop).max())))
    return rows


def run(quick: bool) -> dict[str, Any]:
    """Sequential against torch, deer against JAX, every method against sequential, and a multi-head network."""
    repeats, steps = (1, 500) if quick else (7, 10_000)
    tables = _against_torch((8, 32) if quick else (8, 32, 64, 128), steps, repeats)
    tables["deer"] = [line for n in (4, 8, 16, 32) for line in _deer_rows(n, steps, repeats)]
    machine.print_table("deer against JAX DEER at the same residual tolerance", tables["deer"])
    methods = ("picard", "deer", "quasi-deer", "elk", "quasi-elk")
    tables["methods"] = [line for n in (8, 32) for line in
                         _against_sequential(_case(n, 1, steps), f"n={n} T={steps}", methods, repeats)]
    machine.print_table("methods against our own sequential loop", tables["methods"])
    tables["heads"] = _against_sequential(_case(128, 1, steps, heads=32), f"n=128 heads=32 T={steps}",
                                          ("deer", "quasi-deer", "picard"), repeats)
    machine.print_table("a GRU of 32 heads of 4 units against our own sequential loop", tables["heads"])
    return tables
