"""HAPT: a label for every step of 49 recordings of about 17,500 steps, by a bidirectional multi-head GRU.

    python -m bench.experiments.long_activity hapt_acc_long.npz

The accelerations of users 1 to 18 are for training, those of users 19 to 24 are held back. Steps without a label do not count.
The three solvers are trained side by side.
"""

from __future__ import annotations

import numpy as np

import pitsolve as ps
from bench.experiments import common

METHODS = ("sequential", "shooting", "deer")
LAST_USER = 18  # of the training data


def read(path, steps: int | None) -> tuple[tuple, tuple]:
    """(x, y, lengths) of training and of held-back users; accelerations standardised, labels from 0, -1 for none."""
    x, y, offsets, users = common.arrays_of(path, X=(2,), y=(1,), offsets=(1,), exp_user=(2,))
    users = users[:, 1]
    training = users <= LAST_USER
    of_training = np.concatenate([x[begin:end] for begin, end, use in zip(offsets[:-1], offsets[1:], training) if use])
    mean, deviation = of_training.mean(axis=0), of_training.std(axis=0)
    lengths = np.diff(offsets) if steps is None else np.minimum(np.diff(offsets), steps)
    inputs = np.zeros((len(lengths), lengths.max(), 3), np.float32)
    labels = np.full(inputs.shape[:2], -1)
    for i, (begin, length) in enumerate(zip(offsets, lengths)):
        inputs[i, :length] = (x[begin:begin + length] - mean) / deviation
        labels[i, :length] = y[begin:begin + length].astype(int) - 1
    return tuple((inputs[part], labels[part], lengths[part]) for part in (training, ~training))


def main(arguments: list[str] | None = None) -> None:
    """Train, print the table, write the curves."""
    parser = common.parser("long_activity", __doc__, "hapt_acc_long.npz: X (steps, 3), y, offsets, exp_user", epochs=15)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="methods of pitsolve.solve")
    parser.add_argument("--rate", type=float, default=3e-3, help="of AdamW, at the top of a warm-up and half a cosine")
    parser.add_argument("--batch", type=int, default=4, help="recordings of a step (default 4)")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.epochs = 2
    data, held_back = read(chosen.data, 300 if chosen.quick else None)
    model = ps.training.SequenceClassifier(
        layers=2, input_size=3, hidden=32, classes=12, heads=8, strides=4, bidirectional=True, residual=True, norm=True,
        mixing="glu", encoder="linear", head="linear", readout="each", dropout=0.1)
    schedule = ps.training.WarmupCosine(min(2, chosen.epochs / 2), chosen.epochs, start=0.1, end=0.05)
    common.side_by_side(chosen, {"model": model, "params": model.init(seed=chosen.seeds[0]), "batch_size": chosen.batch,
                                 "optimizer": ps.training.AdamW(chosen.rate, weight_decay=0.01, clip_norm=1.0),
                                 "schedule": schedule}, data, held_back)


if __name__ == "__main__":
    main()
