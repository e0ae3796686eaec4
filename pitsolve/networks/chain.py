"""Block-repetitive networks f = h o g o C."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pitsolve.networks import check_networks
from pitsolve.networks.layer import Layer, Sequence
from pitsolve.networks.network import Network


@dataclass(frozen=True, repr=False)
class Chain(Network):
    r"""A block-repetitive network.

    .. math:: f = h \circ g_K \circ \dots \circ g_1 \circ C

    Parameters
    ----------
    pre : Layer
        C, from inputs to the first state.
    blocks : tuple of Layer
        g_1 ... g_K.
    post : Layer
        h, from the last state to outputs.

    Notes
    -----
    Parameters are those of the parts with "pre.", "0." ... "K-1." or "post." in front. Subclasses may say how they are torn, by
    :meth:`surrogate` and :meth:`coarse`.

    Examples
    --------
    >>> import pitsolve as ps
    >>> from pitsolve.networks import Chain, Dense, residual_mlp
    >>> Chain(Dense(2, 8), (residual_mlp(8, 16),) * 12, Dense(8, 3))
    Chain of 12 blocks, 3411 parameters
    """

    pre: Layer
    blocks: tuple[Layer, ...]
    post: Layer

    def __post_init__(self) -> None:
        check_networks.chain_parts(self.pre, self.blocks, self.post)

    @property
    def starts(self) -> tuple[Layer, ...]:
        return (self.pre,)

    @property
    def bounds(self) -> tuple[int, ...]:
        return (0, len(self.blocks))

    @property
    def corrections(self) -> tuple[Layer, ...]:
        return ()

    def surrogate(self, first: int) -> Layer:
        """C^j of a subnetwork that begins with block ``first``: a guess of the state before it. By default a twin of C."""
        return self.pre

    def coarse(self, first: int, last: int, count: int) -> Layer:
        """F of a subnetwork with the blocks ``first`` to ``last``: zero-preserving twins of ``count`` of them.

        Those that change the shape are all there; the others are taken evenly.
        """
        kept = [k for k in range(first, last) if self.blocks[k].keeps_shape]
        more = min(max(0, count - (last - first - len(kept))), len(kept))
        chosen = {kept[(2 * i + 1) * len(kept) // (2 * more)] for i in range(more)}
        return Sequence(tuple((str(k), self.blocks[k].zero_preserving()) for k in range(first, last)
                              if k in chosen or not self.blocks[k].keeps_shape))

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self.blocks)} blocks, {count_parameters(self)} parameters"


def count_parameters(net: Layer) -> int:
    """Numbers to be trained."""
    return sum(math.prod(shape) for name, shape in net.shapes.items() if name not in net.statistics)
