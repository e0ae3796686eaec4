"""Checks of ``python -m bench gpu``: every verb of the CUDA backend against the CPU in float64, in groups for processes.

The row is the largest difference of states, which are near one. Gradients are compared with differences of the loss along a
direction of every array, relative to what such a direction finds: the backward loop of the CPU compiles too slowly.
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import pitsolve as ps
from bench import machine, peers
from bench.gpu_settings import SEED, Settings, recurrence
from pitsolve.backends.cuda.launch import cuda
from pitsolve.cells.base import Cell

Rows = list[dict[str, Any]]
Case = tuple[str, Callable[[], Rows]]
METHODS = {"sequential": {}, "deer": {}, "picard": {"max_iter": 10_000}, "quasi-deer": {"max_iter": 1000},
           "elk": {"max_iter": 1000}, "quasi-elk": {"max_iter": 1000}, "shooting": {"window": 12}, "mgrit": {"coarsening": 4},
           "parareal": {"window": 12}}
FEW = ("sequential", "deer", "shooting")  # for cells whose other verbs are those of the first
GRADIENTS = ("sequential", "scan", "shooting", "mgrit")
ERROR = {"float32": 1e-4, "float64": 1e-10}
SLOPE_ERROR = {"float32": 1e-3, "float64": 1e-6}


class Network:
    """A cell on ragged sequences, and the CPU's loop through them in float64."""

    def __init__(self, name: str, cell: Cell, dtype: str, settings: Settings):
        self.name, self.cell, self.dtype, self.settings = name, cell, dtype, settings
        random, steps = np.random.default_rng(SEED), settings.pick(700, 13)
        self.lengths = np.array([steps, 1, steps - 5])
        self.dstates = random.standard_normal((3, steps, cell.state_size)).astype(dtype)
        arrays = {"x": random.standard_normal((3, steps, cell.input_size)),
                  "h0": 0.3 * random.standard_normal((3, cell.state_size)), **cell.init(seed=SEED, dtype=np.float64)}
        self.arrays = {name: array.astype(dtype) for name, array in arrays.items()}

    def _run(self, arrays: dict[str, np.ndarray], **options: Any) -> ps.Solution:
        params = {name: array for name, array in arrays.items() if name not in ("x", "h0")}
        return ps.solve(self.cell, params, arrays["x"], arrays["h0"], lengths=self.lengths, **options)

    def _exact(self, **changed: np.ndarray) -> np.ndarray:
        """The states in float64, for some arrays in place of others."""
        arrays = {name: array.astype(np.float64) for name, array in {**self.arrays, **changed}.items()}
        return self._run(arrays, method="sequential", backend="cpu").states

    @functools.cached_property
    def slopes(self) -> dict[str, tuple[np.ndarray, float]]:
        """A direction for every array, and the derivative of sum(states dstates) along it."""
        found, step = {}, 1e-6
        for name, array in self.arrays.items():
            direction = np.random.default_rng(SEED).standard_normal(array.shape)
            above, below = (self._exact(**{name: array + sign * step * direction}) for sign in (1, -1))
            found[name] = direction, float(((above - below) * self.dstates).sum() / (2 * step))
        return found

    def solve(self, method: str) -> Rows:
        """States by one method, which has to converge."""
        found = self._run(self.arrays, method=method, backend="cuda", on_failure="raise", **METHODS[method])
        return [machine.row(f"{self.name} {method}", float(np.abs(found.states - self._exact()).max()), "error",
                            ERROR[self.dtype], smaller=True, iterations=int(found.iterations.max()))]

    def gradient(self, method: str) -> Rows:
        """The gradient by one method, at the states of the loop."""
        found = self._run(self.arrays, method="sequential", backend="cuda")
        options = METHODS[method] if method in ("shooting", "mgrit") else {}
        params = {name: array for name, array in self.arrays.items() if name not in ("x", "h0")}
        got = ps.gradient(self.cell, params, self.arrays["x"], found, self.dstates, self.arrays["h0"], method=method,
                          backend="cuda", **options)
        error = 0.0
        for name, slope in {**got.params, "x": got.x, "h0": got.h0}.items():
            direction, wanted = self.slopes[name]
            error = max(error, abs(float((slope * direction).sum()) - wanted) / float(np.linalg.norm(slope.astype(float))))
        return [machine.row(f"{self.name} gradient by {method}", error, "error", SLOPE_ERROR[self.dtype], smaller=True)]

    def cases(self, methods: tuple[str, ...] = tuple(METHODS), gradients: tuple[str, ...] = GRADIENTS) -> list[Case]:
        if self.settings.simulated:  # the tests of the backend do the others
            methods, gradients = methods[1:2], gradients[1:2]
        return [*((f"{self.name} {method}", partial(self.solve, method)) for method in methods),
                *((f"{self.name} gradient by {method}", partial(self.gradient, method)) for method in gradients)]


def _pendulum(p, x, h, new):
    """A damped pendulum with a drive, as a user would write it."""
    new[0] = h[0] + 0.1 * h[1]
    new[1] = 0.9 * h[1] - 0.1 * p.stiffness[0] * math.sin(h[0]) + p.drive[0] * x[0]


def _scan(batch: int, steps: int, n: int, dense: bool, reverse: bool, dtype: str) -> Rows:
    A, b = (array.astype(dtype) for array in recurrence(batch, steps, n, dense))
    got = ps.affine_scan(A, b, reverse=reverse, backend="cuda")
    order = slice(None, None, -1 if reverse else 1)
    wanted = np.stack([peers.affine_loop(A[i][order], b[i][order], np.zeros(n))[order] for i in range(batch)])
    return [machine.row(_scan_name(n, dense, reverse, dtype), float(np.abs(got - wanted).max()), "error",
                        10 * ERROR[dtype], smaller=True)]


def _scan_name(n: int, dense: bool, reverse: bool, dtype: str) -> str:
    return f"{'reverse ' if reverse else ''}{'dense' if dense else 'diagonal'} scan n={n} {dtype}"


def _scans(settings: Settings) -> list[Case]:
    shapes = [(1, False), (3, False), (64, False), (4, True), (5, True), (16, True), (24, True), (33, True)]
    shapes = settings.pick(shapes, [(1, False), (4, True)])
    kinds = [("float32", False), ("float32", True), ("float64", False)]
    return [(_scan_name(n, dense, reverse, dtype),
             partial(_scan, 2, settings.pick(3000, 70), n, dense, reverse, dtype))
            for n, dense in shapes for dtype, reverse in settings.pick(kinds, kinds[1:2])]


def _walks(settings: Settings) -> Rows:
    """More channels than there is memory bandwidth for, and hardly a step."""
    A, b = recurrence(settings.pick(900, 2), settings.pick(70, 9), 36, dense=False)
    wanted = np.stack([peers.affine_loop(A[i], b[i], np.zeros(36)) for i in range(len(A))])
    return [machine.row("diagonal scan of many channels", float(np.abs(ps.affine_scan(A, b, backend="cuda") - wanted).max()),
                        "error", 1e-3, smaller=True)]


def _schwarz(n: int, settings: Settings, **options: Any) -> Rows:
    """Windows of a block-tridiagonal matrix."""
    random, steps = np.random.default_rng(SEED), settings.pick(2000, 24)
    off = random.normal(size=(steps - 1, n, n)) / np.sqrt(n)
    diagonal = random.normal(size=(steps, n, n)) / np.sqrt(n)
    diagonal = diagonal @ diagonal.transpose(0, 2, 1) + 3.0 * np.eye(n)
    diagonal[1:] += off.transpose(0, 2, 1) @ off / 3.0
    rhs = random.normal(size=(steps, n))
    problem = ps.leastsquares.BlockTridiagonal((diagonal + diagonal.transpose(0, 2, 1)) / 2, off, rhs)
    found = ps.schwarz_lstsq(problem, settings.pick(16, 2), backend="cuda", **options).solution
    error = float(np.abs(found - _eliminated(problem.diagonal, off, rhs)).max())
    return [machine.row(f"schwarz n={n} {options or ''}", error, "error", 1e-8, smaller=True)]


def _eliminated(diagonal: np.ndarray, off: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """The solution of a block-tridiagonal system by elimination."""
    pivots, right = diagonal.copy(), rhs.copy()
    for t in range(1, len(rhs)):
        factor = np.linalg.solve(pivots[t - 1], off[t - 1]).T
        pivots[t] -= factor @ off[t - 1]
        right[t] -= factor @ right[t - 1]
    for t in range(len(rhs) - 1, -1, -1):
        right[t] = np.linalg.solve(pivots[t], right[t] - (off[t] @ right[t + 1] if t < len(rhs) - 1 else 0.0))
    return right


def _foreign(library: str) -> Rows:
    """Arrays of another library in, the same kind and the same memory out, on a stream of the caller."""
    cell = ps.cells.GRU(8, 8)
    params, x = cell.init(seed=SEED, dtype=np.float32), np.random.default_rng(SEED).standard_normal((2, 300, 8), np.float32)
    wanted = ps.solve(cell, params, x, method="deer", backend="cuda").states
    rows = []
    if library == "torch":
        torch = peers.torch
        there, kind = torch.from_numpy(x).cuda(), torch.Tensor
        for name, stream in (("default", torch.cuda.default_stream()), ("own", torch.cuda.Stream())):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                got = ps.solve(cell, params, there, method="deer").states
                same = isinstance(got, kind) and np.array_equal(got.cpu().numpy(), wanted)
            rows.append(machine.row(f"torch tensors, {name} stream", float(same), "same bits", 1.0))
    else:
        import cupy

        for name, stream in (("default", cupy.cuda.Stream.null), ("own", cupy.cuda.Stream(non_blocking=True))):
            with stream:
                got = ps.solve(cell, params, cupy.asarray(x), method="deer").states
                same = isinstance(got, cupy.ndarray) and np.array_equal(cupy.asnumpy(got), wanted)
            rows.append(machine.row(f"CuPy arrays, {name} stream", float(same), "same bits", 1.0))
    return rows


def _foreign_cases(settings: Settings) -> list[Case]:
    if settings.simulated:
        return [("arrays of other libraries", lambda: [machine.row("arrays of other libraries", None, "same bits",
                                                                   skipped="the simulator has no memory to share")])]
    there = {"torch": peers.torch is not None and peers.torch.cuda.is_available(),
             "cupy": machine.version("cupy-cuda13x") or machine.version("cupy-cuda12x") or machine.version("cupy")}
    return [(library, partial(_foreign, library) if present else partial(_no_library, library))
            for library, present in there.items()]


def _no_library(library: str) -> Rows:
    return [machine.row(f"arrays of {library}", None, "same bits", skipped=f"no {library} with CUDA is installed")]


def _memory(settings: Settings) -> Rows:
    """An array that does not fit: a MemoryError, and a process that goes on."""
    if settings.simulated:
        return [machine.row("an array that does not fit", None, "error", skipped="the simulator has the memory of the host")]
    from pitsolve.backends.cuda import arrays

    try:
        arrays.empty((1 << 41,), np.float32)
        raised = False
    except MemoryError:
        raised = True
    A = cuda.to_device(np.full((3, 1), 0.5, np.float32))
    goes_on = bool(np.allclose(ps.affine_scan(A, A).copy_to_host(), [[0.5], [0.75], [0.875]]))
    return [machine.row("a MemoryError, and the process goes on", float(raised and goes_on), "same bits", 1.0)]


def groups(settings: Settings) -> dict[str, list[Case]]:
    """All checks: groups of cases, each for a process."""
    cells = ps.cells

    def network(name: str, cell: Cell, dtype: str = "float32") -> Network:
        return Network(name, cell, dtype, settings)

    found = {f"n={n}": network(f"GRU n={n}", cells.GRU(3, n)).cases() for n in settings.pick((1, 2, 4, 8, 16, 33, 64), (2,))}
    pendulum = cells.custom(_pendulum, state_size=2, input_size=1, parameters={"stiffness": (1,), "drive": (1,)})
    more = {"GRU n=200": (cells.GRU(3, 200), ("sequential", "shooting"), ("sequential", "shooting")),
            "GRU 4 heads": (cells.GRU(3, 16, heads=4), FEW, GRADIENTS[1:3]),
            "GRU heads of one": (cells.GRU(3, 12, heads=12), ("deer", "shooting"), GRADIENTS[1:3]),
            "LSTM": (cells.LSTM(3, settings.pick(8, 2)), FEW, GRADIENTS[:3]),
            "Elman n=5": (cells.Elman(3, 5), FEW, GRADIENTS[:3]),
            "LEM n=4": (cells.LEM(3, 4), FEW, GRADIENTS[:3]), "custom": (pendulum, (*FEW, "elk"), GRADIENTS[:3])}
    for name, (cell, methods, gradients) in more.items():
        if not settings.quick or name in ("LSTM", "custom"):
            found[name] = network(name, cell).cases(methods, gradients)
    found["float64"] = network("GRU n=8 float64", cells.GRU(3, settings.pick(8, 2)), "float64").cases()
    found["scans"] = _scans(settings)
    found["others"] = [("many channels", partial(_walks, settings)), ("memory", partial(_memory, settings)),
                       *_foreign_cases(settings)]
    found["schwarz"] = [(f"schwarz n={n}", partial(_schwarz, n, settings)) for n in settings.pick((1, 4, 8, 20, 40), (2,))]
    found["schwarz"] += [("schwarz schur", partial(_schwarz, settings.pick(4, 2), settings, transmission="schur"))]
    return found
