"""The gated recurrent unit of Cho et al. (2014), in the form of ``torch.nn.GRU``."""

import math
from dataclasses import dataclass

from pitsolve.cells.base import GatedCell
from pitsolve.cells.functions import power, sigmoid


def gates(p, u, s, ratio):
    """One unit; the order of the gates is reset, update, new."""
    h = s[0]
    r = sigmoid(p[0] + u[0])
    z = sigmoid(p[1] + u[1])
    c = math.tanh(p[2] + r * u[2])
    dc = (1.0 - z) * (1.0 - c * c)
    dr = dc * u[2] * r * (1.0 - r)
    dz = (h - c) * z * (1.0 - z)
    return (c + z * (h - c),), (dr, dz, dc), (dr, dz, dc * r), (z,)


def coarse_gates(p, u, s, ratio):
    """``ratio`` steps with the gates frozen: the update gate to that power."""
    h = s[0]
    r = sigmoid(p[0] + u[0])
    z = sigmoid(p[1] + u[1])
    c = math.tanh(p[2] + r * u[2])
    w = power(z, ratio)
    dc = (1.0 - w) * (1.0 - c * c)
    dr = dc * u[2] * r * (1.0 - r)
    dz = (h - c) * ratio * w * (1.0 - z)
    return (c + w * (h - c),), (dr, dz, dc), (dr, dz, dc * r), (w,)


@dataclass(frozen=True)
class GRU(GatedCell):
    r"""Gated recurrent unit, optionally with several heads.

    .. math::
        r &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        c &= \tanh(W_{ic} x_t + b_{ic} + r \circ (W_{hc} h_{t-1} + b_{hc})) \\
        h_t &= (1 - z) \circ c + z \circ h_{t-1}

    With ``heads=k`` the units fall into k groups of m = hidden_size / k that see each other only within their group; the
    Jacobian is block-diagonal and Newton's method costs k m^3 instead of (k m)^3 a step (the "detached states" of the DEER
    slides). ``weight_hh`` then keeps only the m columns of each unit's own head.

    Parameters
    ----------
    input_size : int
        Width m of x_t.
    hidden_size : int
        Width n of h_t.
    heads : int
        Number of groups; divides ``hidden_size``. The default, 1, is ``torch.nn.GRU``.
    ratio : int
        Steps that one step stands for, with the gates and the input of the first:
        :math:`h_t = (1 - z^{ratio}) \circ c + z^{ratio} \circ h_{t-1}`. The default, 1, is the GRU; multigrid takes more on its
        coarse grids, where the GRU itself would overshoot.

    Notes
    -----
    Parameters: ``weight_ih`` (3n, m), ``weight_hh`` (3n, n / heads), ``bias_ih`` and ``bias_hh`` (3n,), gate order r, z, n.

    References
    ----------
    Cho et al., EMNLP 2014, eqs. 5-8 (the position of r is that of PyTorch). Kasim, DEER slides (2024), "Multi-head GRU".

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.cells.GRU(input_size=6, hidden_size=32, heads=8).shapes["weight_hh"]
    (96, 4)
    """

    heads: int = 1
    ratio: int = 1

    GATES = 3
    SUMMED = 2
    gates = staticmethod(gates)
    coarse_gates = staticmethod(coarse_gates)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.heads:
            raise ValueError(f"heads must divide hidden_size = {self.hidden_size}, got {self.heads}")

    @property
    def blocks(self) -> tuple[int, int]:
        return self.heads, self.hidden_size // self.heads
