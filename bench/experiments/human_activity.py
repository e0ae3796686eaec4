"""UCI-HAR: the two-layer GRU of Moon and Cyr, trained by the loop, by truncated multigrid and by multigrid to a tolerance.

    python -m bench.experiments.human_activity uci_har_third.npz

100 units a layer, batches of 100 sequences of 128 steps, Adam at 1e-3, as in the paper; a third of its data. Multigrid has 3
levels with coarsening 4; truncated means 2 cycles forward and 1 backward. A network that was trained with an error in its
states is evaluated with that error, and by the loop.
"""

from __future__ import annotations

import numpy as np

import pitsolve as ps
from bench.experiments import common

GRID = {"levels": 3, "coarsening": 4}
RUNS = {  # name: cell, solver
    "classic GRU, loop": ("gru", ps.training.Solver("sequential")),
    "implicit GRU, loop": ("implicit-gru", ps.training.Solver("sequential")),
    "implicit GRU, truncated multigrid": ("implicit-gru", ps.training.truncated_multigrid(2, 1, **GRID)),
    "implicit GRU, multigrid to 1e-3": ("implicit-gru", ps.training.Solver(
        "mgrit", {"tol": 1e-3, "relative": True, **GRID}, "mgrit", {"tol": 1e-3, **GRID})),
}


def read(path, count: int | None) -> tuple[tuple, tuple]:
    """Training and test data, each channel standardised by the training data."""
    found = common.arrays_of(path, X_train=(3,), y_train=(1,), X_test=(3,), y_test=(1,))
    train, test = (tuple(array[:count] for array in part) for part in (found[:2], found[2:]))
    mean, deviation = train[0].mean(axis=(0, 1)), train[0].std(axis=(0, 1))
    return tuple((((x - mean) / deviation).astype(np.float32), y.astype(int)) for x, y in (train, test))


def main(arguments: list[str] | None = None) -> None:
    """Train, print the table, write the curves."""
    parser = common.parser("human_activity", __doc__, "uci_har_third.npz: X_train (N, 128, 9), y_train, X_test, y_test",
                           epochs=25, seeds=(3, 5, 7))
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.epochs, chosen.seeds = 2, chosen.seeds[:1]
    data, test = read(chosen.data, 200 if chosen.quick else None)
    results, rows = {}, []
    for seed in chosen.seeds:
        runs = {}
        for name, (cell, solver) in RUNS.items():
            model = ps.training.SequenceClassifier(
                layers=2, input_size=9, hidden=100, classes=6, cell=cell, readout="last")
            runs[f"{name}, seed {seed}"] = {
                "model": model, "params": model.init(seed=seed), "method": solver, "optimizer": ps.training.Adam(1e-3),
                "batch_size": 100, "seed": seed}
        found = common.train(chosen, runs, data, test)
        results |= found
        for name, run in found.items():
            _, by_loop = ps.training.evaluate(runs[name]["model"], run.params, test, method="sequential", batch_size=100)
            errors = run.history["gradient_error"]
            rows.append((name, f"{100 * run.history['accuracy'][-1]:.1f}",
                         f"{100 * run.history['validation_accuracy'][-1]:.1f}", f"{100 * by_loop:.1f}",
                         f"{errors[0]:.3f} to {errors[-1]:.3f}" if errors[0] == errors[0] else "-",
                         f"{run.history['iterations'][0]:.1f} to {run.history['iterations'][-1]:.1f}",
                         f"{common.seconds_of(run):.1f}"))
    print("\n" + common.table(("run", "training accuracy %", "test accuracy %, same solver", "by the loop", "gradient error",
                               "cycles", "seconds an epoch"), rows))
    first = {name: run for name, run in results.items() if name.endswith(f"seed {chosen.seeds[0]}")}
    common.write(chosen, {"rows": rows, "runs": {name: common.columns(run) for name, run in results.items()}},
                 lambda figure: common.curves(figure, first, (("loss", "epochs"), ("validation_accuracy", "epochs"),
                                                              ("gradient_error", "epochs"))))


if __name__ == "__main__":
    main()
