"""The linear recurrence, in the form of a ``torch.nn.RNN`` without its nonlinearity."""

from dataclasses import dataclass

import numpy as np

from pitsolve.cells.base import Cell, GatedCell, Parameters


def gates(p, u, s, ratio):
    """One unit."""
    h = p[0] + u[0]
    zero = 0.0 * h
    one = zero + 1.0
    return (h,), (one,), (one,), (zero,)


def product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A B without BLAS, whose last bits depend on its number of threads."""
    return np.einsum("ij,jk->ik", A, B)


@dataclass(frozen=True)
class Linear(GatedCell):
    r"""Linear recurrence.

    .. math:: h_t = W_{hh} h_{t-1} + W_{ih} x_t + b_{ih} + b_{hh}

    On coarse grids it takes r steps with the input of the first, exactly:
    :math:`h_t = W_{hh}^r h_{t-1} + S (W_{ih} x_t + b_{ih} + b_{hh})` with :math:`S = \sum_{j<r} W_{hh}^j`.

    Parameters
    ----------
    input_size : int
        Width m of x_t.
    hidden_size : int
        Width n of h_t.

    Notes
    -----
    Parameters: ``weight_ih`` (n, m), ``weight_hh`` (n, n), ``bias_ih`` and ``bias_hh`` (n,), as in ``torch.nn.RNN``. With those
    of ``init`` the recurrence is stable: for large n the eigenvalues of W_hh lie within a disc of radius 0.58 = 1/sqrt(3).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> cell = ps.cells.Linear(input_size=1, hidden_size=1)
    >>> params = {"weight_ih": np.eye(1), "weight_hh": 0.5 * np.eye(1), "bias_ih": np.zeros(1), "bias_hh": np.zeros(1)}
    >>> ps.solve(cell, params, np.ones((3, 1))).states[:, 0]
    array([1.  , 1.5 , 1.75])
    """

    GATES = 1
    SUMMED = 1
    gates = staticmethod(gates)

    def coarsened(self, params: Parameters, ratio: int) -> tuple[Cell, Parameters]:
        matrix = params["weight_hh"].astype(np.float64)
        identity = np.eye(self.hidden_size)
        power, total = identity, np.zeros_like(identity)
        for bit in f"{ratio:b}":  # from k steps to 2 k, then to 2 k + 1 where the bit is set
            power, total = product(power, power), total + product(power, total)
            if bit == "1":
                power, total = product(matrix, power), identity + product(matrix, total)
        new = {name: np.einsum("ij,j...->i...", total, params[name]) for name in ("weight_ih", "bias_ih", "bias_hh")}
        dtype = params["weight_hh"].dtype
        return self, {name: np.ascontiguousarray(value, dtype) for name, value in {**new, "weight_hh": power}.items()}
