"""What training returns: parameters, and a history that prints and plots itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from pitsolve.cells.base import Parameters
from pitsolve.training import check_training


@dataclass(frozen=True, eq=False)
class FitResult:
    """A trained model.

    Attributes
    ----------
    params : dict of ndarray
        Parameters after the last epoch.
    history : dict of ndarray (epochs,)
        One number an epoch in every column: which ones, say :func:`pitsolve.training.fit` and :func:`pitsolve.networks.fit`.
        What does not apply is NaN.
    """

    params: Parameters = field(repr=False)
    history: dict[str, np.ndarray]

    def __repr__(self) -> str:
        epochs = len(self.history["loss"])
        if not epochs:
            return "FitResult of 0 epochs"
        last = ", ".join(f"{name.replace('_', ' ')} {values[-1]:.4g}" for name, values in self.history.items())
        return f"FitResult of {epochs} epochs; the last: {last}"

    def plot(self, path: str | os.PathLike) -> None:
        """Draw the columns of the history over the epochs, training and validation in one panel; needs matplotlib.

        Parameters
        ----------
        path : str or path
            The file; its ending decides the format.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            There is no such folder, or no epoch has been run.
        """
        path = check_training.file_to_write("path", path)
        drawn = {name: values for name, values in self.history.items() if np.isfinite(values).any()}
        if not drawn:
            raise ValueError("history must have at least one epoch to be drawn, got none")
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError('plotting needs matplotlib: pip install "pitsolve[plot]"') from None
        panels = [name for name in drawn if name.removeprefix("validation_") == name]
        figure = Figure(figsize=(4 * min(3, len(panels)), 3 * -(-len(panels) // 3)), layout="constrained")
        axes = figure.subplots(-(-len(panels) // 3), min(3, len(panels)), squeeze=False).ravel()
        for axis, name in zip(axes, panels, strict=False):
            for full, label in ((name, "training"), (f"validation_{name}", "validation")):
                if full in drawn:
                    axis.plot(np.arange(1, len(drawn[full]) + 1), drawn[full], label=label)
            axis.set(title=name.replace("_", " "), xlabel="epoch")
            if f"validation_{name}" in drawn:
                axis.legend()
        for axis in axes[len(panels):]:
            axis.set_visible(False)
        figure.savefig(path, dpi=120)
