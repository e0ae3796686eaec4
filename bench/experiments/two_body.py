"""The two-body Hamiltonian network of the DEER paper: training by DEER, by the loop and by RK45, side by side.

The network learns the orbits of two bodies from their states on a grid of time, at first from the first points, then from ever
more of them. All trainings start from the same parameters and see the same batches in the same order, in turns, so that a
machine that drifts slows all of them alike. Run it as ``python -m bench.experiments.two_body``.
"""

import argparse
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pitsolve as ps
from bench.experiments import common, hamiltonian, two_body_data
from bench.experiments.two_body_training import METHODS, Batch, Network, Trainee

COLOURS = {"deer": "#1f77b4", "sequential": "#2ca02c", "rk45 adjoint": "#d62728", "rk45 unrolled": "#ff7f0e"}
DASHES = {"deer": "-", "sequential": "--", "rk45 adjoint": "-.", "rk45 unrolled": ":"}


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment. The paper's: the same rows, 10,000 points, 64 units in 6 layers, rate 1e-3, 55,000 steps."""

    training: int = 800  # rows
    held_back: int = 100  # rows
    points: int = 1000
    horizon: float = 10.0
    width: int = 32
    layers: int = 3
    batch: int = 16
    first: int = 20  # time points of the first epoch
    growth: int = 20  # and how many more in every other
    rate: float = 3e-3
    epochs: int = 20
    seed: int = 20931

    def length(self, epoch: int) -> int:
        """Time points of an epoch."""
        return min(self.points, self.first + self.growth * epoch)


QUICK = Settings(training=8, held_back=2, points=60, horizon=0.6, width=8, layers=2, batch=4, epochs=3)


def train(settings: Settings, data: two_body_data.Data, minutes: float) -> tuple[dict[str, Trainee], list[dict[str, Any]]]:
    """All trainings, and for every epoch what a cold start of deer would have taken in its last batch."""
    network, start = Network(settings.width, settings.layers), data.states[:settings.training, 0]
    trainees = {}
    for method in METHODS:
        params = hamiltonian.init(*network, settings.seed)
        warm = np.repeat(start[:, None], settings.points, axis=1) if method == "deer" else None
        trainees[method] = Trainee(method, network, params, ps.training.Adam(settings.rate), warm)
        network.evaluate(method, params, Batch(start[:1], data.states[:1, 1:3], data.dt))  # compiles
    random, epochs = np.random.default_rng(settings.seed + 1), []
    for epoch in range(settings.epochs):
        length, order = settings.length(epoch), random.permutation(settings.training)
        for rows in np.split(order, range(settings.batch, settings.training, settings.batch)):
            batch = Batch(start[rows], data.states[rows, 1:length + 1], data.dt)
            before = trainees["deer"].params
            for trainee in trainees.values():
                trainee.learn(batch, rows)
        cold = network.solve(before, batch, "deer")
        epochs.append({"points": length, "warm": trainees["deer"].steps[-1]["iterations"],
                       "cold": float(np.mean(cold.iterations)), "cold fallbacks": int(np.sum(cold.resumed_at < length)),
                       **{method: _mean(trainee, "loss", epoch, settings) for method, trainee in trainees.items()}})
        line = "  ".join(f"{method} {epochs[-1][method]:.6f}" for method in METHODS)
        print(f"  epoch {epoch + 1:3d}  {length:5d} points  loss: {line}  iterations {epochs[-1]['warm']:.1f} warm, "
              f"{epochs[-1]['cold']:.1f} cold", flush=True)
        if sum(step["seconds"] for trainee in trainees.values() for step in trainee.steps) > 60.0 * minutes:
            break
    return trainees, epochs


def _mean(trainee: Trainee, name: str, epoch: int, settings: Settings) -> float:
    """Mean of one of the facts of the steps of an epoch."""
    steps = -(-settings.training // settings.batch)
    return statistics.fmean(step[name] for step in trainee.steps[epoch * steps:(epoch + 1) * steps])


def scaling(settings: Settings, data: two_body_data.Data, trained: Trainee, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of loss and gradient as the number of points grows, at the trained parameters, by turns.

    deer starts from the states of the parameters before the last step of the optimiser, as it does in training.
    """
    network, rows, table = trained.network, np.arange(settings.batch), []
    for length in sorted({max(1, settings.points // part) for part in (50, 20, 10, 5, 2, 1)}):
        batch = Batch(data.states[rows, 0], data.states[rows, 1:length + 1], data.dt)
        found = network.evaluate("sequential", trained.params, batch)
        params, _ = trained.optimizer.update(trained.params, found.gradient, trained.state)
        taken: dict[str, list[dict[str, Any]]] = {"deer, cold": [], **{method: [] for method in METHODS}}
        for _ in range(repeats):
            for name, facts in taken.items():
                method, _, cold = name.partition(", ")
                guess = found.states if method == "deer" and not cold else None
                facts.append(network.evaluate(method, params, batch, guess).facts)
        for name, facts in taken.items():
            milliseconds = {part: 1e3 * statistics.median(one[part] for one in facts)
                            for part in ("forward", "backward", "processor")}
            table.append({"points": length, "method": name, **facts[-1], **milliseconds})
    return table


def held_back(settings: Settings, epochs: int, data: two_body_data.Data, trainee: Trainee) -> float:
    """Mean squared error over the points of the last epoch, of the rows that no training saw."""
    states = data.states[settings.training:, :settings.length(epochs - 1) + 1]
    found = trainee.network.solve(trainee.params, Batch(states[:, 0], states[:, 1:], data.dt), "sequential")
    return float(np.mean((found.states - states[:, 1:]) ** 2))


def totals(settings: Settings, trainees: dict[str, Trainee], epochs: list[dict[str, Any]], data) -> list[dict[str, Any]]:
    """What each training took and reached. Processor seconds are those of all threads, without waiting for others."""
    deer, found = trainees["deer"].steps, []
    for method, trainee in trainees.items():
        took = {name: sum(step[name] for step in trainee.steps) for name in ("seconds", "processor")}
        difference = max(abs(ours["loss"] / theirs["loss"] - 1.0) for ours, theirs in zip(trainee.steps, deer))
        found.append({"method": method, **took, "last loss": epochs[-1][method],
                      "held back": held_back(settings, len(epochs), data, trainee), "difference to deer": difference})
    return found


def print_tables(found: list[dict[str, Any]], costs: list[dict[str, Any]]) -> None:
    """Both in Markdown, with times over those of deer."""
    rows = [(one["method"], f"{one['seconds']:.4g}", f"{one['seconds'] / found[0]['seconds']:.2f}", f"{one['processor']:.4g}",
             *(f"{one[name]:.6f}" for name in ("last loss", "held back")), f"{one['difference to deer']:.1e}") for one in found]
    head = ("training", "seconds", "/ deer", "processor seconds", "last epoch's loss", "rows held back", "difference to deer")
    print("\n" + common.table(head, rows))
    whole = {(one["points"], one["method"]): one["forward"] + one["backward"] for one in costs}
    rows = []
    for one in costs:
        counts = [f"{one[name]:g} {name}" for name in ("iterations", "fallbacks", "evaluations", "pullbacks") if name in one]
        points, method = one["points"], one["method"]
        rows.append((points, method, *(f"{one[part]:.2f}" for part in ("forward", "backward", "processor")),
                     f"{whole[points, method] / whole[points, 'deer']:.2f}", ", ".join(counts)))
    head = ("points", "method", "forward ms", "backward ms", "processor ms", "/ deer", "what it took")
    print("\n" + common.table(head, rows))


def draw(figure: Any, trainees: dict[str, Trainee], costs: list[dict[str, Any]]) -> None:
    """Loss over steps, loss over seconds, and milliseconds of a step over the number of points."""
    figure.set_size_inches(13, 4)
    axes = figure.subplots(1, 3)
    for method, trainee in trainees.items():
        style = {"color": COLOURS[method], "linestyle": DASHES[method], "label": METHODS[method]}
        losses, seconds = ([step[name] for step in trainee.steps] for name in ("loss", "seconds"))
        axes[0].semilogy(losses, **style)
        axes[1].semilogy(np.cumsum(seconds), losses, **style)
        lines = [one for one in costs if one["method"] == method]
        axes[2].loglog([one["points"] for one in lines], [one["forward"] + one["backward"] for one in lines], marker="o",
                       **style)
    for axis, words in zip(axes, ("steps of the optimiser", "seconds of training", "time points")):
        axis.set_xlabel(words)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean squared error of the batch")
    axes[2].set_ylabel("milliseconds of loss and gradient")
    axes[0].legend(fontsize=8)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the experiment."""
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.two_body", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run, not how fast")
    parser.add_argument("--data", type=Path, metavar="FILE", help=".npz of the orbits; written if it is not there")
    parser.add_argument("--epochs", type=int, help="default 20, 3 with --quick")
    parser.add_argument("--minutes", type=float, default=np.inf, help="most minutes of all trainings together, in whole epochs")
    parser.add_argument("--output", type=Path, default=Path("bench/results"), metavar="DIR", help="folder of the JSON file")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="the figure (default: NAME.png beside the JSON file)")
    parser.set_defaults(name="two_body")
    chosen = parser.parse_args(arguments)
    settings = QUICK if chosen.quick else Settings()
    if chosen.epochs is not None:
        if chosen.epochs < 1:
            parser.error(f"--epochs: expected at least 1, got {chosen.epochs}")
        settings = replace(settings, epochs=chosen.epochs)
    data = two_body_data.load(chosen.data, settings.training + settings.held_back, settings.points, settings.horizon,
                              settings.seed)
    trainees, epochs = train(settings, data, chosen.minutes)
    costs = scaling(settings, data, trainees["deer"], 1 if chosen.quick else 5)
    found = totals(settings, trainees, epochs, data)
    print_tables(found, costs)
    failed, rows = sum(step["fallbacks"] for step in trainees["deer"].steps), settings.training * len(epochs)
    print(f"\nfallbacks of deer in training: {failed} of {rows} solutions")
    steps = {method: trainee.steps for method, trainee in trainees.items()}
    result = {"settings": asdict(settings), "trainings": found, "epochs": epochs, "scaling": costs, "steps": steps}
    common.write(chosen, result, lambda figure: draw(figure, trainees, costs))


if __name__ == "__main__":
    main()
