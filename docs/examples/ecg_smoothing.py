"""Two leads of an ECG with samples removed at random, smoothed by windows of time and by one window.

    python docs/examples/ecg_smoothing.py mitbih_8x216000x2.npz
    python docs/examples/ecg_smoothing.py mitbih_8x216000x2.npz --record 202 --overlap 16

The file holds X (records, T, 2) as int16 with `record`, `zero` and `gain`: millivolts are (X - zero) / gain. Every sample of
every lead is removed with probability 0.2, and the smoother is to restore it.

The model, per lead, is an integrated random walk: position p (mV) and slope v (mV a sample) with

    p_t = p_{t-1} + v_{t-1} + noise,   v_t = v_{t-1} + noise,   y_t = p_t + N(0, r^2),

which is a smoothing spline in discrete time. The noise of both leads together has covariance S kron [[1/3, 1/2], [1/2, 1]],
where S (2, 2) is the covariance of the second differences of the recording, taken where three samples in a row were observed.
So n = 4, and nothing is tuned to the removed samples. r = 0.003 mV is about half the step of the digitisation, 0.005 mV. The
first state is not known: its covariance is the identity.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pitsolve as ps

NOISE = 0.003  # r, mV


def read(path: str, record: str) -> np.ndarray:
    """The two leads of one record in mV (T, 2)."""
    with np.load(path) as file:
        names = file["record"].tolist()
        if record not in names:
            raise SystemExit(f"record must be one of {', '.join(names)}, got {record}")
        return (file["X"][names.index(record)].astype(np.float64) - file["zero"]) / file["gain"]


def model(y: np.ndarray, observed: np.ndarray) -> ps.leastsquares.BlockTridiagonal:
    """Integrated random walks of both leads as a least-squares problem."""
    three = (observed[2:] & observed[1:-1] & observed[:-2]).all(axis=1)
    jumps = np.cov(np.diff(y, 2, axis=0)[three].T)
    Q = np.tile(np.kron(jumps, [[1 / 3, 1 / 2], [1 / 2, 1]]), (y.shape[0], 1, 1))
    Q[0] = np.eye(4)
    return ps.leastsquares.BlockTridiagonal.from_state_space(
        F=np.kron(np.eye(2), [[1.0, 1.0], [0.0, 1.0]]), Q=Q, C=np.kron(np.eye(2), [[1.0, 0.0]]), R=NOISE**2 * np.eye(2), y=y,
        observed=observed)


def interpolate(y: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Straight lines between the samples that were observed."""
    t = np.arange(len(y))
    return np.stack([np.interp(t, t[seen], lead[seen]) for lead, seen in zip(y.T, observed.T)], axis=1)


def timed(function, *arguments, **options):
    """The result of a second call, and its time: the first one compiles."""
    function(*arguments, **options)
    begin = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - begin


def main() -> None:
    """Read a record, remove samples, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="the .npz file")
    parser.add_argument("--record", default="100", help="name of the record (default 100)")
    parser.add_argument("--removed", type=float, default=0.2, help="probability that a sample is removed (default 0.2)")
    parser.add_argument("--windows", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--overlap", type=int, nargs="+", default=[4, 16], help="steps that two windows share (default 4, 16)")
    parser.add_argument("--sweeps", type=int, default=1, help="set-up sweeps of the transmission by Schur complements")
    chosen = parser.parse_args()
    recording = read(chosen.path, chosen.record)
    observed = np.random.default_rng(17).random(recording.shape) >= chosen.removed
    problem = model(np.where(observed, recording, np.nan), observed)

    def missed(leads: np.ndarray) -> float:
        return float(np.sqrt(np.mean((leads - recording)[~observed]**2)))

    one, seconds = timed(ps.schwarz_lstsq, problem, windows=1)
    lines = missed(interpolate(recording, observed))
    print(f"record {chosen.record}: {len(recording)} samples of 2 leads, {(~observed).sum()} of {observed.size} removed\n"
          f"root mean square of what was missed at the removed samples: smoother {missed(one.solution[:, ::2]):.5f} mV, "
          f"straight lines {lines:.5f} mV\n")
    print("| windows | overlap | transmission | iterations | rate | error | residual | missed, mV | bytes an interface | "
          "seconds |")
    print("|---" * 10 + "|")

    def show(count: int, overlap: int | str, transmission: str, sol, seconds: float) -> None:
        error = float(np.abs(sol.solution - one.solution).max())
        numbers = f"{sol.iterations} | {sol.rate:.3f} | {error:.1e} | {sol.residual:.1e} | {missed(sol.solution[:, ::2]):.5f}"
        print(f"| {count} | {overlap} | {transmission} | {numbers} | {sol.bytes_per_interface:g} | {seconds:.3f} |", flush=True)
        if not error < 1e-8:
            raise SystemExit(f"{count} windows, {transmission}: error {error:.1e}, expected below 1e-8\n{sol}")

    show(1, "-", "-", one, seconds)
    for count in chosen.windows:
        for overlap in chosen.overlap:
            for transmission, options in (("dirichlet", {}), ("schur", {"sweeps": chosen.sweeps})):
                found, seconds = timed(ps.schwarz_lstsq, problem, windows=count, overlap=overlap, transmission=transmission,
                                       tol=1e-11, on_failure="raise", **options)
                show(count, overlap, transmission, found, seconds)


if __name__ == "__main__":
    main()
