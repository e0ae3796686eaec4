"""The models of the multigrid tests, each with a naive twin for every ratio. Few sizes: every new one compiles new kernels."""

import math
from dataclasses import dataclass

import numpy as np
import reference
import reference_multigrid as twin

import pitsolve as ps


def multiply(p, x, h, new):
    """u <- lam u + x, and on the coarse grid u <- mu u + x: any pair of factors, two levels."""
    new[0] = p.lam[0] * h[0] + x[0]


def multiply_coarsely(p, x, h, new, ratio):
    new[0] = p.mu[0] * h[0] + x[0]


def naive_multiply(p, x, h, ratio=1):
    return p["lam" if ratio == 1 else "mu"] * h + x



def implicit(p, x, h, new, ratio):
    """Two gated units; the implicit step of ``ratio``."""
    for i in range(2):
        a, c = p.bias[0, i], p.bias[1, i]
        for j in range(2):
            a, c = a + p.inputs[0, i, j] * x[j], c + p.inputs[1, i, j] * x[j]
        for j in range(2):
            a, c = a + p.weight[0, i, j] * h[j], c + p.weight[1, i, j] * h[j]
        a = ratio * (0.5 + 0.5 * math.tanh(0.5 * a))
        new[i] = (h[i] + a * math.tanh(c)) / (1.0 + a)


def unit_step(p, x, h, new):
    """The same for ratio one, written out: a custom step may call compiled functions only."""
    for i in range(2):
        a, c = p.bias[0, i], p.bias[1, i]
        for j in range(2):
            a, c = a + p.inputs[0, i, j] * x[j], c + p.inputs[1, i, j] * x[j]
        for j in range(2):
            a, c = a + p.weight[0, i, j] * h[j], c + p.weight[1, i, j] * h[j]
        a = 0.5 + 0.5 * math.tanh(0.5 * a)
        new[i] = (h[i] + a * math.tanh(c)) / (1.0 + a)


def naive_implicit(p, x, h, ratio=1):
    a, c = (p["bias"][k] + p["inputs"][k] @ x + p["weight"][k] @ h for k in (0, 1))
    a = ratio * reference.sigmoid(a)
    return (h + a * np.tanh(c)) / (1 + a)


def decay(p, x, u, out):
    out[0] = -p.rate[0] * u[0]


def naive_decay(p, x, h, ratio=1):
    return h / (1 + ratio * 10 / 1024 * p["rate"])


@dataclass(frozen=True)
class Grid:
    """A cell and its naive twin ``naive(params, x_t, h, ratio)``."""

    cell: object
    naive: object

    def problem(self, steps, batch=None, seed=3, scale=1.0):
        """Random parameters, inputs (the number of steps, without inputs) and initial states."""
        random = np.random.default_rng(seed)
        lead = () if batch is None else (batch,)
        x = random.normal(size=(*lead, steps, self.cell.input_size)) if self.cell.input_size else steps
        h0 = 0.5 * random.normal(size=(*lead, self.cell.state_size))
        return {name: scale * value for name, value in self.cell.init(seed).items()}, x, h0

    def steps(self, params, x, coarsening):
        """phi of every level for the twins, for one sequence."""
        return twin.cell_steps(self.naive, params, np.zeros((x, 0)) if isinstance(x, int) else x, coarsening)


GRIDS = {
    "scalar": Grid(ps.cells.custom(multiply, 1, 1, parameters={"lam": (1,), "mu": (1,)}, coarse=multiply_coarsely),
                   naive_multiply),
    "gated": Grid(ps.cells.custom(unit_step, 2, 2, parameters={"bias": (2, 2), "inputs": (2, 2, 2), "weight": (2, 2, 2)},
                                  coarse=implicit), naive_implicit),
    "gru": Grid(ps.cells.GRU(3, 5), twin.power_gru),
    "ode": Grid(ps.cells.ODE(decay, 1, dt=10 / 1024, scheme="backward_euler", parameters={"rate": (1,)}), naive_decay),
}
