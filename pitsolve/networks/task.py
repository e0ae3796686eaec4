"""What the training loop needs to know of a network on its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.networks import check_networks
from pitsolve.networks.evaluate import mean_over, wrong_labels
from pitsolve.networks.loss_and_gradient import step
from pitsolve.networks.network import Network
from pitsolve.training.loop import Seeds, Task, digest, digest_of_arrays, name_of

_STATISTICS_MOMENTUM = 0.1  # share of a new batch in running statistics, as in PyTorch


@dataclass(frozen=True, eq=False)
class NetworkTask(Task):
    """A network, its data and its loss; sums are the loss, wrong labels and samples."""

    net: Network
    data: tuple[np.ndarray, np.ndarray]
    loss: Callable
    augment: Callable | None
    validation: tuple[np.ndarray, np.ndarray] | None
    batch_size: int
    recompute: int
    workers: int | None

    columns = ("loss", "error", "validation_loss", "validation_error")

    @property
    def samples(self) -> int:
        return len(self.data[0])

    @cached_property
    def statistics(self) -> frozenset[str]:
        return frozenset(self.net.statistics)

    def step(self, params: Parameters, chosen: np.ndarray, seeds: Seeds) -> tuple[float, np.ndarray, Parameters]:
        x, y = self.data[0][chosen], self.data[1][chosen]
        if self.augment is not None:
            x = check_networks.augmented(self.net, self.augment(x, seeds.generator()), x)
        value, outputs, grads, _ = step(self.net, params, x, y, self.loss, self.recompute, self.workers)
        return value, np.array([value * len(chosen), wrong_labels(outputs, y), len(chosen)]), grads

    def follow(self, params: Parameters, grads: Parameters) -> Parameters:
        new = {}
        for name in self.net.statistics:
            share = grads[name].dtype.type(_STATISTICS_MOMENTUM)
            new[name] = (1 - share) * params[name] + share * grads[name]
        return new

    def row(self, params: Parameters, sums: np.ndarray) -> tuple[float, ...]:
        after = (np.nan, np.nan)
        if self.validation is not None:
            after = mean_over(self.net, params, self.validation, self.loss, self.batch_size, self.workers)
        return (*(sums[:2] / sums[2]), *after)

    def words(self, sums: np.ndarray) -> dict[str, float]:
        return {"loss": sums[0] / sums[2], "error": sums[1] / sums[2]}

    @cached_property
    def identity(self) -> dict[str, object]:
        shapes = sorted((name, *shape, str(self.data[0].dtype)) for name, shape in self.net.shapes.items())
        return {"network": f"{self.net!r}, parameters {digest(shapes)}", "digest of layers": digest(self.net.parts),
                "loss": name_of(self.loss), "augmentation": name_of(self.augment),
                "data": digest_of_arrays(*self.data)}
