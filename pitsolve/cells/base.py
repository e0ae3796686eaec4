"""What a cell is: a frozen description of h_t = f(h_{t-1}, x_t; theta), with no arrays inside.

Two kinds exist. A :class:`GatedCell` is affine maps followed by pointwise mathematics, so its kernels run on SIMD lanes and
its products are matrix products. A :class:`GeneralCell` is any function, given as plain scalar Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cell:
    """The part of a description that every cell has."""

    input_size: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_size") or name in ("heads", "ratio"):
                least = 0 if name == "input_size" else 1
                if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                    raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")

    @property
    def blocks(self) -> tuple[int, int]:
        """(k, m): the Jacobian consists of k diagonal blocks of m x m; k m is the size of the state."""
        return 1, self.state_size

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter."""
        raise NotImplementedError

    @property
    def fan(self) -> int:
        """The width k in the bound 1/sqrt(k) of the initial parameters."""
        return self.state_size

    def coarsened(self, params: Parameters, ratio: int) -> tuple[Cell, Parameters]:
        """Cell and parameters of which one step stands for ``ratio`` steps of this cell, with the input of the first."""
        raise TypeError(f"{self} does not say how its steps coarsen, which a method with coarse grids needs; take a cell that "
                        "does (GRU, ImplicitGRU, Linear, ODE, custom with coarse=) or method='shooting'")

    def init(self, seed: int, dtype: type = np.float64) -> Parameters:
        """Random parameters, uniform in [-1/sqrt(k), 1/sqrt(k)] with k the hidden size, as in PyTorch.

        Parameters
        ----------
        seed : int
            Seed of ``numpy.random.default_rng``; the same seed gives the same parameters in float32, rounded.
        dtype : float32 or float64
            Type of the arrays.

        Returns
        -------
        dict of ndarray
            One array for each name in ``shapes``.

        Examples
        --------
        >>> import pitsolve as ps
        >>> sorted(ps.cells.Elman(input_size=2, hidden_size=3).init(seed=5))
        ['bias_hh', 'bias_ih', 'weight_hh', 'weight_ih']
        """
        if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        random = np.random.default_rng(seed)
        bound = 1.0 / math.sqrt(max(1, self.fan))
        return {name: random.uniform(-bound, bound, shape).astype(dtype) for name, shape in self.shapes.items()}


@dataclass(frozen=True)
class GatedCell(Cell):
    """A cell of affine pre-activations and pointwise gates.

    With p = W_ih x_t + b_ih and u = W_hh h_{t-1} + b_hh, split into ``GATES`` vectors of ``hidden_size``, unit i of the new
    state depends on entry i of every p, u and of the ``PARTS`` vectors that make up the state; part 0 is h.

    ``gates(p, u, s, ratio)`` states the mathematics of one unit: from tuples of numbers it returns the new parts and the
    partial derivatives of each part with respect to every p, every u and every s, flattened with the part slowest:

        new[a],  dp[a GATES + k],  du[a GATES + k],  ds[a PARTS + b].

    Of the first ``SUMMED`` gates it uses the sum p + u only. A cell that coarsens has a field ``ratio``, the number of steps
    that one step of it stands for, and ``coarse_gates`` for ratios above one.
    """

    hidden_size: int

    GATES: ClassVar[int]
    SUMMED: ClassVar[int] = 0
    PARTS: ClassVar[int] = 1
    ratio = 1
    gates: ClassVar[Callable]
    coarse_gates: ClassVar[Callable | None] = None

    @property
    def heads(self) -> int:
        return 1

    @property
    def state_size(self) -> int:
        return self.PARTS * self.hidden_size

    @property
    def fan(self) -> int:
        return self.hidden_size

    def coarsened(self, params: Parameters, ratio: int) -> tuple[Cell, Parameters]:
        if self.coarse_gates is None:
            return super().coarsened(params, ratio)
        return replace(self, ratio=self.ratio * ratio), params

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        rows = self.GATES * self.hidden_size
        return {"weight_ih": (rows, self.input_size), "weight_hh": (rows, self.hidden_size // self.heads),
                "bias_ih": (rows,), "bias_hh": (rows,)}


@dataclass(frozen=True)
class GeneralCell(Cell):
    """A cell given by four scalar functions of ``p`` (a named tuple of the parameters), ``x`` (m,) and ``h`` (n,).

    - ``step(p, x, h, new)`` writes f(h, x);
    - ``jacobian(p, x, h, new, J)`` writes the (n, n) matrix df/dh, ``new`` being f(h, x);
    - ``diagonal(p, x, h, new, d)`` writes its diagonal;
    - ``pullback(p, x, h, new, v, dp, dx, dh)`` adds (df/dp)^T v to ``dp`` and writes (df/dx)^T v and (df/dh)^T v.

    Only ``step`` must be there; complex steps replace the others. ``constants`` are numbers that travel with the parameters,
    as arrays of shape (1,) in ``p``, but have no gradient: a time step, for example.
    """

    constants = ()  # pairs (name, number)
    precise = False  # whether the functions compute in float64 whatever the dtype of the states
    jacobian = None
    diagonal = None
    pullback = None
