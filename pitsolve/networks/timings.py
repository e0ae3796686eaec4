"""What the parts of a network took, in the columns of the paper's Table 2."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class Clock:
    """Seconds by name; each name is timed by one thread at a time."""

    def __init__(self) -> None:
        self.seconds: dict[object, float] = defaultdict(float)
        self._begin = time.perf_counter()

    @contextmanager
    def __call__(self, name: object) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begin

    def timings(self, subnetworks: int) -> Timings:
        """What was timed under the names "coarse", "postprocessing", ("preprocessing", j) and ("subnetwork", j)."""
        each = {name: tuple(self.seconds[name, j] for j in range(subnetworks)) for name in ("preprocessing", "subnetwork")}
        return Timings(max(each["preprocessing"]), each["subnetwork"], self.seconds["coarse"], self.seconds["postprocessing"],
                       time.perf_counter() - self._begin)


@dataclass(frozen=True)
class Timings:
    """Seconds of one gradient, forward and backward together, as if every subnetwork had a machine of its own.

    That is what they are with ``workers=1``, as ``bench/networks.py`` measures them; subnetworks that run at once share the
    threads of this machine, and their times are those of the share.

    Attributes
    ----------
    preprocessing : float
        The slowest C^j.
    subnetworks : tuple of float
        Each g^j.
    coarse : float
        The serial sweep over the interfaces.
    postprocessing : float
        h and the loss.
    elapsed : float
        What the call took on this machine, all subnetworks together.
    """

    preprocessing: float
    subnetworks: tuple[float, ...] = field(repr=False)
    coarse: float
    postprocessing: float
    elapsed: float

    @property
    def parallel(self) -> float:
        """The slowest subnetwork: the paper's "virtual wall-clock" time."""
        return max(self.subnetworks)

    @property
    def total(self) -> float:
        """The sum of the paper's four columns."""
        return self.preprocessing + self.parallel + self.coarse + self.postprocessing

    def __repr__(self) -> str:
        return (f"Timings of {len(self.subnetworks)} subnetworks, in seconds\n"
                "  pre-processing  parallel subnetworks    coarse  post-processing     total   elapsed\n"
                f"  {self.preprocessing:14.4f}  {self.parallel:20.4f}  {self.coarse:8.4f}  {self.postprocessing:15.4f}  "
                f"{self.total:8.4f}  {self.elapsed:8.4f}")
