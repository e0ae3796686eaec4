"""The simple recurrent network of Elman (1990), in the form of ``torch.nn.RNN``."""

import math
from dataclasses import dataclass

from pitsolve.cells.base import GatedCell


def gates(p, u, s, ratio):
    """One unit."""
    h = math.tanh(p[0] + u[0])
    slope = 1.0 - h * h
    return (h,), (slope,), (slope,), (0.0 * slope,)


@dataclass(frozen=True)
class Elman(GatedCell):
    r"""Elman's recurrent network.

    .. math:: h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Parameters
    ----------
    input_size : int
        Width m of x_t.
    hidden_size : int
        Width n of h_t.

    Notes
    -----
    Parameters: ``weight_ih`` (n, m), ``weight_hh`` (n, n), ``bias_ih`` and ``bias_hh`` (n,), as in ``torch.nn.RNN``.

    References
    ----------
    Elman, Cognitive Science 14 (1990) 179-211.

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.cells.Elman(input_size=6, hidden_size=32).state_size
    32
    """

    GATES = 1
    SUMMED = 1
    gates = staticmethod(gates)
