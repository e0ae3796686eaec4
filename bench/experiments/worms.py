"""Worms: the EigenWorms model of the DEER paper on 33 recordings of 17,984 steps, trained by three solvers side by side.

    python -m bench.experiments.worms eigenworms_src_33x17984x6.npz

Five GRU layers of 32 units in residual blocks, Adam, clipping at norm 1, batches of 4, as in the paper. The recordings are not
the benchmark file of the paper (259 worms) but samples of the study that it was made from: 24 for training, 9 held back.
"""

from __future__ import annotations

import numpy as np

import pitsolve as ps
from bench.experiments import common

METHODS = ("sequential", "shooting", "deer")


def read(path, quick: bool) -> tuple[tuple, tuple]:
    """Training and validation data, each channel standardised by the training data."""
    x, y, split = common.arrays_of(path, X=(3,), y=(1,), split=(1,))
    y = y.astype(int)
    train = split == "train"
    if quick:
        x = x[:, :500]
    x = ((x - x[train].mean(axis=(0, 1))) / x[train].std(axis=(0, 1))).astype(np.float32)
    return (x[train], y[train]), (x[~train], y[~train])


def main(arguments: list[str] | None = None) -> None:
    """Train, print the table, write the curves."""
    parser = common.parser("worms", __doc__, "eigenworms_src_33x17984x6.npz: X (33, T, 6), y, split", epochs=10)
    parser.add_argument("--rate", type=float, default=3e-5, help="of Adam; the paper's by default")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="methods of pitsolve.solve")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.epochs = 2
    data, validation = read(chosen.data, chosen.quick)
    model = ps.training.SequenceClassifier(layers=5, input_size=6, hidden=32, classes=5, cell="gru", residual=True, norm=True)
    common.side_by_side(chosen, {"model": model, "params": model.init(seed=chosen.seeds[0]), "batch_size": 4,
                                 "optimizer": ps.training.Adam(chosen.rate, clip_norm=1.0)}, data, validation)


if __name__ == "__main__":
    main()
