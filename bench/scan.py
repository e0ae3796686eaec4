"""Affine scans: diagonal ones against the memory bandwidth of this machine, small ones against ``associative_scan``."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench import machine, peers
from pitsolve import affine_scan
from pitsolve.backends.cpu.scan import scan
from pitsolve.backends.cpu.workspace import aligned

SEED = 20931
CHECKED = 50_000  # steps at either end that are compared with the plain loop


def _problem(steps: int, n: int, dense: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A contracting recurrence in float32: A (T, n) or (T, n, n), b (T, n), y0 (n,)."""
    rng = np.random.default_rng(SEED)
    if dense:
        A = rng.standard_normal((steps, n, n), np.float32) * np.float32(0.9 / np.sqrt(n))
    else:
        A = np.float32(0.5) + np.float32(0.5) * rng.random((steps, n), np.float32)
    return A, rng.standard_normal((steps, n), np.float32), rng.standard_normal(n, np.float32)


def _error(A: np.ndarray, b: np.ndarray, y0: np.ndarray, y: np.ndarray) -> float:
    """Largest difference from the float64 loop over the first and the last steps."""
    count = min(CHECKED, len(b))
    head = np.abs(y[:count] - peers.affine_loop(A[:count], b[:count], y0)).max()
    if count == len(b):
        return float(head)
    tail = np.abs(y[-count:] - peers.affine_loop(A[-count:], b[-count:], y[-count - 1])).max()
    return float(max(head, tail))


def _verb(A: np.ndarray, b: np.ndarray, y0: np.ndarray) -> tuple[Callable[[], None], np.ndarray]:
    """The internal verb on preallocated output, and that output."""
    out, start, stop = aligned(b.shape, b.dtype)[None], np.zeros(1, np.int64), np.full(1, len(b), np.int64)
    matrices = A[None] if A.ndim == 2 else A[None, :, None]
    return lambda: scan(matrices, b[None], y0[None], out, start, stop), out[0]


def _bandwidth_row(elements: int, n: int, repeats: int) -> dict[str, Any]:
    """A diagonal scan reads A and b and writes y: 12 bytes an element; a copy moves 8."""
    A, b, y0 = _problem(elements // n, n, dense=False)
    verb, out = _verb(A, b, y0)
    target = np.zeros_like(b)
    copy = machine.compare(verb, lambda: machine.copy(b.reshape(-1), target.reshape(-1)), repeats)
    public = machine.median_time(lambda: affine_scan(A, b, y0), repeats)
    speed, limit = 12e-9 * b.size / copy.ours.median, 8e-9 * b.size / copy.theirs.median
    return machine.row(
        f"diagonal n={n} T={len(b)}", 1.5 * copy.ratio, "x copy", target=0.7, GBs=speed, copy_GBs=limit,
        affine_scan_GBs=12e-9 * b.size / public.median, ms=1e3 * copy.ours.median, error=_error(A, b, y0, out))


def _peer_row(steps: int, n: int, dense: bool, repeats: int) -> dict[str, Any]:
    """The public function against a jitted ``jax.lax.associative_scan``; both allocate their result."""
    A, b, y0 = _problem(steps, n, dense)
    verb, _ = _verb(A, b, y0)
    peer = peers.jax_affine_scan(A, b, y0)
    errors = {"error": _error(A, b, y0, affine_scan(A, b, y0))}
    if peer.call is not None:
        errors["peer_error"] = _error(A, b, y0, peer.call())
    inner = machine.median_time(verb, repeats)
    flops = {"verb_GFLOPs": 2e-9 * A.size / inner.median} if dense else {}
    return machine.versus(
        f"{'dense' if dense else 'diagonal'} n={n} T={steps}", lambda: affine_scan(A, b, y0), peer.call, "x JAX", repeats,
        target=10.0 if dense else 5.0, reason=peer.reason, verb_ms=1e3 * inner.median, **flops, **errors)


def run(quick: bool) -> dict[str, Any]:
    """Bandwidth of diagonal scans; ratios to JAX of diagonal and dense ones."""
    repeats, elements, steps = (2, 200_000, 5_000) if quick else (7, 10_000_000, 100_000)
    bandwidth = [_bandwidth_row(elements, n, repeats) for n in (1, 8, 32, 128)]
    machine.print_table("diagonal scans in float32 against a copy of the same array", bandwidth)
    diagonal = [_peer_row(steps, n, False, repeats) for n in (8, 16, 32)]
    machine.print_table("diagonal scans against jax.lax.associative_scan", diagonal)
    dense = [_peer_row(steps, n, True, repeats) for n in (4, 8, 16, 32)]
    machine.print_table("dense scans against jax.lax.associative_scan", dense)
    return {"bandwidth": bandwidth, "diagonal": diagonal, "dense": dense}
