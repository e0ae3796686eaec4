"""The long short-term memory of Hochreiter and Schmidhuber (1997), in the form of ``torch.nn.LSTM``."""

import math
from dataclasses import dataclass

from pitsolve.cells.base import GatedCell
from pitsolve.cells.functions import sigmoid


def gates(p, u, s, ratio):
    """One unit; parts (h, c); the order of the gates is input, forget, cell, output."""
    c = s[1]
    i = sigmoid(p[0] + u[0])
    f = sigmoid(p[1] + u[1])
    g = math.tanh(p[2] + u[2])
    o = sigmoid(p[3] + u[3])
    new_c = f * c + i * g
    squashed = math.tanh(new_c)
    zero = 0.0 * c
    c_i = g * i * (1.0 - i)
    c_f = c * f * (1.0 - f)
    c_g = i * (1.0 - g * g)
    h_c = o * (1.0 - squashed * squashed)
    du = (h_c * c_i, h_c * c_f, h_c * c_g, squashed * o * (1.0 - o), c_i, c_f, c_g, zero)
    return (o * squashed, new_c), du, du, (zero, h_c * f, zero, f)


@dataclass(frozen=True)
class LSTM(GatedCell):
    r"""Long short-term memory. The state is (h, c), h first.

    .. math::
        i, f, o &= \sigma(W_i x_t + b_i + W_h h_{t-1} + b_h) \\
        g &= \tanh(W_i x_t + b_i + W_h h_{t-1} + b_h) \\
        c_t &= f \circ c_{t-1} + i \circ g, \qquad h_t = o \circ \tanh c_t

    each gate with its own rows of the weights.

    Parameters
    ----------
    input_size : int
        Width m of x_t.
    hidden_size : int
        Width n of h_t and of c_t; the state has 2n entries.

    Notes
    -----
    Parameters: ``weight_ih`` (4n, m), ``weight_hh`` (4n, n), ``bias_ih`` and ``bias_hh`` (4n,), gate order i, f, g, o, as in
    ``torch.nn.LSTM``.

    References
    ----------
    Hochreiter and Schmidhuber, Neural Computation 9 (1997) 1735-1780; the forget gate is that of Gers et al. (2000).

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.cells.LSTM(input_size=6, hidden_size=32).state_size
    64
    """

    GATES = 4
    SUMMED = 4
    PARTS = 2
    gates = staticmethod(gates)
