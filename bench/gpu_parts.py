"""The timed parts of ``python -m bench gpu``: each gives its cases, names and functions that give rows."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import pitsolve as ps
from bench import gpu_peers, machine, peers
from bench.gpu_settings import SEED, Settings, random, recurrence
from pitsolve.backends.cuda.launch import cuda, device
from pitsolve.backends.cuda.scan import scan

Rows = list[dict[str, Any]]
Case = tuple[str, Callable[[], Rows]]
BATCH, REPEATS, FEW = 16, 7, 3
# nanoseconds of one Newton iteration for each step of each sequence on an H100, as predicted before it ever ran on one
PREDICTED = {1: 0.008, 2: 0.034, 4: 0.063, 8: 0.18, 16: 0.66, 32: 5.3}
WORMS = 17_984  # steps of a recording in EigenWorms


def _copy_bandwidth(settings: Settings) -> float:
    """Bytes per second of copies between three arrays in turn, read and write counted."""
    arrays = [device().empty((1 << settings.pick(28, 16),), np.float32) for _ in range(3)]

    def copies():
        for source, target in ((0, 1), (1, 2), (2, 0)):
            arrays[target].copy_to_device(arrays[source])

    seconds, _ = settings.timed(copies, REPEATS)
    return 6 * arrays[0].nbytes / seconds


def _facts() -> dict[str, Any]:
    """What the driver says of the card."""
    card = cuda.get_current_device()
    name = getattr(card, "name", "simulator")
    facts = {"device": name.decode() if isinstance(name, bytes) else str(name)}
    questions = {"capability": lambda: ".".join(map(str, card.compute_capability)),
                 "multiprocessors": lambda: card.MULTIPROCESSOR_COUNT, "kHz": lambda: card.CLOCK_RATE,
                 "GiB_free": lambda: cuda.current_context().get_memory_info()[0] / 2**30}
    for fact, ask in questions.items():
        with contextlib.suppress(Exception):  # none of them is worth the figures
            facts[fact] = ask()
    return facts


def limits(settings: Settings) -> list[Case]:
    """The card, its copy bandwidth, and what a call costs that does nothing."""
    def copy() -> Rows:
        return [machine.row("copy bandwidth", _copy_bandwidth(settings) / 1e9, "GB/s", **_facts())]

    def call() -> Rows:
        tiny = cuda.to_device(np.zeros((1, 1), np.float32))
        y0, one, none = device().empty((1, 1), np.float32), np.ones(1, np.int64), np.zeros(1, np.int64)
        batched = tiny.reshape((1, 1, 1))
        whole, _ = settings.timed(partial(ps.affine_scan, tiny, tiny), 5 * REPEATS)
        verb, _ = settings.timed(partial(scan, batched, batched, y0, batched, none, one), 5 * REPEATS)
        return [machine.row("affine_scan of one step", 1e6 * whole, "us"), machine.row("its one launch", 1e6 * verb, "us")]

    return [("copy bandwidth", copy), ("an empty call", call)]


def _model(n: int, batch: int, steps: int, heads: int = 1) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    cell = ps.cells.GRU(input_size=n, hidden_size=n, heads=heads)
    return cell, cell.init(seed=SEED, dtype=np.float32), random(batch, steps, n)


def progress(settings: Settings) -> list[Case]:
    """Kernels whose blocks wait for each other, twenty times over: they must end, right, with the same bits."""
    times = settings.pick(20, 1)

    def repeated(name: str, call: Callable[[], np.ndarray], wanted: np.ndarray) -> Rows:
        first = call()
        same = all(np.array_equal(first, call()) for _ in range(times))
        return [machine.row(f"{name} repeated", float(same), "same bits", 1.0),
                machine.row(f"{name} against the CPU", float(np.abs(first - wanted).max()), "error", 1e-3, smaller=True)]

    def of_scan(name: str, shape: tuple[int, int, int], dtype: type) -> Rows:
        host = [array.astype(dtype) for array in recurrence(*shape, dense=False)]
        A, b = map(cuda.to_device, host)
        return repeated(name, lambda: ps.affine_scan(A, b).copy_to_host(), ps.affine_scan(*host, backend="cpu"))

    def of_deer(name: str, n: int, steps: int) -> Rows:
        cell, params, x = _model(n, 4, steps, heads=n)
        given, wanted = cuda.to_device(x), ps.solve(cell, params, x, method="sequential", backend="cpu").states
        return repeated(name, lambda: ps.solve(cell, params, given, method="deer", on_failure="raise").states.copy_to_host(),
                        wanted)

    long, short = settings.pick(1 << 22, 200), settings.pick(1 << 15, 70)
    scans = [("scan of one channel", (1, long, 1), np.float32), ("scan of one channel, float64", (1, long, 1), np.float64),
             ("scan of 64 channels", (4, short, settings.pick(64, 8)), np.float32)]
    deers = [("deer n=1", 1, settings.pick(1 << 18, 70)), ("deer, heads of one", settings.pick(64, 4), short)]
    return [(name, partial(of_scan, name, *rest)) for name, *rest in scans] + [
        (name, partial(of_deer, name, *rest)) for name, *rest in deers]


def sequential(settings: Settings) -> list[Case]:
    """The loop in one persistent kernel: the honest denominator."""
    steps = settings.pick(100_000, 20)

    def case(n: int) -> Rows:
        cell, params, x = _model(n, 1, steps)
        given = cuda.to_device(x)
        seconds, _ = settings.timed(partial(ps.solve, cell, params, given, method="sequential"), FEW)
        return [machine.row(f"GRU n={n} B=1", 1e9 * seconds / steps, "ns a step")]

    return [(f"GRU n={n} B=1", partial(case, n)) for n in settings.pick((1, 8, 32, 64, 128), (1, 8))]


def _verb(A, b) -> Callable[[], None]:
    """The scan itself, without the checks of the call and with the result in memory that is there."""
    batch, steps, n = b.shape
    y0, out = cuda.to_device(np.zeros((batch, n), np.float32)), device().empty(b.shape, b.dtype)
    first, last = np.zeros(batch, np.int64), np.full(batch, steps)
    blocks = A if A.ndim == 3 else A.reshape((batch, steps, 1, n, n))
    return partial(scan, blocks, b, y0, out, first, last)


def scans(settings: Settings) -> list[Case]:
    """Diagonal scans against the copy bandwidth, dense ones against JAX; with and without the checks of a call."""
    size = 100_000_000

    def diagonal(label: str, shape: tuple[int, int, int], target: float) -> Rows:
        host = recurrence(*shape, dense=False)
        A, b = map(cuda.to_device, host)
        bandwidth, call = _copy_bandwidth(settings), _verb(A, b)
        verb, _ = settings.timed(call, REPEATS)
        whole, _ = settings.timed(partial(ps.affine_scan, A, b), REPEATS)
        sums, copy = gpu_peers.cupy_sums(host[1])
        return [machine.row(f"diagonal scan {label}", 12 * b.size / verb / bandwidth, "x copy", settings.goal(target),
                            GBs=12e-9 * b.size / verb, ms=1e3 * verb, with_checks_ms=1e3 * whole),
                _against(f"diagonal scan {label}, sums with A = 1", call, sums, None, settings, "x CuPy"),
                _against(f"diagonal scan {label}, a copy of b", call, copy, None, settings, "x CuPy")]

    def dense(n: int, batch: int, steps: int) -> Rows:
        host = recurrence(batch, steps, n, dense=True)
        A, b = map(cuda.to_device, host)
        verb, _ = settings.timed(_verb(A, b), REPEATS)
        name = f"dense scan n={n} B={b.shape[0]} T={b.shape[1]}"
        return [_against(name, partial(ps.affine_scan, A, b), gpu_peers.jax_affine_scan(*host), 5.0 if n <= 16 else None,
                         settings, kernels_ms=1e3 * verb, GBs=4e-9 * (A.size + 2 * b.size) / verb)]

    shapes = settings.pick([("16 x T x 64", (16, size // 1024, 64), 0.8), ("256 x T x 64", (256, size // 16384, 64), 0.8),
                            ("one channel", (1, size // 10, 1), 0.4)], [("one channel", (1, 100, 1), 0.4)])
    blocks = settings.pick([*((n, BATCH, 100_000) for n in (4, 8, 16)), (32, 1, 100_000), (64, 1, 20_000)], [(4, 1, 20)])
    return [(f"diagonal scan {label}", partial(diagonal, label, shape, target)) for label, shape, target in shapes] + [
        (f"dense scan n={n}", partial(dense, n, batch, steps)) for n, batch, steps in blocks]


def _against(name: str, ours: Callable[[], Any], peer: peers.Peer, target: float | None, settings: Settings,
             unit: str = "x JAX", **details: Any) -> dict[str, Any]:
    """How many times faster ours is; ours is timed in any case."""
    target, (seconds, _) = settings.goal(target), settings.timed(ours, REPEATS)
    if peer.call is None:
        return machine.row(name, None, unit, target, ms=1e3 * seconds, peer=peer.reason, **details)
    try:
        theirs, _ = settings.timed(peer.call, FEW)
    except Exception as error:  # most of all, memory that it would need
        return machine.row(name, None, unit, target, ms=1e3 * seconds, peer=f"{type(error).__name__}: {error}"[:200], **details)
    return machine.row(name, theirs / seconds, unit, target, ms=1e3 * seconds, peer_ms=1e3 * theirs, **details)


def newton(settings: Settings) -> list[Case]:
    """DEER for a GRU, forward: against JAX, against the sequential kernel, and against what was predicted."""
    beyond = {(1, 1_000_000): 100.0, (8, 100_000): 10.0}

    def case(n: int, steps: int) -> Rows:
        cell, params, x = _model(n, settings.pick(BATCH, 1), settings.pick(steps, 20))
        given = cuda.to_device(x)
        ours = partial(ps.solve, cell, params, given, method="deer", on_failure="raise")
        found = ours()
        loop, _ = settings.timed(partial(ps.solve, cell, params, given, method="sequential"), FEW)
        iterations = int(found.iterations.max())
        peer = gpu_peers.jax_deer(params, x, np.zeros((x.shape[0], n), np.float32), found.tol)
        row = _against(f"deer n={n} B={x.shape[0]} T={x.shape[1]}", ours, peer, 5.0, settings, iterations=iterations,
                       predicted_ms=1e-6 * PREDICTED[n] * x.shape[0] * x.shape[1] * iterations)
        if peer.call is not None and "peer_ms" in row:
            row["peer_iterations"] = int(np.max(peer.call()[1]))
        return [row, machine.row(f"deer against the loop n={n} T={x.shape[1]}", 1e3 * loop / row["ms"], "x sequential",
                                 settings.goal(beyond.get((n, steps))), loop_ms=1e3 * loop)]

    sizes = settings.pick(((1, 1_000_000), (8, 100_000), (1, 10_000), (2, 100_000), (4, 100_000), (8, 10_000), (16, 100_000),
                           (32, 100_000)), ((4, 100_000),))
    return [(f"deer n={n} T={steps}", partial(case, n, steps)) for n, steps in sizes]


def windows(settings: Settings) -> list[Case]:
    """Shooting, forward and gradient, on recordings of the length of EigenWorms: against cuDNN."""
    def case(n: int, batch: int) -> Rows:
        cell, params, x = _model(n, batch, settings.pick(WORMS, 24))
        dstates = random(*x.shape)
        given, seed = cuda.to_device(x), cuda.to_device(dstates)
        options = settings.pick({}, {"window": 12})

        def both():
            solution = ps.solve(cell, params, given, method="shooting", on_failure="raise", **options)
            return solution, ps.gradient(cell, params, given, solution, seed, method="shooting", **options)

        peer = gpu_peers.cudnn_gru(params, x, dstates)
        name = f"n={n} B={batch} T={x.shape[1]}"
        rows = [_against(f"shooting forward+gradient {name}", both, peer, 50.0, settings, "x cuDNN")]
        if "peer_ms" in rows[0]:
            difference = np.abs(both()[0].states.copy_to_host() - peer.call().cpu().numpy()).max()
            rows.append(machine.row(f"states against cuDNN {name}", float(difference), "error", 1e-5, smaller=True))
        return rows

    sizes = settings.pick(((32, 1), (64, 1), (32, 8), (64, 8)), ((8, 1),))
    return [(f"shooting n={n} B={batch}", partial(case, n, batch)) for n, batch in sizes]


def gradients(settings: Settings) -> list[Case]:
    """DEER and its gradient by a reverse scan: against JAX."""
    def case(n: int) -> Rows:
        cell, params, x = _model(n, settings.pick(BATCH, 1), settings.pick(100_000, 20))
        dstates = random(*x.shape)
        given, seed = cuda.to_device(x), cuda.to_device(dstates)

        def both():
            solution = ps.solve(cell, params, given, method="deer", on_failure="raise")
            return solution, ps.gradient(cell, params, given, solution, seed, method="scan")

        start = np.zeros((x.shape[0], n), np.float32)
        peer = gpu_peers.jax_deer_gradient(params, x, start, dstates, both()[0].tol)
        return [_against(f"deer forward+gradient n={n} B={x.shape[0]} T={x.shape[1]}", both, peer, 5.0, settings)]

    return [(f"deer forward+gradient n={n}", partial(case, n)) for n in settings.pick((8, 1, 4, 16), (4,))]
