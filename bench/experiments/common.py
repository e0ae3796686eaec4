"""What the experiments share: their command line, runs side by side, tables, the JSON file and the figure."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

import pitsolve as ps
from bench import machine


def parser(name: str, description: str, data: str | None, epochs: int,
           seeds: tuple[int, ...] = (3,)) -> argparse.ArgumentParser:
    """The arguments that every experiment takes; ``data`` says what the file must hold."""
    made = argparse.ArgumentParser(prog=f"python -m bench.experiments.{name}", description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        made.add_argument("data", type=Path, help=data)
    made.add_argument("--quick", action="store_true", help="a few small steps: does it run, not what does it learn")
    made.add_argument("--epochs", type=int, default=epochs, help=f"passes over the data (default {epochs})")
    made.add_argument("--minutes", type=float, default=np.inf, help="most minutes of training of each run, in whole epochs")
    made.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    made.add_argument("--checkpoints", type=Path, help="folder of checkpoints; a run that was interrupted goes on from there")
    made.add_argument("--output", type=Path, default=Path("bench/results"), metavar="DIR", help="folder of the JSON file")
    made.add_argument("--figure", type=Path, metavar="FILE", help="the figure (default: NAME.png beside the JSON file)")
    made.set_defaults(name=name)
    return made


def arrays_of(path: Path, **dimensions: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Arrays of an .npz file, by name and possible numbers of axes; ends with a sentence where it is another file."""
    wanted = f"{path} must be an .npz file with arrays {', '.join(dimensions)}"
    try:
        with np.load(path) as file:
            found = {name: file[name] for name in dimensions}
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise SystemExit(f"{wanted}: {error}") from None
    for name, array in found.items():
        if array.ndim not in dimensions[name]:
            axes = " or ".join(map(str, dimensions[name]))
            raise SystemExit(f"{wanted}; {name} should have {axes} axes, got shape {array.shape}")
    return tuple(found.values())


def train(chosen: argparse.Namespace, runs: dict[str, dict], data: tuple,
          validation: tuple | None) -> dict[str, ps.training.FitResult]:
    """Several runs, one epoch of each in turn, so that a noisy machine is noisy for all of them.

    Each run is a dict of the arguments of fit, ``params`` included. They end together, after the epochs or the minutes.
    """
    results: dict[str, ps.training.FitResult] = {}
    ps.training.keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(1, chosen.epochs + 1):
            for name, arguments in runs.items():
                path = (chosen.checkpoints or Path(folder)) / f"{chosen.name} {name}.checkpoint".replace(" ", "-")
                path.parent.mkdir(parents=True, exist_ok=True)
                results[name] = ps.training.fit(data=data, validation=validation, epochs=epoch, checkpoint=path, **arguments)
                history = results[name].history
                if len(history["loss"]) == epoch:
                    _print_epoch(name, epoch, history)
            level = len({len(result.history["loss"]) for result in results.values()}) == 1  # else one was interrupted
            if level and all(result.history["seconds"].sum() > 60 * chosen.minutes for result in results.values()):
                break
    return results


def _print_epoch(name: str, epoch: int, history: dict[str, np.ndarray]) -> None:
    shown = ("loss", "accuracy", "validation_loss", "validation_accuracy", "iterations", "fallbacks", "loops", "gradient_error",
             "seconds")
    words = [f"{key.replace('_', ' ')} {history[key][-1]:.4g}" for key in shown if history[key][-1] == history[key][-1]]
    print(f"{name:32s} epoch {epoch:3d}  {'  '.join(words)}", flush=True)


def seconds_of(result: ps.training.FitResult) -> float:
    """Median seconds of an epoch, less the first, which compiles."""
    return float(np.median(result.history["seconds"][1:] if len(result.history["seconds"]) > 1 else result.history["seconds"]))


def columns(result: ps.training.FitResult) -> dict[str, list]:
    """A history for JSON; NaN becomes null."""
    return {name: [None if value != value else float(value) for value in values] for name, values in result.history.items()}


def table(head: tuple[str, ...], rows: list[tuple]) -> str:
    """A table in Markdown."""
    lines = [" | ".join(head), " | ".join(["---"] * len(head)), *(" | ".join(map(str, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def write(chosen: argparse.Namespace, result: dict, draw: Callable) -> None:
    """The JSON file, and the figure: ``draw(figure)`` draws it."""
    from matplotlib.figure import Figure

    chosen.output.mkdir(parents=True, exist_ok=True)
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(chosen).items()}
    arguments["minutes"] = None if chosen.minutes == np.inf else chosen.minutes
    result = {"experiment": chosen.name, "arguments": arguments, "machine": machine.facts(), **result}
    print(f"\nwritten: {machine.write_json(f'experiment-{chosen.name}', result, chosen.output)}")
    figure = Figure(figsize=(11, 4), layout="constrained")
    draw(figure)
    path = chosen.figure or chosen.output / f"experiment-{chosen.name}.png"
    figure.savefig(path, dpi=120)
    print(f"figure: {path}")


def curves(figure, results: dict[str, ps.training.FitResult], panels: tuple[tuple[str, str], ...]) -> None:
    """One panel for each (column, "epochs" or "minutes"), one line a run."""
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (column, against) in zip(axes, panels, strict=True):
        for name, result in results.items():
            values, seconds = result.history[column], result.history["seconds"]
            axis.plot(np.cumsum(seconds) / 60 if against == "minutes" else np.arange(1, len(values) + 1), values, label=name)
        axis.set(xlabel=against, title=column.replace("_", " "))
        axis.grid(alpha=0.3)
    axes[0].legend()


def side_by_side(chosen: argparse.Namespace, arguments: dict, data: tuple, validation: tuple) -> None:
    """Train one model by each of ``chosen.methods``, print the table, write the file and the curves."""
    runs = {method: {"method": method, "seed": chosen.seeds[0], **arguments} for method in chosen.methods}
    results = train(chosen, runs, data, validation)
    first = results[chosen.methods[0]]
    rows = [(name, f"{seconds_of(run):.2f}", f"{seconds_of(first) / seconds_of(run):.2f}", f"{run.history['loss'][-1]:.5f}",
             f"{np.abs(run.history['loss'] - first.history['loss']).max():.1e}",
             f"{100 * run.history['validation_accuracy'][-1]:.1f}", f"{100 * run.history['validation_accuracy'].max():.1f}",
             f"{run.history['iterations'][0]:.2f} to {run.history['iterations'][-1]:.2f}", int(run.history["fallbacks"].sum()))
            for name, run in results.items()]
    print("\n" + table(("method", "seconds an epoch", f"speed / {chosen.methods[0]}", "last loss",
                        "largest difference of losses", "accuracy on held-back data %", "the best epoch's", "iterations",
                        "fallbacks"), rows))
    print(f"\npeak memory of the process: {first.history['peak_memory'][-1] / 2**30:.2f} GiB")
    write(chosen, {"rows": rows, "runs": {name: columns(run) for name, run in results.items()}},
          lambda figure: curves(figure, results, (("loss", "epochs"), ("loss", "minutes"), ("validation_accuracy", "epochs"))))
