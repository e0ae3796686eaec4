"""What work costs on a card: memory for a slab of time, lengths of windows, and what windows gain over the loop.

All are fixed numbers, so that slabs and windows, and with them the last bits, are the same on every card.
"""

from __future__ import annotations

_WINDOWS = 1716  # that run at once: 13 warps on each of 132 multiprocessors, with a GRU of 32 units in their registers
_THREADS = 132 * 4 * 32  # a warp for every scheduler
_SHORTEST, _LONGEST = 64, 1024  # steps of a window by default


def iteration_memory() -> int:
    """Bytes of scratch for a slab of an iteration: large enough to fill a card, and small beside its memory."""
    return 2 << 30


def loop_memory() -> int:
    """Bytes of scratch for a slab of the loop or of the gradient."""
    return 1 << 30


def default_window(batch: int, steps: int) -> int:
    """Steps of a window: as many windows as run at once, if there are steps enough."""
    return min(max(-(-steps * batch // _WINDOWS), _SHORTEST), _LONGEST)


def fewest_pullbacks() -> int:
    """Sequences from which on a loop over pullbacks, a thread each, is taken rather than Jacobians and a scan."""
    return _THREADS


def window_gain(model, batch: int, steps: int, window: int) -> float:
    """How many times fewer steps, one after the other, a sweep of windows takes than the loop, for ``steps`` in all."""
    if batch == 0 or steps == 0:
        return 0.0
    longest = -(-steps // batch) * -(-batch // _WINDOWS)
    return longest / (window * -(-steps // (window * _WINDOWS)))
