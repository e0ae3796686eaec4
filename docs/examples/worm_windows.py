"""An Elman network of 8 units on the posture of a worm, one step ahead, trained in windows of time and by itself.

    python docs/examples/worm_windows.py eigenworms_src_33x17984x6.npz
    python docs/examples/worm_windows.py eigenworms_src_33x17984x6.npz --windows 8 --iterations 400

The file holds X (N, T, 6), amplitudes of eigenworms; the first one of one recording is standardised, and the network predicts
it one step ahead. Local networks on overlapping windows are compared with Levenberg-Marquardt steps of one network from the
same start: as many of them as iterations and polishing take together, and as many as would take the same time if every
window had a processor. A loss is half the sum of squared errors; that of the last value as prediction is shown as well.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pitsolve as ps


def timed(cell: ps.cells.Elman, start: dict[str, np.ndarray], signal: np.ndarray, **options) -> tuple[ps.SchwarzFit, float]:
    """A fit and its time in seconds, compiled before."""
    ps.fit_schwarz(cell, start, signal[:-1], signal[1:], **{**options, "iterations": 1, "polish": 1})
    begin = time.perf_counter()
    fit = ps.fit_schwarz(cell, start, signal[:-1], signal[1:], **options)
    return fit, time.perf_counter() - begin


def main() -> None:
    """Read the recording, fit it twice and print both fits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="the .npz file")
    parser.add_argument("--recording", type=int, default=0)
    parser.add_argument("--steps", type=int, help="all by default")
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--overlap", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--polish", type=int, default=60)
    parser.add_argument("--seed", type=int, default=11, help="of the start")
    chosen = parser.parse_args()
    with np.load(chosen.path) as file:
        signal = file["X"][chosen.recording, :chosen.steps, :1].astype(np.float64)
    signal = (signal - signal.mean()) / signal.std()
    cell = ps.cells.Elman(input_size=1, hidden_size=chosen.hidden)
    start = cell.init(chosen.seed)
    print(f"{len(signal)} steps; loss of the last value as prediction {0.5 * np.sum(np.diff(signal, axis=0)**2):.4f}\n")

    fit, seconds = timed(cell, start, signal, windows=chosen.windows, overlap=chosen.overlap, iterations=chosen.iterations,
                         polish=chosen.polish)
    print(f"{chosen.windows} windows, {seconds:.1f} s\n{fit}\n")
    print("| iteration | loss | state gap | parameter gap | penalty of states | of parameters |\n" + "|---" * 6 + "|")
    for k in sorted({1, 2, 5, 10, 20, 50, 100, fit.iterations}):
        if k <= fit.iterations:
            print(f"| {k} | {fit.losses[k]:.4f} | {fit.state_gaps[k - 1]:.1e} | {fit.parameter_gaps[k - 1]:.1e} | "
                  f"{fit.penalties[k - 1, 0]:.2g} | {fit.penalties[k - 1, 1]:.2g} |")

    alone, seconds = timed(cell, start, signal, windows=1, iterations=0, polish=chosen.iterations + chosen.polish)
    same_time = min(chosen.iterations // chosen.windows + fit.polish_losses.size - 1, alone.polish_losses.size - 1)
    print(f"\none network, {seconds:.1f} s\n{alone}\n")
    print(f"one network after {same_time} steps, the time of the windows on {chosen.windows} processors: "
          f"{alone.polish_losses[same_time]:.4f}")
    print(f"after all {alone.polish_losses.size - 1}: {alone.loss:.4f}; by windows and polishing: {fit.loss:.4f}")


if __name__ == "__main__":
    main()
