"""The parts of ``python -m bench gpu``; each returns its rows and prints them."""

from functools import partial
from typing import Any

import numpy as np

import pitsolve as ps
from bench import gpu_peers, machine, peers
from bench.gpu import SEED, timed
from pitsolve.backends.cuda.launch import cuda, device

BATCH = 16
# nanoseconds of one Newton iteration for each step of each sequence on an H100, as predicted before it ever ran on one
PREDICTED = {1: 0.008, 2: 0.034, 4: 0.063, 8: 0.18, 16: 0.66, 32: 3.1}


def _repeats(quick: bool) -> int:
    return 1 if quick else 7


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal(shape, np.float32)


def _report(title: str, rows: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    machine.print_table(title, rows)
    return {"rows": rows, **facts}


def _copy_bandwidth(quick: bool) -> float:
    """Bytes per second of copies between three arrays in turn, read and write counted."""
    arrays = [device().empty((1 << (16 if quick else 28),), np.float32) for _ in range(3)]

    def copies():
        for source, target in ((0, 1), (1, 2), (2, 0)):
            arrays[target].copy_to_device(arrays[source])

    seconds, _ = timed(copies, _repeats(quick))
    return 6 * arrays[0].nbytes / seconds


def limits(quick: bool) -> dict[str, Any]:
    """The card, its copy bandwidth, and what a call costs that does nothing."""
    name = getattr(cuda.get_current_device(), "name", "simulator")
    name = name.decode() if isinstance(name, bytes) else str(name)
    tiny = cuda.to_device(np.zeros((1, 1), np.float32))
    seconds, _ = timed(lambda: ps.affine_scan(tiny, tiny), 5 * _repeats(quick))
    rows = [machine.row("copy bandwidth", _copy_bandwidth(quick) / 1e9, "GB/s"),
            machine.row("affine_scan of one step", 1e6 * seconds, "us")]
    return _report(f"limits of {name}", rows, device=name)


def _model(n: int, batch: int, steps: int, cell=ps.cells.GRU) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    cell = cell(input_size=n, hidden_size=n)
    return cell, cell.init(seed=SEED, dtype=np.float32), _random(batch, steps, n)


def check(quick: bool) -> dict[str, Any]:
    """Every method and gradient at small sizes against the CPU in float64; the largest relative difference is the row."""
    rows = []
    for n in (1, 8) if quick else (1, 2, 4, 8, 16, 33, 64):
        cell, params, x = _model(n, 3, 40 if quick else 700)
        dstates = _random(*x.shape)
        exact = {name: value.astype(np.float64) for name, value in params.items()}
        wanted = ps.solve(cell, exact, x.astype(np.float64), method="sequential", backend="cpu")
        slopes = ps.gradient(cell, exact, x.astype(np.float64), wanted, dstates.astype(np.float64), backend="cpu")
        for method in ("sequential", "picard", "deer", "quasi-deer", "elk", "shooting", "mgrit"):
            found = ps.solve(cell, params, x, method=method, backend="cuda")
            error = float(np.abs(found.states - wanted.states).max())
            rows.append(machine.row(f"{method} n={n}", error, "error", 1e-4, smaller=True,
                                    iterations=int(found.iterations.max())))
        found = ps.solve(cell, params, x, backend="cuda")
        for method in ("sequential", "scan", "shooting"):
            gradient = ps.gradient(cell, params, x, found, dstates, method=method, backend="cuda")
            error = max(float(np.abs(gradient.params[name] - slopes.params[name]).max() / np.abs(slopes.params[name]).max())
                        for name in params)
            rows.append(machine.row(f"gradient by {method} n={n}", error, "error", 1e-3, smaller=True))
    for n, dense in ((1, False), (3, False), (64, False), (4, True), (16, True), (33, True)):
        A, b = _scan_problem(2, 100 if quick else 3000, n, dense)
        error = max(float(np.abs(ps.affine_scan(A, b, backend="cuda")[i] - peers.affine_loop(A[i], b[i], np.zeros(n))).max())
                    for i in range(2))
        rows.append(machine.row(f"{'dense' if dense else 'diagonal'} scan n={n}", error, "error", 1e-3, smaller=True))
    return _report("every verb against the CPU in float64", rows)


def _scan_problem(batch: int, steps: int, n: int, dense: bool) -> tuple[np.ndarray, np.ndarray]:
    """A contracting recurrence in float32."""
    if dense:
        return _random(batch, steps, n, n) * np.float32(0.9 / np.sqrt(n)), _random(batch, steps, n)
    return np.float32(0.9) * np.tanh(_random(batch, steps, n)), _random(batch, steps, n)


def progress(quick: bool) -> dict[str, Any]:
    """Kernels whose blocks wait for each other, twenty times over: they must end, with the same bits."""
    rows, long, short = [], 300 if quick else 1 << 22, 100 if quick else 1 << 15
    for name, shape in (("one channel", (1, long, 1)), ("64 channels", (4, short, 64))):
        A, b = (cuda.to_device(array) for array in _scan_problem(*shape, dense=False))
        first = ps.affine_scan(A, b).copy_to_host()
        same = all(np.array_equal(first, ps.affine_scan(A, b).copy_to_host()) for _ in range(2 if quick else 20))
        rows.append(machine.row(f"scan of {name} repeated", float(same), "same bits", 1.0))
    return _report("blocks that wait for each other", rows)


def sequential(quick: bool) -> dict[str, Any]:
    """The loop in one persistent kernel: the honest denominator."""
    rows, steps = [], 50 if quick else 100_000
    for n in (1, 8, 32, 64, 128):
        cell, params, x = _model(n, 1, steps)
        given = cuda.to_device(x)
        seconds, _ = timed(partial(ps.solve, cell, params, given, method="sequential"), min(3, _repeats(quick)))
        rows.append(machine.row(f"GRU n={n} B=1", 1e9 * seconds / steps, "ns a step"))
    return _report("the sequential kernel", rows)


def scans(quick: bool) -> dict[str, Any]:
    """Diagonal scans against the copy bandwidth, dense ones against JAX."""
    bandwidth, rows = _copy_bandwidth(quick), []
    size = 2000 if quick else 100_000_000
    for label, shape, target in (("16 x T x 64", (16, size // 1024, 64), 0.8), ("256 x T x 64", (256, size // 16384, 64), 0.8),
                                 ("one channel", (1, size // 10, 1), 0.4)):
        A, b = (cuda.to_device(array) for array in _scan_problem(*shape, dense=False))
        seconds, _ = timed(partial(ps.affine_scan, A, b), _repeats(quick))
        rows.append(machine.row(f"diagonal scan {label}", 12 * b.size / seconds / bandwidth, "x copy", target,
                                GBs=12e-9 * b.size / seconds))
    for n in (4, 8, 16):
        A, b = _scan_problem(BATCH, 20 if quick else 100_000, n, dense=True)
        peer = gpu_peers.jax_affine_scan(A, b)
        there = cuda.to_device(A), cuda.to_device(b)
        rows.append(_against(f"dense scan n={n} B={BATCH} T={b.shape[1]}", partial(ps.affine_scan, *there), peer, 5.0, quick))
    return _report("affine scans", rows)


def _against(name: str, ours, peer: peers.Peer, target: float | None, quick: bool, unit: str = "x JAX",
             **details) -> dict[str, Any]:
    """How many times faster ours is."""
    seconds, _ = timed(ours, _repeats(quick))
    if peer.call is None:
        return machine.row(name, None, unit, target, ms=1e3 * seconds, peer=peer.reason, **details)
    theirs, _ = timed(peer.call, min(3, _repeats(quick)))
    return machine.row(name, theirs / seconds, unit, target, ms=1e3 * seconds, peer_ms=1e3 * theirs, **details)


def newton(quick: bool) -> dict[str, Any]:
    """DEER for a GRU, forward: against JAX, against the sequential kernel, and against what was predicted."""
    rows, beyond = [], {(1, 1_000_000): 100.0, (8, 100_000): 10.0}
    for n, steps in ((1, 1_000_000), (1, 10_000), (2, 100_000), (4, 100_000), (8, 10_000), (8, 100_000), (16, 100_000),
                     (32, 100_000)):
        cell, params, x = _model(n, BATCH, 30 if quick else steps)
        given = cuda.to_device(x)
        found = ps.solve(cell, params, given, method="deer")
        loop, _ = timed(partial(ps.solve, cell, params, given, method="sequential"), 1)
        predicted = 1e-6 * PREDICTED[n] * BATCH * steps * int(found.iterations.max())
        peer = gpu_peers.jax_deer(params, x, np.zeros((BATCH, n), np.float32), found.tol)
        ours = partial(ps.solve, cell, params, given, method="deer")
        row = _against(f"deer n={n} B={BATCH} T={steps}", ours, peer, 5.0, quick, iterations=int(found.iterations.max()),
                       predicted_ms=predicted)
        rows += [row, machine.row(f"deer against the loop n={n} T={steps}", 1e3 * loop / row["ms"], "x sequential",
                                  beyond.get((n, steps)))]
    return _report("DEER, forward", rows)


def windows(quick: bool) -> dict[str, Any]:
    """Shooting, forward and gradient, on recordings of the length of EigenWorms: against cuDNN."""
    rows, steps = [], 200 if quick else 17_984
    for n in (32, 64):
        for batch in (1, 8):
            cell, params, x = _model(n, batch, steps)
            dstates = _random(*x.shape)
            given, seed = cuda.to_device(x), cuda.to_device(dstates)

            def both(cell=cell, params=params, given=given, seed=seed):
                solution = ps.solve(cell, params, given, method="shooting")
                return solution, ps.gradient(cell, params, given, solution, seed, method="shooting")

            peer = gpu_peers.cudnn_gru(params, x, dstates)
            details = {}
            if peer.call is not None:
                details["difference"] = float(np.abs(both()[0].states.copy_to_host() - peer.call()).max())
            rows.append(_against(f"shooting forward+gradient n={n} B={batch} T={steps}", both, peer, 50.0, quick, "x cuDNN",
                                 **details))
    return _report("windows of time", rows)


def gradients(quick: bool) -> dict[str, Any]:
    """DEER and its gradient by a reverse scan: against JAX."""
    rows = []
    for n in (1, 4, 8, 16):
        cell, params, x = _model(n, BATCH, 30 if quick else 100_000)
        dstates = _random(*x.shape)
        given, seed = cuda.to_device(x), cuda.to_device(dstates)

        def both(cell=cell, params=params, given=given, seed=seed):
            solution = ps.solve(cell, params, given, method="deer")
            return ps.gradient(cell, params, given, solution, seed, method="scan")

        tol = ps.solve(cell, params, given, method="deer").tol
        peer = gpu_peers.jax_deer_gradient(params, x, np.zeros((BATCH, n), np.float32), dstates, tol)
        rows.append(_against(f"deer forward+gradient n={n} B={BATCH} T={x.shape[1]}", both, peer, 5.0, quick))
    return _report("DEER, forward and gradient", rows)
