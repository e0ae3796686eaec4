"""What neighbouring windows send each other, and how many bytes that is."""

from __future__ import annotations

import numpy as np


class Mailboxes:
    """Messages (p, ...) between neighbours of a chain. Windows write outgoing ones and read incoming ones, nothing else.

    An outgoing message arrives when it is delivered, so windows that work at the same time read what was sent before.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: np.dtype):
        self.to_left, self.to_right, self.from_left, self.from_right = np.zeros((4, count, *shape), dtype)
        self.bytes = 0
        self.messages = 0

    def deliver(self, chosen: np.ndarray) -> None:
        """Hand the messages of the chosen windows to their neighbours."""
        rightward, leftward = chosen[chosen < len(self.to_left) - 1], chosen[chosen > 0]
        self.from_left[rightward + 1] = self.to_right[rightward]
        self.from_right[leftward - 1] = self.to_left[leftward]
        self.messages += rightward.size + leftward.size
        self.bytes += (rightward.size + leftward.size) * self.to_left[0].nbytes

    @property
    def bytes_per_interface(self) -> float:
        """Bytes that crossed one interface in one direction each time."""
        return self.bytes / max(1, self.messages)
