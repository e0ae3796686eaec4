"""Real recordings through a GRU by `deer` and by `sequential`: agreement, iterations and times, forward and gradient.

    python docs/examples/recordings.py worms eigenworms_src_33x17984x6.npz
    python docs/examples/recordings.py hapt hapt_acc_long.npz

`worms` expects an array X (N, T, m); `hapt` the concatenated sequences X (sum of lengths, m) with their `offsets`, run as one
ragged batch. Channels are standardised. The gradient is that of a random linear function of all states. Peak memory of the
largest run is about 3 GB.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pitsolve as ps


def read_worms(path: str) -> tuple[np.ndarray, None]:
    """Recordings of equal length (N, T, m)."""
    with np.load(path) as file:
        return standardise(file["X"].astype(np.float64)), None


def read_hapt(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Recordings of different lengths, padded with zeros (N, T, m), and the lengths."""
    with np.load(path) as file:
        values, offsets = standardise(file["X"].astype(np.float64)), file["offsets"]
    lengths = np.diff(offsets)
    padded = np.zeros((lengths.size, lengths.max(), values.shape[1]))
    for b, (first, length) in enumerate(zip(offsets[:-1], lengths)):
        padded[b, :length] = values[first:first + length]
    return padded, lengths


def standardise(values: np.ndarray) -> np.ndarray:
    axes = tuple(range(values.ndim - 1))
    return (values - values.mean(axis=axes)) / values.std(axis=axes)


def timed(function, *arguments, **options):
    """The result of a second call, and its time: the first one compiles."""
    function(*arguments, **options)
    begin = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - begin


def relative(value: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def compare(name: str, cell: ps.cells.GRU, x: np.ndarray, lengths: np.ndarray | None) -> None:
    """Print one row of the table for each dtype."""
    for dtype in (np.float32, np.float64):
        params, inputs = cell.init(seed=11, dtype=dtype), x.astype(dtype)
        solutions, gradients, times = {}, {}, {}
        for method in ("sequential", "deer"):
            solutions[method], forward = timed(ps.solve, cell, params, inputs, lengths=lengths, method=method)
            dstates = np.random.default_rng(13).standard_normal(solutions[method].states.shape, np.float32).astype(dtype)
            how = "sequential" if method == "sequential" else "scan"
            gradients[method], backward = timed(ps.gradient, cell, params, inputs, solutions[method], dstates, method=how)
            times[method] = forward, backward
        loop, deer = solutions["sequential"], solutions["deer"]
        states = float(np.abs(deer.states - loop.states).max())
        gradient = max([relative(gradients["deer"].params[k], gradients["sequential"].params[k]) for k in params]
                       + [relative(gradients["deer"].x, gradients["sequential"].x)])
        print(f"| {name} | {np.dtype(dtype)} | {deer.iterations.min()}-{deer.iterations.max()} | {int(deer.converged.sum())}/"
              f"{deer.converged.size} {deer.status.name.lower()} | {deer.residual.max():.1e} | {states:.1e} | {gradient:.1e} | "
              + " | ".join(f"{t:.2f}" for m in ("sequential", "deer") for t in times[m]) + " |", flush=True)


def main() -> None:
    """Read the recordings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["worms", "hapt"])
    parser.add_argument("path", help="the .npz file")
    chosen = parser.parse_args()
    x, lengths = {"worms": read_worms, "hapt": read_hapt}[chosen.kind](chosen.path)
    print(f"{x.shape[0]} recordings, {x.shape[1]} steps at most, {x.shape[2]} channels\n")
    print("| model | dtype | iterations | converged | residual | states: largest difference | gradient: relative difference | "
          "sequential forward s | gradient s | deer forward s | gradient (scan) s |")
    print("|---" * 11 + "|")
    compare("GRU, 32 units", ps.cells.GRU(x.shape[2], 32), x, lengths)
    compare("GRU, 32 heads of 4 units", ps.cells.GRU(x.shape[2], 128, heads=32), x, lengths)


if __name__ == "__main__":
    main()
