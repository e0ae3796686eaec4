"""Images read pixel by pixel: a multi-head GRU with strides on sequential MNIST (784 steps) or sequential CIFAR-10 (1,024).

    python -m bench.experiments.images mnist.npz

The file holds X_train (N, 28, 28) or (N, 32, 32, 3) as uint8, y_train, X_test, y_test. For CIFAR-10 take a device with
``--backend cuda``, ``--hidden 256 --layers 4 --heads 32 --strides 8``: the network of the DEER slides.
"""

from __future__ import annotations

import numpy as np

import pitsolve as ps
from bench.experiments import common


def read(path, count: int | None) -> tuple[tuple, tuple]:
    """Training and test data as sequences of standardised pixels (N, T, channels)."""
    found = common.arrays_of(path, X_train=(3, 4), y_train=(1,), X_test=(3, 4), y_test=(1,))
    train, test = (tuple(array[:count] for array in part) for part in (found[:2], found[2:]))
    mean, deviation = train[0].mean(axis=(0, 1, 2)), train[0].std(axis=(0, 1, 2))
    channels = train[0].shape[3] if train[0].ndim == 4 else 1
    return tuple((((x - mean) / deviation).astype(np.float32).reshape(len(x), -1, channels), y.astype(int))
                 for x, y in (train, test))


def main(arguments: list[str] | None = None) -> None:
    """Train, print the table, write the curves."""
    parser = common.parser("images", __doc__, "the .npz file of the images", epochs=10)
    for name, default in (("hidden", 64), ("layers", 2), ("heads", 16), ("strides", 8), ("batch", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=4e-3, help="of AdamW, at the top of a warm-up and half a cosine")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--bidirectional", action="store_true")
    parser.add_argument("--method", default="auto", help="a method of pitsolve.solve")
    parser.add_argument("--backend", default="auto", choices=("auto", "cpu", "cuda"))
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.epochs, chosen.hidden, chosen.heads = 1, 16, 8
    data, test = read(chosen.data, 100 if chosen.quick else None)
    model = ps.training.SequenceClassifier(
        layers=chosen.layers, input_size=data[0].shape[2], hidden=chosen.hidden, classes=10, heads=chosen.heads,
        strides=chosen.strides, bidirectional=chosen.bidirectional, residual=True, norm=True, mixing="glu", encoder="linear",
        head="linear", dropout=chosen.dropout)
    schedule = ps.training.WarmupCosine(min(1, chosen.epochs / 4), chosen.epochs, start=0.1, end=0.01)
    optimizer = ps.training.AdamW(chosen.rate, weight_decay=0.01, clip_norm=1.0)
    runs = {f"seed {seed}": {"model": model, "params": model.init(seed=seed), "batch_size": chosen.batch,
                             "optimizer": optimizer, "schedule": schedule, "seed": seed,
                             "method": ps.training.Solver(chosen.method, backend=chosen.backend)} for seed in chosen.seeds}
    results = common.train(chosen, runs, data, test)
    rows = [(name, sum(value.size for value in run.params.values()), len(run.history["loss"]), f"{run.history['loss'][-1]:.4f}",
             f"{100 * run.history['accuracy'][-1]:.2f}", f"{100 * run.history['validation_accuracy'][-1]:.2f}",
             f"{run.history['seconds'].sum() / 60:.1f}", f"{run.history['peak_memory'][-1] / 2**30:.2f}")
            for name, run in results.items()]
    print("\n" + common.table(("run", "parameters", "epochs", "last loss", "training accuracy %", "test accuracy %", "minutes",
                               "peak GiB"), rows))
    common.write(chosen, {"rows": rows, "runs": {name: common.columns(run) for name, run in results.items()}},
                 lambda figure: common.curves(figure, results, (("loss", "epochs"), ("accuracy", "epochs"),
                                                                ("validation_accuracy", "minutes"))))


if __name__ == "__main__":
    main()
