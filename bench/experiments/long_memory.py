"""Long memory: the adding problem and copy memory, with a GRU and an LEM; which solver still converges as they learn.

    python -m bench.experiments.long_memory

Adding: the first channel is noise in [0, 1], the second marks one step in each half; the target is the sum of the two marked
numbers (always answering 1 has the loss 1/6). Copy memory: ten symbols, T blanks, a sign to begin; the target is the ten
symbols again (guessing has the accuracy 1/8). Networks are trained by the loop; from time to time each solver is tried on one
batch.
"""

from __future__ import annotations

import numpy as np

import pitsolve as ps
from bench.experiments import common
from pitsolve.sequences import Evaluation

SYMBOLS, COPIED = 8, 10
SOLVERS = ("deer", "quasi-deer", "quasi-elk", "shooting", "mgrit")


def adding(samples: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (samples, steps, 2) and the sums (samples, 1)."""
    random = np.random.default_rng(seed)
    x = np.zeros((samples, steps, 2), np.float32)
    x[..., 0] = random.random((samples, steps))
    marks = np.stack([random.integers(0, steps // 2, samples), random.integers(steps // 2, steps, samples)], axis=1)
    x[np.arange(samples)[:, None], marks, 1] = 1
    return x, x[np.arange(samples)[:, None], marks, 0].sum(axis=1, keepdims=True)


def copying(samples: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs one-hot over symbols, blank and sign; labels at the last ten steps, -1 elsewhere."""
    random = np.random.default_rng(seed)
    symbols = random.integers(0, SYMBOLS, (samples, COPIED))
    code = np.full((samples, steps + 2 * COPIED), SYMBOLS)
    code[:, :COPIED] = symbols
    code[:, -COPIED - 1] = SYMBOLS + 1
    labels = np.full(code.shape, -1)
    labels[:, -COPIED:] = symbols
    return np.eye(SYMBOLS + 2, dtype=np.float32)[code], labels


def lem(input_size: int, hidden: int) -> ps.cells.Cell:
    return ps.cells.LEM(input_size, hidden, dt=1.0)


def model_of(task: str, cell: str, hidden: int) -> ps.training.SequenceClassifier | ps.training.SequenceRegressor:
    fields = {"hidden": hidden, "cell": lem if cell == "lem" else cell}
    if task == "adding":
        return ps.training.SequenceRegressor(input_size=2, targets=1, readout="last", **fields)
    return ps.training.SequenceClassifier(input_size=SYMBOLS + 2, classes=SYMBOLS, readout="each", **fields)


def tried(model, params: dict, x: np.ndarray, solvers: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Iterations a sequence and the share of sequences that had to be finished by the loop, of each solver on one batch."""
    found = {}
    for name in solvers:
        run = Evaluation(ps.training.Solver(name))
        model.forward(params, x, run)
        sequences, iterations, fallbacks, _ = run.health.counts
        found[name] = {"iterations": iterations / sequences, "fallbacks": fallbacks / sequences}
    return found


def experiment(chosen, task: str, cell: str, steps: int) -> dict:
    """Train one network; the solvers are tried before the first epoch and after some of them."""
    make = adding if task == "adding" else copying
    samples = 32 if chosen.quick else max(200, chosen.samples * 1000 // steps)  # longer sequences, fewer of them
    tests = 16 if chosen.quick else min(200, samples)
    data, test = make(samples, steps, chosen.seeds[0]), make(tests, steps, chosen.seeds[0] + 1)
    model = model_of(task, cell, chosen.hidden)
    params = model.init(seed=chosen.seeds[0])
    # Gates begin by keeping, at a rate of 1 / T: the memory has to be there before it can be learned.
    if cell == "gru":
        params["layers.0.recurrent.bias_hh"][chosen.hidden:2 * chosen.hidden] += np.log(steps)
    else:
        params["layers.0.recurrent.bias"][chosen.hidden:2 * chosen.hidden] -= np.log(steps)  # those of z
    solvers = tuple(name for name in SOLVERS if name != "mgrit" or cell == "gru")
    tries, probe = [{"epoch": 0, **tried(model, params, test[0][:2], solvers)}], max(1, chosen.epochs // 4)

    def after(run: ps.training.FitResult) -> None:
        epoch = len(run.history["loss"])
        if epoch % probe == 0:
            tries.append({"epoch": epoch, **tried(model, run.params, test[0][:2], solvers)})

    name = f"{task} {cell} T={steps}"
    run = common.train(chosen, {name: {
        "model": model, "params": params, "method": "sequential", "batch_size": chosen.batch, "seed": chosen.seeds[0],
        "optimizer": ps.training.Adam(chosen.rate, clip_norm=1.0), "after_epoch": after}}, data, test)[name]
    return {"name": name, "run": run, "tries": tries}


def main(arguments: list[str] | None = None) -> None:
    """Train all networks, print the tables, write the curves."""
    parser = common.parser("long_memory", __doc__, None, epochs=20)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--tasks", nargs="+", default=["adding", "copy"], choices=["adding", "copy"])
    parser.add_argument("--cells", nargs="+", default=["gru", "lem"], choices=["gru", "lem"])
    for name, default in (("hidden", 16), ("samples", 1000), ("batch", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=3e-3, help="of Adam")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.epochs, chosen.steps, chosen.hidden = 2, [40], 4
    done = [experiment(chosen, task, cell, steps) for task in chosen.tasks for steps in chosen.steps for cell in chosen.cells]
    rows = [(each["name"], len(each["run"].history["loss"]), f"{each['run'].history['validation_loss'][-1]:.4f}",
             f"{each['run'].history['validation_accuracy'][-1]:.3f}", f"{common.seconds_of(each['run']):.1f}") for each in done]
    print("\n" + common.table(("network", "epochs", "test loss", "test accuracy", "seconds an epoch"), rows) + "\n")
    words = [(each["name"], counts["epoch"], *(_words(counts.get(name)) for name in SOLVERS))
             for each in done for counts in each["tries"]]
    print(common.table(("network", "epoch", *SOLVERS), words))
    results = {each["name"]: each["run"] for each in done}
    common.write(chosen, {"rows": rows, "runs": {name: common.columns(run) for name, run in results.items()},
                          "tries": {each["name"]: each["tries"] for each in done}},
                 lambda figure: common.curves(figure, results, (("loss", "epochs"), ("validation_loss", "epochs"))))


def _words(counts: dict[str, float] | None) -> str:
    if counts is None:
        return "-"
    return f"{counts['iterations']:.0f}" + (f", {100 * counts['fallbacks']:.0f} % by the loop" if counts["fallbacks"] else "")


if __name__ == "__main__":
    main()
