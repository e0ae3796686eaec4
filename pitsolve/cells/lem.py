"""The long expressive memory of Rusch et al. (2022): two coupled states, each with its own learned time step.

Row blocks of ``weight_ih`` and ``bias`` (n rows each): time step of y, time step of z, z, y. The first three also see y_{t-1}
through ``weight_hh``; the last sees the new z through ``weight_zy``.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from numba.extending import register_jitable

from pitsolve.cells.base import GeneralCell
from pitsolve.cells.functions import sigmoid


@register_jitable
def pre_activation(p, x, h, row):
    """Row < 3n of the pre-activations: inputs and y_{t-1}."""
    total = p.bias[row] + 0.0 * h[0]
    for k in range(x.size):
        total += p.weight_ih[row, k] * x[k]
    for k in range(h.size // 2):
        total += p.weight_hh[row, k] * h[k]
    return total


@register_jitable
def output(p, x, new, i):
    """Pre-activation of y: inputs and the new z."""
    n = new.size // 2
    total = p.bias[3 * n + i] + 0.0 * new[n]
    for k in range(x.size):
        total += p.weight_ih[3 * n + i, k] * x[k]
    for k in range(n):
        total += p.weight_zy[i, k] * new[n + k]
    return total


@register_jitable
def evolve(dt, p, x, h, new):
    n = h.size // 2
    for j in range(n):
        d = dt * sigmoid(pre_activation(p, x, h, n + j))
        new[n + j] = h[n + j] + d * (math.tanh(pre_activation(p, x, h, 2 * n + j)) - h[n + j])
    for i in range(n):
        d = dt * sigmoid(pre_activation(p, x, h, i))
        new[i] = h[i] + d * (math.tanh(output(p, x, new, i)) - h[i])


@register_jitable
def slopes(dt, gate, drive, old):
    """d = dt sigmoid(gate) and the derivatives of old + d (tanh(drive) - old) by the gate and by the drive."""
    s = sigmoid(gate)
    c = math.tanh(drive)
    return dt * s, dt * s * (1.0 - s) * (c - old), dt * s * (1.0 - c * c)


@register_jitable
def slopes_z(dt, p, x, h, j):
    n = h.size // 2
    return slopes(dt, pre_activation(p, x, h, n + j), pre_activation(p, x, h, 2 * n + j), h[n + j])


@register_jitable
def slopes_y(dt, p, x, h, new, i):
    return slopes(dt, pre_activation(p, x, h, i), output(p, x, new, i), h[i])


@register_jitable
def write_jacobian(dt, p, x, h, new, J):
    n = h.size // 2
    for j in range(n):
        d, by_gate, by_drive = slopes_z(dt, p, x, h, j)
        for k in range(n):
            J[n + j, k] = by_gate * p.weight_hh[n + j, k] + by_drive * p.weight_hh[2 * n + j, k]
            J[n + j, n + k] = 0.0
        J[n + j, n + j] = 1.0 - d
    for i in range(n):
        d, by_gate, by_drive = slopes_y(dt, p, x, h, new, i)
        for k in range(n):
            J[i, k] = by_gate * p.weight_hh[i, k]
        J[i, i] += 1.0 - d
        for j in range(n):
            factor = by_drive * p.weight_zy[i, j]
            J[i, n + j] = factor * J[n + j, n + j]
            for k in range(n):
                J[i, k] += factor * J[n + j, k]


@register_jitable
def write_diagonal(dt, p, x, h, new, out):
    n = h.size // 2
    for i in range(n):
        out[i] = 0.0
    for j in range(n):
        d, by_gate, by_drive = slopes_z(dt, p, x, h, j)
        out[n + j] = 1.0 - d
        for i in range(n):
            out[i] += p.weight_zy[i, j] * (by_gate * p.weight_hh[n + j, i] + by_drive * p.weight_hh[2 * n + j, i])
    for i in range(n):
        d, by_gate, by_drive = slopes_y(dt, p, x, h, new, i)
        out[i] = by_drive * out[i] + by_gate * p.weight_hh[i, i] + 1.0 - d


@register_jitable
def pull_row(p, x, h, row, v, dp, dx, dh):
    """Gradients through pre-activation ``row`` < 3n, of which v is the adjoint."""
    dp.bias[row] += v
    for k in range(x.size):
        dp.weight_ih[row, k] += v * x[k]
        dx[k] += v * p.weight_ih[row, k]
    for k in range(h.size // 2):
        dp.weight_hh[row, k] += v * h[k]
        dh[k] += v * p.weight_hh[row, k]


@register_jitable
def pull(dt, p, x, h, new, v, dp, dx, dh):
    n = h.size // 2
    for k in range(x.size):
        dx[k] = 0.0
    for k in range(2 * n):
        dh[k] = 0.0
    for i in range(n):
        d, by_gate, by_drive = slopes_y(dt, p, x, h, new, i)
        dh[i] += (1.0 - d) * v[i]
        pull_row(p, x, h, i, by_gate * v[i], dp, dx, dh)
        adjoint = by_drive * v[i]
        dp.bias[3 * n + i] += adjoint
        for k in range(x.size):
            dp.weight_ih[3 * n + i, k] += adjoint * x[k]
            dx[k] += adjoint * p.weight_ih[3 * n + i, k]
        for k in range(n):
            dp.weight_zy[i, k] += adjoint * new[n + k]
            dh[n + k] += adjoint * p.weight_zy[i, k]
    for j in range(n):
        d, by_gate, by_drive = slopes_z(dt, p, x, h, j)
        total = v[n + j] + dh[n + j]
        dh[n + j] = (1.0 - d) * total
        pull_row(p, x, h, n + j, by_gate * total, dp, dx, dh)
        pull_row(p, x, h, 2 * n + j, by_drive * total, dp, dx, dh)


@functools.cache
def functions(dt: float) -> tuple[Callable, Callable, Callable, Callable]:
    """step, jacobian, diagonal and pullback for one dt, which the compiler then knows."""

    def step(p, x, h, new):
        evolve(dt, p, x, h, new)

    def jacobian(p, x, h, new, J):
        write_jacobian(dt, p, x, h, new, J)

    def diagonal(p, x, h, new, d):
        write_diagonal(dt, p, x, h, new, d)

    def pullback(p, x, h, new, v, dp, dx, dh):
        pull(dt, p, x, h, new, v, dp, dx, dh)

    return step, jacobian, diagonal, pullback


@dataclass(frozen=True)
class LEM(GeneralCell):
    r"""Long expressive memory. The state is (y, z), y first.

    .. math::
        \overline{\Delta t} &= dt\, \sigma(W_1 y_{t-1} + V_1 x_t + b_1), \qquad
        \Delta t = dt\, \sigma(W_2 y_{t-1} + V_2 x_t + b_2) \\
        z_t &= (1 - \Delta t) \circ z_{t-1} + \Delta t \circ \tanh(W_z y_{t-1} + V_z x_t + b_z) \\
        y_t &= (1 - \overline{\Delta t}) \circ y_{t-1} + \overline{\Delta t} \circ \tanh(W_y z_t + V_y x_t + b_y)

    Parameters
    ----------
    input_size : int
        Width m of x_t.
    hidden_size : int
        Width n of y_t and of z_t; the state has 2n entries.
    dt : float
        Largest time step. The default, 1, is the authors'; small values (1e-3 and below) make a long memory.

    Notes
    -----
    Parameters: ``weight_ih`` (4n, m) stacks V_1, V_2, V_z, V_y; ``weight_hh`` (3n, n) stacks W_1, W_2, W_z;
    ``weight_zy`` (n, n) is W_y; ``bias`` (4n,).

    References
    ----------
    Rusch, Mishra, Erichson and Mahoney, "Long expressive memory for sequence modeling", ICLR 2022, eq. 3.

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.cells.LEM(input_size=6, hidden_size=32, dt=0.01).state_size
    64
    """

    hidden_size: int
    dt: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dt < math.inf:
            raise ValueError(f"dt must be positive and finite, got {self.dt!r}")

    @property
    def state_size(self) -> int:
        return 2 * self.hidden_size

    @property
    def fan(self) -> int:
        return self.hidden_size

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        n = self.hidden_size
        return {"weight_ih": (4 * n, self.input_size), "weight_hh": (3 * n, n), "weight_zy": (n, n), "bias": (4 * n,)}

    @property
    def step(self) -> Callable:
        return functions(self.dt)[0]

    @property
    def jacobian(self) -> Callable:
        return functions(self.dt)[1]

    @property
    def diagonal(self) -> Callable:
        return functions(self.dt)[2]

    @property
    def pullback(self) -> Callable:
        return functions(self.dt)[3]
