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

    Sums are NumPy's over whole arrays, so they depend on no number of threads.
    """
    windows, rhs = schwarz.windows, schwarz.problem.rhs
    silence = np.zeros_like(schwarz.mail.from_left)
    nothing = np.zeros_like(rhs)

    def precondition(r: np.ndarray) -> np.ndarray:
        windows.solve(schwarz.everyone, r, False, silence, silence)
        z = np.zeros_like(r)
        for i in range(schwarz.chain.count):
            z[schwarz.chain.first[i]:schwarz.chain.last[i]] += windows.window(i)
        return z

    estimate, g = EnergyEstimate(), guess.copy()
    r = windows.residual(rhs, g)
    z = precondition(r)
    direction, rho = z, float((r * z).sum())
    while estimate.error > tol and len(estimate.decreases) < max_iter and rho > 0:
        product = -windows.residual(nothing, direction)
        step = rho / float((direction * product).sum())
        g += r.dtype.type(step) * direction
        r -= r.dtype.type(step) * product
        estimate.add(step * rho, float((g * (rhs - r)).sum()))
        z = precondition(r)
        new = float((r * z).sum())
        direction, rho = z + r.dtype.type(new / rho) * direction, new
    if rho == 0:
        estimate.error = 0.0
    return g, estimate
