"""Conjugate gradients with the windows as preconditioner: additive Schwarz, which is symmetric where the iteration is not."""

from __future__ import annotations

import math

import numpy as np

from pitsolve.leastsquares.iteration import Schwarz

_DELAY = 4  # steps over which the error estimate sums


class EnergyEstimate:
    """Hestenes and Stiefel's estimate: the error in the norm of N of ``_DELAY`` steps ago, from the decreases since then."""

    def __init__(self) -> None:
        self.decreases: list[float] = []
        self.error = math.inf

    def add(self, decrease: float, energy: float) -> float:
        """The estimated error after one more step, relative to the norm of the solution."""
        self.decreases.append(decrease)
        if len(self.decreases) >= _DELAY or decrease == 0:
            self.error = math.sqrt(sum(self.decreases[-_DELAY:]) / max(energy, np.finfo(float).tiny))
        return self.error


def conjugate_gradients(schwarz: Schwarz, guess: np.ndarray, tol: float, max_iter: int) -> tuple[np.ndarray, EnergyEstimate]:
    """N g = f by steps that are conjugate after z = sum_i E_i (N_ii + D_i)^-1 R_i r.

    Sums run over whole arrays in a fixed order, so they depend on no number of threads.
    """
    windows, rhs, arrays = schwarz.windows, schwarz.rhs, schwarz.backend.arrays
    combine, dot = arrays.combine, arrays.dot
    silence, nothing = np.zeros_like(schwarz.mail.from_left), arrays.zeros(rhs.shape, rhs.dtype)

    def precondition(r: np.ndarray) -> np.ndarray:
        windows.solve(schwarz.everyone, r, False, silence, silence)
        return windows.merge(True)

    estimate, g = EnergyEstimate(), arrays.copy(arrays.from_host(guess))
    r = windows.residual(rhs, g)
    z = precondition(r)
    direction, rho = z, dot(r, z)
    while estimate.error > tol and len(estimate.decreases) < max_iter and rho > 0:
        product = windows.residual(nothing, direction)
        arrays.scale(product, -1.0)
        step = rho / dot(direction, product)
        g, r = combine(1.0, g, step, direction), combine(1.0, r, -step, product)
        estimate.add(step * rho, dot(g, combine(1.0, rhs, -1.0, r)))
        z = precondition(r)
        new = dot(r, z)
        direction, rho = combine(1.0, z, new / rho, direction), new
    if rho == 0:
        estimate.error = 0.0
    return arrays.to_host(g), estimate
