"""A bottleneck unit against PyTorch, and the paper's Table 2 rebuilt: one gradient of ResNet-1001 in N subnetworks."""

import statistics
from pathlib import Path
from typing import Any

import numba
import numpy as np

import pitsolve as ps
from bench import machine, networks_unit
from pitsolve.networks import Timings

SEED = 20931
DEPTH, BATCH = 1001, 16  # the paper: 1001 and 128, on an NVIDIA Titan RTX
SUBNETWORKS = (1, 3, 6, 12, 18, 24)
COLUMNS = ("preprocessing", "parallel", "coarse", "postprocessing")
PAPER = {1: (0.0010, 1.4588, 0.0, 0.0009), 3: (0.0012, 0.5966, 0.0543, 0.0008), 6: (0.0019, 0.3062, 0.0638, 0.0007),
         12: (0.0023, 0.1583, 0.0797, 0.0009), 18: (0.0025, 0.1067, 0.1224, 0.0010), 24: (0.0020, 0.0797, 0.1701, 0.0008)}


class Case:
    """A residual network, torn or whole, and a batch of random images."""

    def __init__(self, depth: int, batch: int, subnetworks: int):
        whole = ps.networks.resnet(depth)
        self.net = whole if subnetworks == 1 else ps.networks.parareal(whole, subnetworks)
        self.params = self.net.init(SEED)
        random = np.random.default_rng(SEED)
        self.x, self.y = random.standard_normal((batch, 32, 32, 3), np.float32), random.integers(0, 10, batch)

    def gradient(self) -> Timings:
        """One subnetwork after the other, each on all threads: every one has a machine of its own."""
        return ps.networks.loss_and_gradient(self.net, self.params, self.x, self.y, workers=1)[2]


def _columns(timings: list[Timings]) -> tuple[float, ...]:
    """The median of each column."""
    return tuple(statistics.median(getattr(one, name) for one in timings) for name in COLUMNS)


def _measured(depth: int, batch: int, subnetworks: tuple[int, ...], repeats: int) -> dict[int, tuple[float, ...]]:
    """The columns for each N; the networks take turns, so that a machine that drifts slows all of them alike."""
    cases = {count: Case(depth, batch, count) for count in subnetworks}
    runs: dict[int, list[Timings]] = {count: [] for count in subnetworks}
    for turn in range(repeats + 1):
        for count, case in cases.items():
            timings = case.gradient()
            if turn:  # the first one compiles
                runs[count].append(timings)
    return {count: _columns(timings) for count, timings in runs.items()}


def _rows(measured: dict[int, tuple[float, ...]]) -> list[dict[str, Any]]:
    """One line for each N: the speed-up, with the columns, and the paper's."""
    rows = []
    for count, columns in measured.items():
        details = {name: {"seconds": ours, "paper": theirs} for name, ours, theirs in zip(COLUMNS, columns, PAPER[count])}
        rows.append(machine.row(f"N = {count}", sum(measured[1]) / sum(columns), "x N = 1",
                                paper=sum(PAPER[1]) / sum(PAPER[count]), total=sum(columns), **details))
    return rows


def _print(measured: dict[int, tuple[float, ...]], words: str) -> None:
    """The paper's Table 2, ours on the left and theirs on the right."""
    print(f"\nvirtual wall-clock seconds of one gradient; left: {words}; right: the paper")
    head = "   N" + "".join(f"{name:>9s}" for name in ("pre", "subnets", "coarse", "post", "total", "x"))
    print(f"{head}   |{head}")
    for count, columns in measured.items():
        print("   |".join(_line(count, own, sum(whole)) for own, whole in ((columns, measured[1]), (PAPER[count], PAPER[1]))))


def _line(count: int, columns: tuple[float, ...], whole: float) -> str:
    return f"{count:4d}" + "".join(f"{value:9.4f}" for value in (*columns, sum(columns))) + f"{whole / sum(columns):9.2f}"


def figure(path: Path, measured: dict[int, tuple[float, ...]], words: str) -> None:
    """Stacked bars of the columns, ours beside the paper's, in parts of the time of N = 1."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
    paper = {count: PAPER[count] for count in measured}
    for axis, table, title in zip(axes, (measured, paper), (words, "Lee, Park and Lee, Table 2: Titan RTX, batch 128")):
        names, bottom, whole = [f"{count}" for count in table], np.zeros(len(table)), sum(table[1])
        for column, label in enumerate(("pre-processing", "parallel subnetworks", "coarse network", "post-processing")):
            heights = np.array([columns[column] for columns in table.values()]) / whole
            axis.bar(names, heights, bottom=bottom, label=label)
            bottom += heights
        for place, height in enumerate(bottom):
            axis.annotate(f"{1 / height:.2f}x", (place, height), ha="center", va="bottom", fontsize="small")
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("subnetworks N")
    axes[0].set_ylabel("virtual wall-clock time of a gradient, N = 1 is one")
    axes[0].legend()
    picture.savefig(path, dpi=130)
    print(f"\nfigure: {path}")


def run(quick: bool, picture: Path | None = None) -> dict[str, Any]:
    """The unit, Table 2, and its figure."""
    unit = networks_unit.run(quick)
    depth, batch, repeats, subnetworks = (29, 2, 1, (1, 3, 6)) if quick else (DEPTH, BATCH, 3, SUBNETWORKS)
    threads = numba.get_num_threads()
    words = f"ResNet-{depth}, batch {batch}, {threads} CPU thread{'s' if threads > 1 else ''} a subnetwork"
    measured = _measured(depth, batch, subnetworks, repeats)
    _print(measured, words)
    if picture is not None:
        figure(picture, measured, words)
    return {**unit, "depth": depth, "batch": batch, "table2": _rows(measured)}
