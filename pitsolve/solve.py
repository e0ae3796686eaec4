"""Evaluate a sequential model: choose a method and a backend, run it, certify the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pitsolve import check, check_windows
from pitsolve.cells.base import Cell, Parameters
from pitsolve.methods.choice import PATIENCE, choose
from pitsolve.methods.elk import elk, quasi_elk
from pitsolve.methods.iteration import Outcome, residual
from pitsolve.methods.mgrit import mgrit
from pitsolve.methods.newton import deer, quasi_deer
from pitsolve.methods.parareal import parareal
from pitsolve.methods.picard import picard
from pitsolve.methods.problem import Problem
from pitsolve.methods.sequential import sequential
from pitsolve.methods.shooting import shooting
from pitsolve.place import Place, placed
from pitsolve.solution import ConvergenceError, Solution, Status
from pitsolve.work import Work, loop_stage, pointwise_stages


@dataclass(frozen=True)
class _Method:
    run: Callable[..., Outcome]
    max_iter: int | None
    options: dict[str, Callable]
    settle: Callable[..., dict] = lambda problem, options, guess: options  # checks of several arguments together, defaults
    fills: bool = True  # whether it needs a first iterate at every step, also where the user gives none
    scans: bool = False
    tolerance: Callable[..., float] = lambda problem, options: default_tolerance(problem.h0.dtype)


_SLABS = {"max_memory": check.count}
_DAMPING = {"damping": check.fraction, **_SLABS}
_TRUST = {"trust": check.positive, **_SLABS}
_METHODS = {
    "picard": _Method(picard, 1000, _SLABS),
    "deer": _Method(deer, 100, _DAMPING, scans=True),
    "quasi-deer": _Method(quasi_deer, 300, _DAMPING, scans=True),
    "elk": _Method(elk, 100, _TRUST, scans=True),
    "quasi-elk": _Method(quasi_elk, 300, _TRUST, scans=True),
    "shooting": _Method(shooting, None, {**check_windows.SHOOTING, **_SLABS}, check_windows.settle_shooting, fills=False),
    "mgrit": _Method(mgrit, 100, check_windows.MGRIT, check_windows.settle_mgrit, tolerance=check_windows.mgrit_tolerance),
    "parareal": _Method(parareal, 100, check_windows.PARAREAL, check_windows.settle_parareal,
                        tolerance=check_windows.parareal_tolerance),
}
METHODS = ("auto", "sequential", *_METHODS)
ON_FAILURE = ("fallback", "raise", "warn")


def default_tolerance(dtype: np.dtype) -> float:
    """16 units of rounding: what an evaluation of f can reach for states of size one, with a margin."""
    return 16.0 * float(np.finfo(dtype).eps)


def place_of(backend: object, params: object, *values: object) -> Place:
    """Where a call with these arrays and parameters runs."""
    return placed(backend, *values, *(params.values() if isinstance(params, dict) else ()))


def prepare(cell: Cell, params: Parameters, x, h0, lengths, place: Place) -> tuple[Problem, bool]:
    """Check the arguments that define the equation, and bind them in a backend; also whether the call is a batch."""
    check.a_cell(cell)
    params = check.parameters(cell, params)
    dtype = next(iter(params.values())).dtype if params else None
    x, batched = check.inputs(cell, x, dtype)
    dtype = dtype or (np.asarray(h0).dtype if cell.input_size == 0 and h0 is not None else x.dtype)
    if cell.input_size == 0:
        x = x.astype(dtype)
    h0, batched = check.initial_state(cell, h0, x.shape[0], batched, dtype)
    check.same_dtype({**{f"params[{name!r}]": value for name, value in params.items()}, "x": x, "h0": h0})
    if cell.input_size == 0:
        x = np.zeros((h0.shape[0], x.shape[1], 0), dtype)
    stop = check.lengths(lengths, x.shape[0], x.shape[1], batched)
    check.finite_to("x", x, stop)
    x, h0 = place.array(x), place.array(h0)
    return Problem(place.backend.bind(cell, params, h0.dtype), x, h0, stop, params, place.backend), batched


def _start(problem: Problem, guess: np.ndarray | None, needed: bool) -> np.ndarray:
    """Memory for the states: zero past the end of each sequence, the first iterate before it if there is one."""
    batch, n = problem.h0.shape
    arrays = problem.backend.arrays
    states = arrays.empty((batch, problem.steps, n), problem.h0.dtype)
    if guess is not None:
        arrays.copy_steps(states, guess, 0)
    elif needed:
        arrays.spread(states, problem.h0)
    arrays.clear_after(states, problem.stop)
    return states


def solve(
    cell: Cell, params: Parameters, x: np.ndarray | int, h0: np.ndarray | None = None, *,
    lengths: np.ndarray | None = None, method: str = "auto", backend: str = "auto", tol: float | None = None,
    max_iter: int | None = None, guess: np.ndarray | None = None, on_failure: str = "fallback", **options,
) -> Solution:
    r"""Evaluate a sequential model.

    Solves r(h) = 0 with

    .. math:: r_t(h) = h_t - f(h_{t-1}, x_t; \theta), \qquad t = 1 \dots T,

    for all t together.

    Parameters
    ----------
    cell : Cell
        The model f, for example ``pitsolve.cells.GRU(input_size=6, hidden_size=32)``.
    params : dict of ndarray
        Its parameters theta, with the names and shapes of ``cell.shapes``.
    x : ndarray (T, m) or (B, T, m), or int
        Inputs; any strides. For a cell without inputs, the number of steps T.
    h0 : ndarray (n,) or (B, n), optional
        Initial state, zero by default. It is not part of the states.
    lengths : int ndarray (B,), optional
        Lengths of the sequences of a ragged batch. States past a sequence's end are zero; inputs there are not read.
    method : str
        ``"sequential"`` (the loop), ``"picard"``, ``"deer"`` (Newton over a prefix scan), ``"quasi-deer"`` (its diagonal form),
        ``"elk"``, ``"quasi-elk"`` (in a trust region), ``"shooting"`` (windows of time, swept all at once), ``"mgrit"``
        (multigrid in time), ``"parareal"`` (windows and one coarse grid). ``"auto"`` takes ``shooting`` where the model forgets
        fast enough, as a short trial shows, and ``sequential`` otherwise.
    backend : str
        ``"cpu"``, ``"cuda"`` (docs/gpu.md), or ``"auto"``: where the arrays are, on a CUDA device or on the host.
    tol : float, optional
        Bound on the residual max abs(r_t)_i / max(1, abs(h_t)_i). Default 16 units of rounding: 1.9e-6 in float32,
        3.6e-15 in float64. A residual bounds the error of one step; a model with a long memory adds many of them up. For
        ``mgrit`` and ``parareal`` it bounds the 2-norm of :attr:`Solution.residual`, and the default is as much for each
        number in that norm.
    max_iter : int, optional
        Most iterations; by default 100 (deer, elk, mgrit, parareal), 300 (quasi forms), 1000 (picard), as many as there
        are windows (shooting).
    guess : ndarray, the shape of the states, optional
        First iterate; by default h0 at every step, as in the authors' code of DEER.
    on_failure : str
        What to do when the iteration does not converge: ``"fallback"`` finishes sequentially from the first step that has not
        converged, so that the states are right in any case, ``"raise"`` raises, ``"warn"`` returns what there is with
        ``converged`` false, and warns.
    **options
        Of the method and nothing else: ``damping`` (deer, quasi-deer; 0 to 1, default 0, scales the Jacobian by 1 - damping),
        ``trust`` (elk, quasi-elk; the first sigma^2, default 1e4), ``max_memory`` (picard, deer, elk and their quasi forms;
        bytes of scratch, default 32 MiB: time is worked through in slabs that fit); ``window``, ``overlap``, ``correction``
        (shooting, docs/methods/windows.md); ``levels``, ``coarsening``, ``cycle``, ``relaxation``, ``nested``, ``weight``,
        ``skip_first``, ``relative`` (mgrit) and ``window`` (parareal), explained in docs/methods/multigrid.md.

    Returns
    -------
    Solution

    Raises
    ------
    TypeError
        Arrays that are not float32 or float64, or mix them; an unknown option.
    ValueError
        Shapes that do not fit, NaN or infinity in an argument, unknown names, numbers out of range.
    ConvergenceError
        With ``on_failure="raise"``, when the iteration does not converge.

    References
    ----------
    See the functions of ``pitsolve.methods``.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> cell = ps.cells.GRU(input_size=2, hidden_size=5)
    >>> params = cell.init(seed=7)
    >>> x = np.sin(np.arange(200.0)).reshape(100, 2)
    >>> sol = ps.solve(cell, params, x, method="deer")
    >>> sol.states.shape, bool(sol.converged)
    ((100, 5), True)
    """
    check.choice("method", method, METHODS)
    check.choice("on_failure", on_failure, ON_FAILURE)
    known = _METHODS[method].options if method in _METHODS else {}
    options = check.options(method, options, known)
    with place_of(backend, params, x, h0, guess) as place:
        problem, batched = prepare(cell, params, x, h0, lengths, place)
        if method in _METHODS:
            options = _METHODS[method].settle(problem, options, guess)
            tolerance = _METHODS[method].tolerance(problem, options)
        else:
            tolerance = default_tolerance(problem.h0.dtype)
        tol = tolerance if tol is None else check.positive("tol", tol)
        max_iter = None if max_iter is None else check.count("max_iter", max_iter)
        if guess is not None:
            guess = check.states_like("guess", guess, problem.x.shape[0], problem.steps, cell, batched)
            check.same_dtype({"params and x": problem.h0, "guess": guess})
            check.finite_to("guess", guess, problem.stop)
            guess = place.array(guess)
        if method == "auto":
            method, max_iter, on_failure = choose(problem, tol), max_iter or PATIENCE, "fallback"
            options = {"correction": "none", "guessed": guess is not None}
        states = _start(problem, guess, method in _METHODS and _METHODS[method].fills)
        if method == "sequential":
            sequential(problem, states)
            status, outcome = Status.SEQUENTIAL, _nothing_iterated(problem)
        else:
            status, outcome = _iterate(problem, states, method, tol, max_iter, on_failure, options)
        solution = _solution(problem, states, outcome, status, batched, method, place, tol, lengths)
    return _report(solution, on_failure)


def _iterate(problem: Problem, states: np.ndarray, method: str, tol: float, max_iter: int | None, on_failure: str,
             options: dict) -> tuple[Status, Outcome]:
    """Run an iterative method, and finish what it left."""
    chosen, max_memory = _METHODS[method], options.get("max_memory", problem.backend.iteration_memory())
    if "max_memory" in chosen.options:
        options = {**options, "max_memory": max_memory}
    outcome = chosen.run(problem, states, tol=tol, max_iter=max_iter or chosen.max_iter, **options)
    outcome.stages = outcome.stages or pointwise_stages(outcome.iterations, problem.stop, chosen.scans)
    return _finish(problem, states, outcome, tol, on_failure, max_memory), outcome


def _nothing_iterated(problem: Problem) -> Outcome:
    batch = problem.stop.size
    return Outcome(np.zeros(batch, np.int64), np.zeros(batch), problem.stop, [np.zeros(batch)], [], [loop_stage(problem.stop)])


def _finish(problem: Problem, states: np.ndarray, outcome: Outcome, tol: float, on_failure: str, max_memory: int) -> Status:
    """Complete what did not converge, if asked to."""
    if np.all(outcome.first == problem.stop):
        return Status.CONVERGED
    if on_failure != "fallback":
        return Status.NOT_CONVERGED
    sequential(problem, states, outcome.first)
    outcome.stages.append(loop_stage(problem.stop, outcome.first))
    outcome.residual, _ = residual(problem, states, tol, max_memory)
    return Status.FALLBACK


def unbatched(values: np.ndarray, batched: bool) -> np.ndarray:
    """An array of a backend without the axis of the batch if the call was not one."""
    return values if batched else values.reshape(values.shape[1:])


def _solution(problem, states, outcome, status, batched, method, place, tol, lengths) -> Solution:
    finite = problem.backend.arrays.finite(states)
    if not finite.all():
        status = Status.OVERFLOW
    converged = finite & ((outcome.first == problem.stop) | (status in (Status.FALLBACK, Status.SEQUENTIAL)))
    steps = np.array(outcome.steps).reshape(len(outcome.steps), problem.stop.size)
    one = slice(None) if batched else 0
    return Solution(
        states=place.give(unbatched(states, batched)), method=method, backend=place.name, status=status,
        converged=converged[one], iterations=outcome.iterations[one], residual=outcome.residual[one],
        residuals=np.array(outcome.residuals)[:, one], steps=steps[:, one], resumed_at=outcome.first[one], tol=tol,
        lengths=None if lengths is None else problem.stop.copy(),
        work=Work(tuple(outcome.stages), loop_stage(problem.stop), outcome.levels))


def _report(solution: Solution, on_failure: str) -> Solution:
    if solution.status in (Status.NOT_CONVERGED, Status.OVERFLOW):
        if on_failure == "raise":
            raise ConvergenceError(solution)
        warnings.warn(f"{solution.status.value}\n{solution}", RuntimeWarning, stacklevel=3)
    return solution
