"""The implicit gated recurrent unit of Moon and Cyr (2022), with the parameters of ``torch.nn.GRU``."""

import math
from dataclasses import dataclass

from pitsolve.cells.base import GatedCell
from pitsolve.cells.functions import sigmoid


def gates(p, u, s, ratio):
    """One unit; the order of the gates is reset, update, new."""
    h = s[0]
    r = sigmoid(p[0] + u[0])
    z = sigmoid(p[1] + u[1])
    c = math.tanh(p[2] + r * u[2])
    w = 1.0 / (1.0 + ratio * (1.0 - z))
    dc = (1.0 - w) * (1.0 - c * c)
    dr = dc * u[2] * r * (1.0 - r)
    dz = (h - c) * ratio * w * w * z * (1.0 - z)
    return (c + w * (h - c),), (dr, dz, dc), (dr, dz, dc * r), (w,)


@dataclass(frozen=True)
class ImplicitGRU(GatedCell):
    r"""Implicit gated recurrent unit: the GRU as a stiff differential equation, one linearly implicit step at a time.

    .. math::
        r &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        c &= \tanh(W_{ic} x_t + b_{ic} + r \circ (W_{hc} h_{t-1} + b_{hc})) \\
        h_t &= (h_{t-1} + a \circ c) / (1 + a), \qquad a = \gamma (1 - z)

    This is the step of length :math:`\gamma` of backward Euler for dh/dt = (1 - z)(c - h), with the gates of the state before
    it. It is stable for every :math:`\gamma`, so that coarse grids may take long steps. At :math:`\gamma = 1` it is another
    model than the GRU, whose step is forward Euler's.

    Parameters
    ----------
    input_size : int
        Width m of x_t.
    hidden_size : int
        Width n of h_t.
    ratio : int
        The length :math:`\gamma`: the number of steps that one step stands for, 1 by default. Multigrid takes more on its
        coarse grids.

    Notes
    -----
    Parameters: ``weight_ih`` (3n, m), ``weight_hh`` (3n, n), ``bias_ih`` and ``bias_hh`` (3n,), gate order r, z, c, as in
    ``torch.nn.GRU``.

    References
    ----------
    Moon and Cyr, "Parallel training of GRU networks with a multi-grid solver for long sequences", ICLR 2022,
    the implicit GRU (its n is c here).

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.cells.ImplicitGRU(input_size=6, hidden_size=32).coarsened({}, 4)[0].ratio
    4
    """

    ratio: int = 1

    GATES = 3
    SUMMED = 2
    gates = coarse_gates = staticmethod(gates)
