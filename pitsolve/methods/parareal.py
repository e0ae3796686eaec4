"""Parareal: windows propagated all at once by the model, their boundaries corrected one after the other by a coarse step."""

from __future__ import annotations

import numpy as np

from pitsolve.methods.iteration import Outcome
from pitsolve.methods.mgrit import mgrit
from pitsolve.methods.problem import Problem


def parareal(problem: Problem, states: np.ndarray, *, window: int, **controls) -> Outcome:
    """U_{n+1} <- G(U_n) + F(U_n^old) - G(U_n^old), with F the ``window`` steps of a window and G one coarse step.

    This is MGRIT on two levels with F-relaxation, started from the coarse grid: F-relaxation evaluates F, the source of the
    coarse grid is F - G, and its solution is the sweep above. After k iterations the first k windows are exact.

    References
    ----------
    Lions, Maday and Turinici (2001); Algorithm 1 of Lee, Park and Lee, "Parareal neural networks emulating a parallel-in-time
    algorithm", TNNLS 2022. Gander and Vandewalle, SIAM J. Sci. Comput. 29 (2007), on the equivalence.
    """
    return mgrit(problem, states, levels=2, coarsening=window, relaxation=0, **controls)
