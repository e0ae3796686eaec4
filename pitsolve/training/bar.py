"""What a run of training shows: a bar on a terminal where tqdm is installed, else a line an epoch."""

from __future__ import annotations

import sys
from typing import Any


class Bar:
    """A progress bar over the batches of all epochs, for use in ``with``; silent unless ``show``."""

    def __init__(self, show: bool, epochs: int, batches: int, progress: Any):
        self._show, self._epochs, self._bar = show, epochs, None
        self._total, self._done = epochs * batches, progress.epoch * batches + progress.batches

    def __enter__(self) -> Bar:
        if self._show and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return self
            self._bar = tqdm(total=self._total, initial=self._done, unit="batch")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, words: dict[str, float]) -> None:
        """After a batch."""
        if self._bar is not None:
            self._bar.set_postfix({name: _short(value) for name, value in words.items()}, refresh=False)
            self._bar.update()

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        """After an epoch."""
        if not self._show:
            return
        words = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in row.items() if value == value]  # not NaN
        line = f"epoch {epoch} of {self._epochs}: {', '.join(words)}"
        if self._bar is not None:
            self._bar.write(line)
        else:
            print(line, flush=True)


def _short(value: float) -> str:
    return f"{value:.4g}"
