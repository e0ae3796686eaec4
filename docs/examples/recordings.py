"""Real recordings through a GRU by any method and by `sequential`: agreement, iterations and times, forward and gradient.

    python docs/examples/recordings.py worms eigenworms_src_33x17984x6.npz
    python docs/examples/recordings.py hapt hapt_acc_long.npz --methods shooting mgrit parareal --hidden 32 64
    python docs/examples/recordings.py worms eigenworms_src_33x17984x6.npz --hidden 128 --heads 32

`worms` expects an array X (N, T, m); `hapt` the concatenated sequences X (sum of lengths, m) with their `offsets`, run as one
ragged batch. Channels are standardised. The gradient is that of a random linear function of all states. Peak memory of the
largest run is about 3 GB.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pitsolve as ps

GRIDS = {"coarsening": 16, "levels": 3}
# For each method: its options, the method of the gradient and the options of that.
METHODS = {
    "deer": ({}, "scan", {}),
    "shooting": ({}, "shooting", {}),
    "mgrit": ({"tol": 1e-6, **GRIDS}, "mgrit", {"tol": 1e-6, **GRIDS}),
    "parareal": ({"tol": 1e-6, "window": 64}, "sequential", {}),
}


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


def compare(name: str, cell: ps.cells.GRU, x: np.ndarray, lengths: np.ndarray | None, methods: list[str]) -> None:
    """Print one row of the table for each method and dtype."""
    for dtype in (np.float32, np.float64):
        params, inputs = cell.init(seed=11, dtype=dtype), x.astype(dtype)
        loop, forward = timed(ps.solve, cell, params, inputs, lengths=lengths, method="sequential")
        dstates = np.random.default_rng(13).standard_normal(loop.states.shape, np.float32).astype(dtype)
        exact, backward = timed(ps.gradient, cell, params, inputs, loop, dstates, method="sequential")
        for method in methods:
            options, how, adjoint = METHODS[method]
            if dtype == np.float32:  # 1e-6 for the norm of half a million numbers is beyond float32: the default is not
                options = {key: value for key, value in options.items() if key != "tol"}
            found, mine = timed(ps.solve, cell, params, inputs, lengths=lengths, method=method, **options)
            gradient, back = timed(ps.gradient, cell, params, inputs, found, dstates, method=how, **adjoint)
            states = float(np.abs(found.states - loop.states).max())
            error = max([relative(gradient.params[k], exact.params[k]) for k in params] + [relative(gradient.x, exact.x)])
            print(f"| {name} | {method} | {np.dtype(dtype)} | {found.iterations.min()}-{found.iterations.max()} | "
                  f"{int(found.converged.sum())}/{found.converged.size} {found.status.name.lower()} | "
                  f"{found.residual.max():.1e} | {states:.1e} | {error:.1e} | "
                  f"{forward:.2f} | {backward:.2f} | {mine:.2f} | {back:.2f} |", flush=True)


def main() -> None:
    """Read the recordings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["worms", "hapt"])
    parser.add_argument("path", help="the .npz file")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["deer"])
    parser.add_argument("--hidden", nargs="+", type=int, default=[32], help="units of the GRU, one size or several")
    parser.add_argument("--heads", type=int, default=1, help="heads of the GRU; the methods with coarse grids want one")
    chosen = parser.parse_args()
    x, lengths = {"worms": read_worms, "hapt": read_hapt}[chosen.kind](chosen.path)
    print(f"{x.shape[0]} recordings, {x.shape[1]} steps at most, {x.shape[2]} channels\n")
    print("| model | method | dtype | iterations | converged | residual | states: largest difference | "
          "gradient: relative difference | sequential forward s | gradient s | method forward s | gradient s |")
    print("|---" * 12 + "|")
    for hidden in chosen.hidden:
        name = f"GRU, {hidden} units" + (f", {chosen.heads} heads" if chosen.heads > 1 else "")
        compare(name, ps.cells.GRU(x.shape[2], hidden, heads=chosen.heads), x, lengths, chosen.methods)


if __name__ == "__main__":
    main()
