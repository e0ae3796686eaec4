"""What pitsolve's multigrid is timed against: PyMGRIT on the implicit GRU, and the same algorithm vectorised in NumPy.

Both solve h' = (h + a n) / (1 + a), a = ratio (1 - z), gates of the GRU at (x_t, h), by MGRIT in FAS form. Both project the
inputs once, before anything is timed.
"""

import itertools
import logging
import math
import warnings

import numpy as np

from bench.peers import Parameters


def random_problem(batch: int, steps: int, inputs: int = 16, hidden: int = 32,
                   scale: float = 1.0) -> tuple[Parameters, np.ndarray]:
    """Weights U(-1, 1) / sqrt(hidden), the recurrent ones times ``scale``, and inputs (B, T, m) of iid N(0, 1), float64."""
    random = np.random.default_rng(20931)
    shapes = {"weight_ih": (3 * hidden, inputs), "weight_hh": (3 * hidden, hidden), "bias_ih": (3 * hidden,),
              "bias_hh": (3 * hidden,)}
    params = {name: random.uniform(-1, 1, shape) / math.sqrt(hidden) for name, shape in shapes.items()}
    params["weight_hh"] *= scale
    return params, random.standard_normal((batch, steps, inputs))


# ---------------------------------------------------------------------------------------------------------------- PyMGRIT


def pymgrit(params: Parameters, x: np.ndarray, coarsening: tuple[int, ...] = (4, 4), **options):
    """PyMGRIT's solver for one sequence x (T, m) from h0 = 0; its set-up does the nested iteration.

    ``options`` are those of ``Mgrit``. ImportError, with the reason, where PyMGRIT or its MPI library is missing.
    """
    if not hasattr(np, "in1d"):
        np.in1d = np.isin  # PyMGRIT 1.0.6 still calls it
    try:
        from pymgrit.core.application import Application
        from pymgrit.core.mgrit import Mgrit
        from pymgrit.core.vector import Vector
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"PyMGRIT does not import: {str(error).splitlines()[0]}") from error

    class State(Vector):
        """The state of one time."""

        def __init__(self, value):
            super().__init__()
            self.value = value

        def __add__(self, other):
            return State(self.value + other.value)

        def __sub__(self, other):
            return State(self.value - other.value)

        def __mul__(self, other):
            return State(self.value * other)

        def norm(self):
            return np.linalg.norm(self.value)

        def clone(self):
            return State(self.value.copy())

        def clone_zero(self):
            return State(np.zeros_like(self.value))

        def clone_rand(self):
            return State(np.random.rand(self.value.size))

        def set_values(self, value):
            self.value = value

        def get_values(self):
            return self.value

        def pack(self):
            return self.value

        def unpack(self, value):
            self.value = value

    hidden = params["weight_hh"].shape[1]
    weight, bias, projected = params["weight_hh"], params["bias_hh"], x @ params["weight_ih"].T + params["bias_ih"]

    class ImplicitGRU(Application):
        """One grid; its times are indices of steps."""

        def __init__(self, times):
            super().__init__(t_interval=times)
            self.vector_template = State(np.zeros(hidden))
            self.vector_t_start = State(np.zeros(hidden))

        def step(self, u_start, t_start, t_stop):
            h, p = u_start.value, projected[int(t_start)]
            u = weight @ h + bias
            gates = 1 / (1 + np.exp(-p[:2 * hidden] - u[:2 * hidden]))
            new = np.tanh(p[2 * hidden:] + gates[:hidden] * u[2 * hidden:])
            a = (t_stop - t_start) * (1 - gates[hidden:])
            return State((h + a * new) / (1 + a))

    times = np.arange(len(x) + 1.0)
    strides = itertools.accumulate((1, *coarsening), lambda a, b: a * b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Mgrit([ImplicitGRU(times[::stride]) for stride in strides],
                     **{"logging_lvl": logging.ERROR, "tol": 0.0, **options})


def pymgrit_cycle(solver) -> None:
    """One V-cycle, as from the second on."""
    solver.iteration(lvl=0, cycle_type="V", iteration=1, first_f=True)


def pymgrit_residual(solver) -> float:
    """The norm that PyMGRIT evaluates after every cycle."""
    solver.convergence_criterion(iteration=1)
    return float(solver.conv[1])


# --------------------------------------------------------------------------------------------------------- NumPy, vectorised


class Grid:
    """The states, sources and projected inputs of one level.

    Point i = k m + j lies at ``u[j, k]``, so the points with the same place j in their intervals are one contiguous block,
    and a relaxation sweep is m - 1 products of a tall matrix with W_hh^T. ``counts[j]`` is the number of points of place j.
    On the coarsest level m = 1. ``projected[j]`` are the inputs of the steps from those points, (gate, k, B, n), and
    ``in_time`` the same in order of time.
    """

    def __init__(self, points: int, m: int, ratio: int, projected: np.ndarray):
        _, _, batch, hidden = projected.shape
        self.points, self.m, self.ratio = points, m, ratio
        self.counts = [len(range(j, points, m)) for j in range(m)]
        self.u, self.g = (np.zeros((m, self.counts[0], batch, hidden), projected.dtype) for _ in range(2))
        self.in_time = np.ascontiguousarray(projected[:, :(points - 1) * ratio:ratio])
        self.projected = np.zeros((m, 3, *self.u.shape[1:]), projected.dtype)
        for i in range(points - 1):
            self.projected[i % m, :, i // m] = self.in_time[:, i]

    def scatter(self, values: np.ndarray, out: np.ndarray) -> None:
        """Write values (points, B, n) in order of time into the layout of ``u``."""
        for j, count in enumerate(self.counts):
            out[j, :count] = values[j::self.m]

    def gather(self) -> np.ndarray:
        """The states in order of time."""
        result = np.empty((self.points, *self.u.shape[2:]), self.u.dtype)
        for j, count in enumerate(self.counts):
            result[j::self.m] = self.u[j, :count]
        return result


class Vectorised:
    """MGRIT with (FC)^k F relaxation, V-cycles and nested iteration; every sweep over a level is a few NumPy calls.

    Parameters
    ----------
    params : dict
        ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh`` of a GRU.
    x : ndarray, (B, T, m)
        Inputs; h0 = 0.
    coarsening : tuple of int
        m of every level but the coarsest.
    relaxations : int
        The k of (FC)^k F.
    """

    def __init__(self, params: Parameters, x: np.ndarray, coarsening: tuple[int, ...] = (4, 4), relaxations: int = 1):
        n = params["weight_hh"].shape[1]
        self.relaxations, self.cycles = relaxations, 0
        self.weight = np.ascontiguousarray(params["weight_hh"].reshape(3, n, n).swapaxes(1, 2))
        # The hidden biases of r and z join the projected input; that of n stands inside the product with r.
        bias = params["bias_ih"].copy()
        bias[:2 * n] += params["bias_hh"][:2 * n]
        self.bias = params["bias_hh"][2 * n:]
        projected = (x @ params["weight_ih"].T + bias).reshape(*x.shape[:2], 3, n).transpose(2, 1, 0, 3)
        points, ratio, self.grids = x.shape[1] + 1, 1, []
        for m in (*coarsening, 1):
            self.grids.append(Grid(points, m, ratio, projected))
            points, ratio = (points - 1) // m + 1, ratio * m
        rows = max(grid.points if grid.ratio > 1 else grid.counts[0] for grid in self.grids) * len(x)
        self.scratch = np.empty(3 * rows * n, x.dtype)
        self._nested()

    @property
    def states(self) -> np.ndarray:
        """h_0 ... h_T of every sequence, (B, T + 1, n)."""
        return self.grids[0].gather().swapaxes(0, 1)

    def step(self, ratio: int, h: np.ndarray, projected: np.ndarray, out: np.ndarray) -> None:
        """out = phi(h) for states (k, B, n) and their inputs (3, k, B, n); ``out`` may overlap with h."""
        n, u = h.shape[-1], self.scratch[:3 * h.size].reshape(3, *h.shape)
        np.matmul(h.reshape(-1, n), self.weight, out=u.reshape(3, -1, n))
        gates, new = u[:2], u[2]
        gates += projected[:2]
        np.negative(gates, out=gates)
        np.exp(gates, out=gates)
        gates += 1.0  # the reciprocals of r and z
        new += self.bias
        new /= gates[0]
        new += projected[2]
        np.tanh(new, out=new)
        a = gates[1]
        np.divide(-ratio, a, out=a)
        a += ratio  # ratio (1 - z)
        new *= a
        new += h
        a += 1.0
        np.divide(new, a, out=out)

    def _into(self, level: int, j: int, out: np.ndarray) -> None:
        """phi + g at the points of place j but the first point of all, from the points before them, into ``out``."""
        grid = self.grids[level]
        first = 0 if j else 1
        count = grid.counts[j] - first
        self.step(grid.ratio, grid.u[j - 1, :count], grid.projected[j - 1, :, :count], out)
        if level:
            out += grid.g[j, first:first + count]

    def f_relax(self, level: int) -> None:
        """u_{km+j} = phi(u_{km+j-1}) + g, j = 1 ... m - 1, all intervals at once."""
        grid = self.grids[level]
        for j in range(1, grid.m):
            self._into(level, j, grid.u[j, :grid.counts[j]])

    def c_relax(self, level: int) -> None:
        """u_{km} = phi(u_{km-1}) + g, all intervals at once."""
        self._into(level, 0, self.grids[level].u[0, 1:])

    def solve_coarsest(self) -> None:
        """The loop on the coarsest level."""
        grid = self.grids[-1]
        u, g = grid.u[0], grid.g[0]
        for i in range(1, grid.points):
            self.step(grid.ratio, u[i - 1], grid.in_time[:, i - 1], u[i])
            u[i] += g[i]

    def restrict(self, level: int) -> np.ndarray:
        """Injection, and g = r + v - phi(v) on the next level; returns v."""
        coarse, v = self.grids[level + 1], self.grids[level].u[0].copy()
        source, phi = np.zeros_like(v), np.empty_like(v[1:])
        self._into(level, 0, source[1:])  # r + v
        self.step(coarse.ratio, v[:-1], coarse.in_time, phi)
        source[1:] -= phi
        coarse.scatter(v, coarse.u)
        coarse.scatter(source, coarse.g)
        return v

    def visit(self, level: int, first_f: bool = True) -> None:
        """A V-cycle from ``level`` down."""
        if level == len(self.grids) - 1:
            self.solve_coarsest()
            return
        if first_f:
            self.f_relax(level)
        for _ in range(self.relaxations):
            self.c_relax(level)
            self.f_relax(level)
        v = self.restrict(level)
        self.visit(level + 1)
        self.grids[level].u[0] += self.grids[level + 1].gather() - v
        self.f_relax(level)

    def _nested(self) -> None:
        """Solve on the coarsest level, inject upwards, one V-cycle a level."""
        self.solve_coarsest()
        for level in reversed(range(len(self.grids) - 1)):
            self.grids[level].u[0] = self.grids[level + 1].gather()
            if level:
                self.visit(level)

    def cycle(self) -> None:
        """One V-cycle; from the second on, level 0 is F-relaxed already."""
        self.visit(0, first_f=self.cycles == 0)
        self.cycles += 1

    def residual_norm(self) -> np.ndarray:
        """2-norm over the C-points of level 0 of phi(u_{i-1}) - u_i, for every sequence."""
        residual = np.empty_like(self.grids[0].u[0, 1:])
        self._into(0, 0, residual)
        residual -= self.grids[0].u[0, 1:]
        return np.sqrt(np.einsum("kbn,kbn->b", residual, residual))
