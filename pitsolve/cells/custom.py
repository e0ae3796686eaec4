"""Cells made from a user's own function, and a check of what the user states about its derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba.extending import register_jitable

from pitsolve.cells.base import Cell, GeneralCell, Parameters
from pitsolve.cells.parameters import Fields, checked_fields
from pitsolve.compile import user_function


@functools.cache
def coarse_step(coarse: Callable) -> Callable:
    """The ``step`` of a coarse grid; one function for all ratios, so that they share their kernels."""
    register_jitable(coarse)

    def step(p, x, h, new):
        coarse(p, x, h, new, int(p.ratio[0].real))

    return step


@dataclass(frozen=True)
class Custom(GeneralCell):
    """A cell made by :func:`custom`."""

    state_size: int
    step: Callable
    parameters: Fields = ()
    jacobian: Callable | None = None
    diagonal: Callable | None = None
    pullback: Callable | None = None
    coarse: Callable | None = None
    constants: tuple[tuple[str, float], ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parameters)

    def coarsened(self, params: Parameters, ratio: int) -> tuple[Cell, Parameters]:
        if self.coarse is None:
            return super().coarsened(params, ratio)
        total = ratio * int(dict(self.constants).get("ratio", 1))
        return Custom(self.input_size, self.state_size, coarse_step(self.coarse), self.parameters, coarse=self.coarse,
                      constants=(("ratio", float(total)),)), params


def custom(
    step: Callable, state_size: int, input_size: int = 0, *, parameters: dict[str, tuple[int, ...]] | None = None,
    jacobian: Callable | None = None, diagonal: Callable | None = None, pullback: Callable | None = None,
    coarse: Callable | None = None,
) -> Custom:
    r"""A cell from any function :math:`h_t = f(h_{t-1}, x_t; \theta)`.

    The functions are plain scalar Python that Numba can compile: loops, ``math``, indexing; no array expressions, no
    allocation. Any function of yours that they call must be an ``njit`` function.

    Parameters
    ----------
    step : callable
        ``step(p, x, h, new)`` writes f into ``new`` (n,). ``p`` is a named tuple of the parameters, ``x`` has shape (m,), ``h``
        shape (n,). It must not write anything but ``new``.
    state_size, input_size : int
        n and m. A cell without inputs takes the number of steps in place of ``x``.
    parameters : dict of tuple, optional
        Name and shape, of at least one axis, of every parameter.
    jacobian, diagonal, pullback : callable, optional
        ``jacobian(p, x, h, new, J)`` writes df/dh (n, n), ``new`` being f; ``diagonal(p, x, h, new, d)`` writes its diagonal;
        ``pullback(p, x, h, new, v, dp, dx, dh)`` adds (df/dp)^T v to the arrays of ``dp`` and writes (df/dx)^T v and
        (df/dh)^T v. What is not given is computed by complex steps, exact to rounding: ``step`` must then be analytic (no
        ``abs``, ``min``, ``max`` or comparison of states), and costs n evaluations for the Jacobian and one evaluation for
        every parameter and input for the gradient.
    coarse : callable, optional
        ``coarse(p, x, h, new, ratio)`` writes what stands on a coarse grid for ``ratio`` steps with the input of the first;
        ``ratio`` is an integer of at least 1. Methods with coarse grids need it; its derivatives come from complex steps.

    Returns
    -------
    Custom

    Raises
    ------
    TypeError, ValueError
        If something is not a function, or a size or shape is not a positive integer.

    See Also
    --------
    verify : check ``jacobian``, ``diagonal`` and ``pullback``.

    References
    ----------
    Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40 (1998), eq. 6.

    Examples
    --------
    >>> import math, numpy as np, pitsolve as ps
    >>> def pendulum(p, x, h, new):
    ...     new[0] = h[0] + 0.01 * h[1]
    ...     new[1] = h[1] - 0.01 * p.stiffness[0] * math.sin(h[0])
    >>> cell = ps.cells.custom(pendulum, state_size=2, parameters={"stiffness": (1,)})
    >>> sol = ps.solve(cell, {"stiffness": np.array([9.81])}, 100, h0=np.array([0.1, 0.0]), method="deer")
    >>> bool(sol.converged)
    True
    """
    given = {"jacobian": jacobian, "diagonal": diagonal, "pullback": pullback, "coarse": coarse}
    functions = {name: user_function(f, name) for name, f in given.items() if f is not None}
    return Custom(input_size=input_size, state_size=state_size, step=user_function(step, "step"),
                  parameters=checked_fields(parameters or {}, "ratio"), **functions)


def verify(cell: Cell, params: dict[str, np.ndarray] | None = None, *, seed: int = 7, tol: float = 1e-9) -> dict[str, float]:
    """Check the derivatives that a cell states against complex steps, at random states and inputs.

    Parameters
    ----------
    cell : Cell
        A cell with a ``step``: custom cells, LEM and ODE.
    params : dict of ndarray, optional
        Parameters; by default ``cell.init(seed)``.
    seed : int
        Seed of the random states and inputs.
    tol : float
        Largest difference allowed, relative to the larger of one and the entry.

    Returns
    -------
    dict of float
        Largest difference of every stated function: ``"jacobian"``, ``"diagonal"``, ``"pullback"``.

    Raises
    ------
    ValueError
        If an entry is wrong. The message says which, what the cell states and what complex steps give.

    Examples
    --------
    >>> import pitsolve as ps
    >>> sorted(ps.cells.verify(ps.cells.LEM(input_size=3, hidden_size=3, dt=0.5)))
    ['diagonal', 'jacobian', 'pullback']
    """
    from pitsolve.backends.cpu.general_model import GeneralModel  # kernels know cells, so not at import

    if not isinstance(cell, GeneralCell):
        raise TypeError(f"cell must be a cell with a step function (a custom cell, LEM or ODE), got {type(cell).__name__}")
    params = {name: np.asarray(value, np.float64) for name, value in (params or cell.init(seed)).items()}
    plain = Custom(cell.input_size, cell.state_size, cell.step, tuple(cell.shapes.items()),
                   constants=cell.constants)
    random = np.random.default_rng(seed)
    steps, n = 8, cell.state_size
    x, states = random.normal(size=(1, steps, cell.input_size)), np.empty((1, steps, n))
    previous, v = random.normal(size=(1, n)), random.normal(size=(1, steps, n))
    start, stop = np.zeros(1, np.int64), np.full(1, steps)
    stated, stepped = (GeneralModel(c, params, np.float64) for c in (cell, plain))
    # A pullback is given f(h_{t-1}, x_t), so the states have to be those of the cell.
    stated.propagate(x, stated.carry(previous), states, 0, steps, start, stop)

    def derivative(model: GeneralModel, order: int) -> np.ndarray:
        values = model.linearise(order, x, states, previous, 0, steps, start, stop)[1][0]
        return (values[:, 0] if order == model.BLOCKS else values).copy()

    def pulled(model: GeneralModel) -> dict[str, np.ndarray]:
        totals = model.totals(np.zeros_like(x))
        model.accumulate(totals, None, x, states, previous, v, 0, start, stop)
        return {**{name: value[None] for name, value in model.finish(totals).items()}, "x": totals["x"][0]}

    differences = {}
    for name, order in (("jacobian", stated.BLOCKS), ("diagonal", stated.DIAGONAL)):
        if getattr(cell, name) is not None:
            differences[name] = _compare(name, derivative(stated, order), derivative(stepped, order), tol)
    if cell.pullback is not None:
        ours, theirs = pulled(stated), pulled(stepped)
        ours["h"], theirs["h"] = np.zeros((steps, n)), np.einsum("tij,ti->tj", derivative(stepped, stepped.BLOCKS), v[0])
        before = np.concatenate([previous, states[0, :-1]])
        for t in range(steps):  # kernels have no use for dh and leave the last one in their scratch memory
            totals = stated.totals(np.zeros_like(x))
            stated.accumulate(totals, None, x, states, before[t:t + 1], v[:, t:t + 1], t, start, stop)
            ours["h"][t] = stated.work.take("pulled", len(totals["theta"]), n)[-1]
        differences["pullback"] = max(_compare(f"pullback: d{name}", ours[name], theirs[name], tol) for name in ours)
    return differences


def _compare(name: str, stated: np.ndarray, stepped: np.ndarray, tol: float) -> float:
    """Largest relative difference over all but the first axis; a ValueError that names the worst entry if it is too large."""
    if stated.size == 0:
        return 0.0
    difference = np.abs(stated - stepped) / np.maximum(1.0, np.abs(stepped))
    difference[~np.isfinite(difference)] = np.inf
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    if difference[worst] > tol:
        entry = ", ".join(map(str, worst[1:]))
        raise ValueError(f"{name}[{entry}] is {stated[worst]:.9g}, but complex steps give {stepped[worst]:.9g}")
    return float(difference[worst])
