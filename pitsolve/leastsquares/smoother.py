"""The smoother of a nonlinear model with noise in its dynamics: Gauss-Newton, its linear problems solved by windows."""

from __future__ import annotations

import warnings

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Cell, Parameters
from pitsolve.leastsquares import check_problem, check_schwarz, check_smoother
from pitsolve.leastsquares.problem import BlockTridiagonal
from pitsolve.leastsquares.result import SchwarzStatus
from pitsolve.leastsquares.schwarz import schwarz_lstsq
from pitsolve.leastsquares.smoothing import Smoothing, SmoothingStatus
from pitsolve.methods.problem import Problem
from pitsolve.methods.sequential import sequential
from pitsolve.place import placed
from pitsolve.solution import ConvergenceError
from pitsolve.solve import ON_FAILURE, prepare

_MAX_MEMORY = 32 << 20  # bytes of scratch while linearising
_FORCING, _LEAST = 1e-2, 64.0  # relative tolerance of the first linear problem; least one, in units of rounding
_WINDOWS = 8
_ARMIJO, _HALVINGS = 1e-4, 30  # part of the decrease along the tangent that a step must bring; most halvings of a step
_NOISE = 1e3  # units of rounding, relative to the cost, below which differences of costs say nothing


def default_tolerance(dtype: np.dtype) -> float:
    """Rounding to the power 2/3: 3.7e-11 in float64, 2.4e-5 in float32."""
    return float(np.finfo(dtype).eps) ** (2 / 3)


class _Model:
    """The dynamics and the observations of one sequence."""

    def __init__(self, problem: Problem, C: np.ndarray, Q: np.ndarray, R: np.ndarray, y: np.ndarray, observed: np.ndarray):
        self.problem, self.C, self.Q, self.R, self.y, self.observed = problem, C, Q, R, y, observed

    def _dynamics(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """f(h_{t-1}, x_t) - h_t (T, n) and J_t (T, n, n)."""
        problem, verbs = self.problem, self.problem.model
        steps, n = states.shape
        defects, jacobians = np.empty((steps, n), states.dtype), np.zeros((steps, n, n), states.dtype)
        for begin, end in problem.slabs(verbs.step_bytes(verbs.BLOCKS), _MAX_MEMORY):
            before = problem.previous(states[None], begin)
            defect, blocks = verbs.linearise(verbs.BLOCKS, problem.x, states[None], before, begin, end,
                                             np.zeros_like(problem.stop), problem.stop)
            defects[begin:end] = defect[0]
            heads, m = blocks.shape[2:4]
            for head in range(heads):
                unit = slice(head * m, (head + 1) * m)
                jacobians[begin:end, unit, unit] = blocks[0, :, head]
        return defects, jacobians

    def linearise(self, states: np.ndarray) -> BlockTridiagonal | None:
        """The least-squares problem of the Gauss-Newton step from ``states``; None where the model overflows."""
        defects, jacobians = self._dynamics(states)
        if not (check.is_finite(defects) and check.is_finite(jacobians)):
            return None
        return BlockTridiagonal.from_state_space(jacobians, self.Q, self.C, self.R, self._innovations(states), defects,
                                                 observed=self.observed)

    def _innovations(self, states: np.ndarray) -> np.ndarray:
        return self.y - (self.C @ states[:, :, None])[:, :, 0]

    def starts(self) -> list[np.ndarray]:
        """The model without noise, and the same moved, step by step, as little as makes it fit what was observed."""
        rollout = np.zeros((1, self.problem.steps, self.problem.h0.shape[1]), self.y.dtype)
        sequential(self.problem, rollout)
        rollout = np.nan_to_num(rollout[0], nan=0.0, posinf=0.0, neginf=0.0)
        C = np.where(self.observed[:, :, None], self.C, 0)
        gram = C @ C.transpose(0, 2, 1)
        k, small = self.y.shape[1], np.sqrt(np.finfo(C.dtype).eps)
        gram += small * (1 + gram.max(axis=(1, 2), keepdims=True)) * np.eye(k, dtype=C.dtype)  # C may have dependent rows
        moves = C.transpose(0, 2, 1) @ np.linalg.solve(gram, self._innovations(rollout)[:, :, None])
        return [rollout, rollout + moves[:, :, 0]]


def _cost(problem: BlockTridiagonal | None) -> float:
    """The cost at the point of linearisation: rows are whitened, and their targets are what is left to explain there."""
    return np.inf if problem is None else 0.5 * float(np.sum(problem.targets.astype(np.float64)**2))


def smooth(
    cell: Cell, params: Parameters, x: np.ndarray | int, y: np.ndarray, *, C: np.ndarray, Q: np.ndarray, R: np.ndarray,
    h0: np.ndarray | None = None, observed: np.ndarray | None = None, method: str = "schwarz",
    windows: int | np.ndarray | None = None, overlap: int = 4, transmission: str = "dirichlet",
    sweeps: int | None = None, guess: np.ndarray | None = None, tol: float | None = None, max_iter: int = 50,
    on_failure: str = "fallback",
) -> Smoothing:
    r"""Smooth noisy observations of a nonlinear model whose dynamics are noisy too (weak-constraint 4D-Var).

    With h_t = f(h_{t-1}, x_t; theta) + N(0, Q_t), h_0 known, and y_t = C_t h_t + N(0, R_t), it minimises

    .. math:: V(h) = \tfrac12 \sum_t |h_t - f(h_{t-1}, x_t; \theta)|^2_{Q_t^{-1}} + \tfrac12 \sum_t |y_t - C_t h_t|^2_{R_t^{-1}}

    by Gauss-Newton steps d, each the smoother of the linear model d_t = J_t d_{t-1} + f(h_{t-1}, x_t) - h_t, shortened until V
    falls (the iterated extended Kalman smoother with a line search).

    Parameters
    ----------
    cell : Cell
        The model f.
    params : dict of ndarray
        Its parameters theta.
    x : ndarray (T, m), or int
        Inputs. For a cell without inputs, the number of steps T.
    y : ndarray (T, k)
        Observations.
    C : ndarray (k, n) or (T, k, n)
        Observation of the state.
    Q : ndarray (n, n) or (T, n, n)
        Covariance of the noise of the dynamics, that of the first step included; symmetric positive definite.
    R : ndarray (k, k) or (T, k, k)
        Covariance of the noise of the observations; symmetric positive definite.
    h0 : ndarray (n,), optional
        Initial state, zero by default.
    observed : ndarray of bool (T,) or (T, k), optional
        Where y was observed. What was not may be anything, NaN too.
    method : str
        ``"schwarz"`` solves each linear problem by :func:`pitsolve.schwarz_lstsq` on windows of time, ``"sequential"`` by block
        Cholesky from one end to the other.
    windows : int or ndarray of int, optional
        Windows, by their count or their boundaries 0 ... T; by default 8, fewer where they would be shorter than 4 overlaps.
    overlap : int
        Steps that two neighbours share.
    transmission : str
        ``"dirichlet"`` or ``"schur"``, which needs an overlap of at least 1.
    sweeps : int, optional
        Set-up sweeps of ``"schur"``; 1 by default.
    guess : ndarray (T, n), optional
        Where to start. By default from the model without noise, or from the same moved at each step as little as makes it
        fit the observations, whichever costs less.
    tol : float, optional
        Bound on the last step, max abs(d)_i / max(1, abs(h)_i); 3.7e-11 in float64 and 2.4e-5 in float32 by default. A linear
        problem is solved to a relative error that falls with the steps.
    max_iter : int
        Most Gauss-Newton iterations.
    on_failure : str
        ``"fallback"`` solves by one window what the windows do not; ``"raise"`` raises when either iteration does not converge,
        ``"warn"`` takes what there is. A result that has not converged always warns.

    Returns
    -------
    Smoothing

    Raises
    ------
    TypeError
        Arrays that are not float32 or float64, or mix them.
    ValueError
        Shapes that do not fit, covariances that are not positive definite, windows shorter than overlap + 1, NaN or infinity,
        or a model that overflows at the start.
    ConvergenceError
        With ``on_failure="raise"``, when the iteration does not converge.

    References
    ----------
    B. M. Bell, "The iterated Kalman smoother as a Gauss-Newton method", SIAM J. Optim. 4 (1994). L. D'Amore, "A model
    decomposition-in-time of recurrent neural networks: a feasibility analysis" (2025), eqs. (12)-(18), for the windows. S. Na,
    S. Shin, M. Anitescu, V. M. Zavala, "On the convergence of overlapping Schwarz decomposition for nonlinear optimal control",
    IEEE Trans. Automat. Control (2022), for the convergence of such windows.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> cell = ps.cells.Elman(input_size=1, hidden_size=2)
    >>> random, x = np.random.default_rng(5), np.sin(np.arange(80.0))[:, None]
    >>> h = ps.solve(cell, cell.init(seed=5), x).states
    >>> y = h + 0.2 * random.normal(size=h.shape)
    >>> fit = ps.leastsquares.smooth(cell, cell.init(seed=5), x, y, C=np.eye(2), Q=1e-4 * np.eye(2), R=0.04 * np.eye(2))
    >>> fit.converged, bool(abs(fit.states - h).max() < 0.1)
    (True, True)
    """
    check.choice("method", method, ("schwarz", "sequential"))
    check.choice("on_failure", on_failure, ON_FAILURE)
    with placed("cpu") as place:
        problem, batched = prepare(cell, params, x, h0, None, place)
    check_smoother.one_sequence("x", batched)
    model = _Model(problem, *check_smoother.noise(problem, C, Q, R, y, observed))
    options = _linear_options(method, windows, overlap, transmission, sweeps, on_failure, problem.steps)
    tol = default_tolerance(problem.h0.dtype) if tol is None else check.positive("tol", tol)
    max_iter = check.count("max_iter", max_iter)
    if guess is not None:
        guess = check.states_like("guess", guess, 1, problem.steps, cell, False)[0]
        check.same_dtype({"params and x": problem.h0, "guess": guess})
        check.all_finite("guess", guess)
    smoothing = _gauss_newton(model, model.starts() if guess is None else [guess], method, options, tol, max_iter)
    if not smoothing.converged:
        if on_failure == "raise":
            raise ConvergenceError(smoothing)
        warnings.warn(f"{smoothing.status.value}\n{smoothing}", RuntimeWarning, stacklevel=2)
    return smoothing


def _linear_options(method, windows, overlap, transmission, sweeps, on_failure, steps) -> dict:
    """What to ask of the linear solver."""
    if method == "sequential":
        return {"windows": 1, "overlap": 0}
    overlap = check.length("overlap", overlap)
    if windows is None:
        windows = max(1, min(_WINDOWS, steps // (4 * max(1, overlap))))
    chain = check_problem.chain(windows, overlap, steps)
    check_schwarz.options(None, chain, "complement", "additive", 0.0, transmission, sweeps, None)
    return {"windows": chain.boundaries, "overlap": overlap, "transmission": transmission, "sweeps": sweeps,
            "on_failure": on_failure}


def _gauss_newton(model: _Model, starts: list[np.ndarray], method: str, options: dict, tol: float, max_iter: int) -> Smoothing:
    """Gauss-Newton with a line search, from the start of least cost."""
    states, problem = min(((start, model.linearise(start)) for start in starts), key=lambda pair: _cost(pair[1]))
    if problem is None:
        raise ValueError("the model overflows at the start, give a guess= at which its states are finite")
    rounding = float(np.finfo(states.dtype).eps)
    costs, steps, lengths, inner = [_cost(problem)], [], [], []
    status, linear_tol = SmoothingStatus.NOT_CONVERGED, _FORCING
    while len(steps) < max_iter and status is SmoothingStatus.NOT_CONVERGED:
        solved = schwarz_lstsq(problem, tol=linear_tol, **options)
        step = float(np.max(np.abs(solved.solution) / np.maximum(1, np.abs(states))))
        length, states, problem = _search(model, states, problem, solved.solution, _NOISE * rounding)
        for history, value in ((steps, step), (inner, solved.iterations), (lengths, length), (costs, _cost(problem))):
            history.append(value)
        if step <= tol:
            status = SmoothingStatus.CONVERGED
        elif length > 0:  # of the order of this step or of the tolerance, both of which are errors in the next step
            linear_tol = max(_LEAST * rounding, min(_FORCING, max(step, 0.1 * tol / step)))
        elif solved.status is SchwarzStatus.DIRECT or linear_tol <= _LEAST * rounding:
            status = SmoothingStatus.STALLED
        else:
            linear_tol = max(_LEAST * rounding, _FORCING * linear_tol)
    return Smoothing(
        states=states, method=method, status=status, converged=status is SmoothingStatus.CONVERGED, iterations=len(steps),
        inner_iterations=np.array(inner), cost=costs[-1], costs=np.array(costs), steps=np.array(steps),
        lengths=np.array(lengths), gradient=float(np.abs(problem.rhs).max()), tol=tol, linearised=problem)


def _search(model: _Model, states: np.ndarray, problem: BlockTridiagonal, change: np.ndarray,
            noise: float) -> tuple[float, np.ndarray, BlockTridiagonal]:
    """The part of the step that lowers the cost, by halving; what it leads to. Zero where no part does."""
    cost, slope = _cost(problem), float(np.sum(problem.rhs * change))  # rhs is minus the gradient
    length = 1.0
    for _ in range(_HALVINGS if slope > 0 else 0):
        moved = states + states.dtype.type(length) * change
        ahead = model.linearise(moved)
        least = _ARMIJO * length * slope
        if _cost(ahead) <= cost - least or (length == 1 and slope <= noise * cost and _cost(ahead) <= (1 + noise) * cost):
            return length, moved, ahead
        length *= 0.5
    return 0.0, states, problem
