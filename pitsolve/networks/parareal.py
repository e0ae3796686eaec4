"""Parareal networks: a chain torn into subnetworks side by side, connected by a coarse network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pitsolve.networks import check_networks
from pitsolve.networks.chain import Chain, count_parameters
from pitsolve.networks.layer import Layer
from pitsolve.networks.network import Network


@dataclass(frozen=True, repr=False)
class PararealNetwork(Network):
    """What :func:`parareal` makes: the fields are C^1 ... C^N, all blocks, where each subnetwork begins, F^1 ... F^{N-1}, h.

    Parameters have the names of the chain's; those of C^2, C^3 ... begin with "pre2.", "pre3." ..., those of F^1, F^2 ... with
    "coarse1.", "coarse2." ...
    """

    starts: tuple[Layer, ...]
    blocks: tuple[Layer, ...]
    bounds: tuple[int, ...]
    corrections: tuple[Layer, ...]
    post: Layer

    def __repr__(self) -> str:
        sizes = sorted({last - first for first, last in pairwise(self.bounds)})
        return (f"PararealNetwork of {self.subnetworks} subnetworks with {' or '.join(map(str, sizes))} blocks each, "
                f"{count_parameters(self)} parameters")


def parareal(
    chain: Chain, subnetworks: int, *, coarse_blocks: int | None = None, surrogates: tuple[Layer, ...] | None = None,
    coarse: tuple[Layer, ...] | None = None,
) -> PararealNetwork:
    r"""Tear a chain f = h o g o C, g = g^N o ... o g^1, into N subnetworks that run at once.

    .. math::
        x_j &= C^j(x), \quad y_j = g^j(x_j) \qquad j = 1 \dots N \text{, all at once} \\
        R_1 &= y_1 - x_2, \quad R_{j+1} = y_{j+1} - x_{j+2} + F^j(R_j) \\
        \tilde f(x) &= h\bigl(y_N + F^{N-1}(R_{N-1})\bigr)

    This is one correction of the parareal iteration, the jumps at the interfaces being its source. If every g^j is affine and
    F^j is the linear part of g^{j+1}, it is f itself. It is a network of its own, to be trained as a whole.

    Parameters
    ----------
    chain : Chain
        f. Its blocks fall into N groups, the sizes of which differ by one at most.
    subnetworks : int
        N; 1 is the chain itself.
    coarse_blocks : int, optional
        Blocks N_c in each F^j, zero-preserving twins of blocks of g^{j+1} (those that change the shape are always among them).
        Default ceil(12 / N), as in the paper.
    surrogates : tuple of Layer, optional
        C^2 ... C^N. Default: what the chain's ``surrogate`` says, a twin of C unless a chain knows better.
    coarse : tuple of Layer, optional
        F^1 ... F^{N-1}, in the place of ``coarse_blocks``. They should take zero to zero: then nothing is corrected where there
        is no jump.

    Returns
    -------
    PararealNetwork

    Raises
    ------
    TypeError, ValueError
        Arguments that do not fit; blocks without a zero-preserving form.

    References
    ----------
    Lee, Park and Lee, "Parareal neural networks emulating a parallel-in-time algorithm", TNNLS 2022, section 3.

    Examples
    --------
    >>> import pitsolve as ps
    >>> from pitsolve.networks import Chain, Dense, residual_mlp
    >>> chain = Chain(Dense(2, 8), (residual_mlp(8, 16),) * 12, Dense(8, 3))
    >>> ps.networks.parareal(chain, subnetworks=3, coarse_blocks=1)
    PararealNetwork of 3 subnetworks with 4 blocks each, 3971 parameters
    """
    count, coarse_blocks = check_networks.tearing(chain, subnetworks, coarse_blocks, surrogates, coarse)
    sizes = [(len(chain.blocks) + count - 1 - j) // count for j in range(count)]  # the first ones are the larger ones
    bounds = tuple(sum(sizes[:j]) for j in range(count + 1))
    if surrogates is None:
        surrogates = tuple(chain.surrogate(first) for first in bounds[1:-1])
    if coarse is None:
        coarse = tuple(chain.coarse(first, last, coarse_blocks) for first, last in pairwise(bounds[1:]))
    return PararealNetwork((chain.pre, *surrogates), chain.blocks, bounds, coarse, chain.post)
