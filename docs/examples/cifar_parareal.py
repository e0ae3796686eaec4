"""A deep residual network and its parareal versions trained alike on CIFAR: error rates, as in the paper's Table 1, and curves.

    python docs/examples/cifar_parareal.py cifar10_sub_10000_2000.npz --depth 29 --epochs 30 --figure curves.png
    python docs/examples/cifar_parareal.py cifar-10-batches-bin --depth 110 --epochs 200 --milestones 80 120
    python docs/examples/cifar_parareal.py cifar10_sub_10000_2000.npz --depth 20 --epochs 1 --first 512      # does it run?

The file is an .npz with X_train, y_train, X_test and y_test, or the folder of the official binary files. Every network is
trained with the same schedule on the same batches in the same order for each seed; a run that was interrupted goes on from its
checkpoint in --output when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import pitsolve as ps


def network(depth: int, classes: int, subnetworks: int) -> ps.networks.Chain | ps.networks.PararealNetwork:
    """The whole network for one subnetwork, else its parareal version with ceil(12 / N) coarse units."""
    whole = ps.networks.resnet(depth, classes)
    return whole if subnetworks == 1 else ps.networks.parareal(whole, subnetworks)


def read(chosen: argparse.Namespace) -> tuple[tuple, tuple]:
    """Training and validation data, with standardised colours."""
    train, test = (ps.networks.read_cifar(chosen.data, split, classes=chosen.classes) for split in ("train", "test"))
    count = chosen.first
    return ((train.standardised()[:count], train.labels[:count]),
            (test.standardised(like=train)[:count], test.labels[:count]))


def train(chosen: argparse.Namespace, subnetworks: int, seed: int, data: tuple, validation: tuple) -> dict:
    """Train one network; returns its history as lists."""
    net = network(chosen.depth, chosen.classes, subnetworks)
    name = f"resnet{chosen.depth}-N{subnetworks}-seed{seed}"

    def report(run: ps.networks.FitResult) -> None:
        last = {key: values[-1] for key, values in run.history.items()}
        print(f"{name}  epoch {len(run.history['loss']):3d}  loss {last['loss']:.4f}  error {100 * last['error']:5.2f} %  "
              f"validation {100 * last['validation_error']:5.2f} %  {last['seconds']:.0f} s", flush=True)

    run = ps.networks.fit(
        net, net.init(seed), data, validation=validation, seed=seed, epochs=chosen.epochs, batch_size=chosen.batch,
        optimizer=ps.training.SGD(lr=chosen.rate, momentum=0.9, weight_decay=5e-4),
        schedule=ps.training.StepSchedule(tuple(chosen.milestones)), augment=ps.networks.crop_and_flip,
        checkpoint=chosen.output / f"{name}.checkpoint", checkpoint_every=chosen.save_every, recompute=chosen.recompute,
        workers=chosen.workers, after_epoch=report)
    return {"name": name, "subnetworks": subnetworks, "seed": seed, "parameters": sum(v.size for v in run.params.values()),
            "history": {key: values.tolist() for key, values in run.history.items()}}


def table(runs: list[dict]) -> str:
    """Validation error after the last epoch: of every seed, their mean and standard deviation."""
    lines = ["| network | seeds | error % of each | mean | deviation | training loss | seconds an epoch |", "|---" * 7 + "|"]
    for subnetworks in sorted({run["subnetworks"] for run in runs}):
        mine = [run for run in runs if run["subnetworks"] == subnetworks]
        errors = np.array([100 * run["history"]["validation_error"][-1] for run in mine])
        losses = [run["history"]["loss"][-1] for run in mine]
        seconds = np.median([run["history"]["seconds"] for run in mine])
        spread = f"{errors.std(ddof=1):.2f}" if len(mine) > 1 else "-"
        words = "whole" if subnetworks == 1 else f"N = {subnetworks}"
        lines.append(f"| {words} | {' '.join(str(run['seed']) for run in mine)} | {' '.join(f'{e:.2f}' for e in errors)} | "
                     f"{errors.mean():.2f} | {spread} | {np.mean(losses):.4f} | {seconds:.1f} |")
    return "\n".join(lines)


def draw(runs: list[dict], path: Path, title: str) -> None:
    """Training loss and validation error over epochs: the mean over seeds, with their range."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for subnetworks in sorted({run["subnetworks"] for run in runs}):
        for axis, key, factor in ((axes[0], "loss", 1), (axes[1], "validation_error", 100)):
            values = factor * np.array([run["history"][key] for run in runs if run["subnetworks"] == subnetworks])
            epochs = np.arange(1, values.shape[1] + 1)
            axis.plot(epochs, values.mean(axis=0), label="whole" if subnetworks == 1 else f"N = {subnetworks}")
            axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), alpha=0.2)
    axes[0].set_yscale("log")
    for axis, label in zip(axes, ("training loss", "validation error, %")):
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[1].legend()
    picture.suptitle(title)
    picture.savefig(path, dpi=130)
    print(f"figure: {path}")


def main() -> None:
    """Train all networks for all seeds; print the table, write the histories, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the .npz file, or the folder of the binary files")
    parser.add_argument("--classes", type=int, default=10, choices=[10, 100])
    parser.add_argument("--depth", type=int, default=29, help="9 k + 2")
    parser.add_argument("--subnetworks", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--milestones", type=int, nargs="*",
                        help="epochs from which on the rate is a tenth; default: after 40 and 60 %% of all")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--first", type=int, help="only so many images of each set")
    parser.add_argument("--recompute", type=int, default=False, help="units that share a stored input; saves memory")
    parser.add_argument("--workers", type=int, help="subnetworks at once")
    parser.add_argument("--save-every", type=int, help="batches between checkpoints, beside those after each epoch")
    parser.add_argument("--output", type=Path, default=Path("cifar_parareal"), help="folder of checkpoints and results")
    parser.add_argument("--figure", type=Path, help="file of the curves")
    chosen = parser.parse_args()
    if chosen.milestones is None:
        chosen.milestones = sorted({max(1, chosen.epochs * 4 // 10), max(1, chosen.epochs * 6 // 10)})
    chosen.output.mkdir(parents=True, exist_ok=True)
    data, validation = read(chosen)
    begin = time.perf_counter()
    runs = [train(chosen, count, seed, data, validation) for seed in chosen.seeds for count in chosen.subnetworks]
    title = f"ResNet-{chosen.depth}, {len(data[0])} training and {len(validation[0])} validation images, {chosen.epochs} epochs"
    (chosen.output / "results.json").write_text(json.dumps({"title": title, "runs": runs}, indent=1) + "\n")
    print(f"\n{title}, {time.perf_counter() - begin:.0f} s\n\n{table(runs)}")
    if chosen.figure:
        draw(runs, chosen.figure, title)


if __name__ == "__main__":
    main()
