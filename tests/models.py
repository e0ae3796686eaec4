"""The models that several test files share, each with its naive twin. Few sizes: every new one compiles new kernels."""

import math
from dataclasses import dataclass

import numba
import numpy as np
import reference

import pitsolve as ps


@numba.njit
def bump(a):
    return math.exp(-a * a)


def oscillator(p, x, h, new):
    """A damped pendulum with a drive."""
    new[0] = h[0] + 0.1 * h[1]
    new[1] = 0.9 * h[1] - 0.1 * p.stiffness[0] * math.sin(h[0]) + p.drive[0, 0] * x[0] + p.drive[0, 1] * bump(x[1])


def quadratic(p, x, h, new):
    """A cell without inputs: h <- a h + b h^2."""
    new[0] = p.a[0] * h[0] + p.b[0] * h[0] * h[0]


def naive_quadratic(p, x, h):
    return p["a"] * h + p["b"] * h**2


def naive_oscillator(p, x, h):
    force = p["stiffness"][0] * np.sin(h[0])
    return np.array([h[0] + 0.1 * h[1],
                     0.9 * h[1] - 0.1 * force + p["drive"][0, 0] * x[0] + p["drive"][0, 1] * np.exp(-x[1]**2)])


@dataclass(frozen=True)
class Model:
    """A cell, its naive twin and its dtype."""

    cell: object
    naive: object
    dtype: type

    @property
    def close(self):
        """Relative and absolute tolerance of states near one after some 50 steps."""
        return {"rtol": 1e-5, "atol": 1e-5} if self.dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}

    def problem(self, steps, batch=None, seed=3):
        """Random parameters, inputs and initial states."""
        random = np.random.default_rng(seed)
        lead = () if batch is None else (batch,)
        x = random.normal(size=(*lead, steps, self.cell.input_size)).astype(self.dtype)
        h0 = (0.5 * random.normal(size=(*lead, self.cell.state_size))).astype(self.dtype)
        return self.cell.init(seed, self.dtype), x, h0

    def loop(self, params, x, h0, lengths=None):
        """The naive loop over one sequence or a batch."""
        if x.ndim == 2:
            return reference.loop(self.naive, params, x, h0)
        return reference.loop_batch(self.naive, params, x, h0, lengths)


MODELS = {
    "gru": Model(ps.cells.GRU(3, 5), reference.gru, np.float64),
    "gru-f32": Model(ps.cells.GRU(3, 2), reference.gru, np.float32),
    "heads": Model(ps.cells.GRU(3, 6, heads=3), reference.gru, np.float64),
    "lstm": Model(ps.cells.LSTM(3, 5), reference.lstm, np.float64),
    "lem": Model(ps.cells.LEM(3, 3, dt=0.5), reference.lem(0.5), np.float64),
    "custom": Model(ps.cells.custom(oscillator, 2, 2, parameters={"stiffness": (1,), "drive": (1, 2)}), naive_oscillator,
                    np.float64),
}
QUADRATIC = ps.cells.custom(quadratic, 1, parameters={"a": (1,), "b": (1,)})
METHODS = ("sequential", "picard", "deer", "quasi-deer", "elk", "quasi-elk")
