"""Exact gradients: one reverse affine recurrence with J^T at the solution, then parameter gradients as products over time."""

from __future__ import annotations

import numpy as np

from pitsolve import check, check_windows
from pitsolve.cells.base import Cell, GatedCell, GeneralCell, Parameters
from pitsolve.methods.mgrit import adjoint_mgrit
from pitsolve.methods.problem import Problem
from pitsolve.methods.shooting_adjoint import adjoint_shooting, carries_by_shooting
from pitsolve.solution import Gradient, Solution, Status
from pitsolve.solve import default_tolerance, place_of, prepare, unbatched
from pitsolve.work import Stage, Work, loop_stage, pointwise_stages

METHODS = ("auto", "sequential", "scan", "shooting", "mgrit")


def gradient(
    cell: Cell, params: Parameters, x: np.ndarray | int, solution: Solution, dstates: np.ndarray,
    h0: np.ndarray | None = None, *, method: str = "auto", backend: str = "auto", **options,
) -> Gradient:
    r"""Gradient of a loss L(h_1 ... h_T) with respect to parameters, inputs and initial state.

    With the adjoint states

    .. math:: \lambda_t = \frac{\partial L}{\partial h_t} + J_{t+1}^T \lambda_{t+1}, \qquad
              J_t = \frac{\partial f}{\partial h}(h_{t-1}, x_t),

    the gradients are :math:`\sum_t (\partial f/\partial\theta)_t^T \lambda_t`, :math:`(\partial f/\partial x)_t^T \lambda_t`
    and :math:`J_1^T \lambda_1`. J is the exact Jacobian at the states of ``solution``, whatever method found them.

    Parameters
    ----------
    cell, params, x, h0
        As given to :func:`pitsolve.solve`.
    solution : Solution
        What it returned. Its ``lengths`` apply here too: steps past a sequence's end carry no gradient.
    dstates : ndarray, the shape of ``solution.states``
        dL/dh_t, direct dependence only.
    method : str
        How the adjoint recurrence is solved: ``"sequential"`` (back-propagation through time), ``"scan"`` (in parallel over
        time, by the prefix scan), ``"shooting"`` (windows of time, swept all at once) or ``"mgrit"`` (multigrid in reversed
        time, to a tolerance or for a few cycles; the result says how large its error is, :attr:`Gradient.error_estimate`).
        ``"auto"`` takes ``shooting`` where that found the solution at once, else ``sequential``; ``scan`` for custom cells that
        state no pullback, and on a card for all cells that are functions, unless there are thousands of sequences.
    backend : str
        ``"cpu"``, ``"cuda"`` (docs/gpu.md), or ``"auto"``: where the arrays are, on a CUDA device or on the host.
    **options
        Of ``shooting``: ``window``, its steps, and ``tol``, the size below which a contribution to the adjoint, relative to the
        largest, is left out (default 16 units of rounding). Of ``mgrit``: ``tol``, the relative error of the adjoint states
        to be reached, by estimate (default 16 units of rounding), or ``cycles``, their number; ``levels``, ``coarsening``,
        ``cycle``, ``relaxation``, ``nested``, ``weight``, ``skip_first`` as in :func:`pitsolve.solve`.

    Returns
    -------
    Gradient

    Raises
    ------
    TypeError, ValueError
        As :func:`pitsolve.solve`.

    References
    ----------
    Lim, Zhu, Selfridge and Kasim, ICLR 2024, section 3.1 (implicit differentiation of the fixed point). Moon and Cyr, ICLR
    2022 (multigrid for the adjoint).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> cell = ps.cells.Elman(input_size=1, hidden_size=5)
    >>> params, x = cell.init(seed=7), np.ones((5, 1))
    >>> sol = ps.solve(cell, params, x)
    >>> ps.gradient(cell, params, x, sol, np.ones((5, 5))).params["weight_hh"].shape
    (5, 5)
    """
    check.choice("method", method, METHODS)
    options = check.options(method, options, check_windows.GRADIENT.get(method, {}))
    if not isinstance(solution, Solution):
        raise TypeError(f"solution must be what pitsolve.solve returned, got {type(solution).__name__}")
    with place_of(backend, params, x, dstates, solution.states, h0) as place:
        problem, batched = prepare(cell, params, x, h0, solution.lengths, place)
        batch, steps = problem.x.shape[:2]
        states = check.states_like("solution.states", solution.states, batch, steps, cell, batched)
        dstates = check.states_like("dstates", dstates, batch, steps, cell, batched)
        check.same_dtype({"params and x": problem.h0, "solution.states": states, "dstates": dstates})
        check.finite_to("solution.states", states, problem.stop)
        check.finite_to("dstates", dstates, problem.stop)
        if method == "auto":
            forgets = solution.method == "shooting" and solution.status is Status.CONVERGED and np.max(solution.iterations) <= 1
            loops = isinstance(cell, GatedCell) or (_is_pulled(cell) and batch >= problem.backend.fewest_pullbacks())
            method = "shooting" if forgets and _in_windows(cell) else "sequential" if loops else "scan"
        states, dstates = place.array(states), place.array(dstates)
        dx = problem.backend.arrays.zeros(problem.x.shape, problem.x.dtype)  # a pullback may leave out inputs
        by_params, dh0, estimate, work = _solve(problem, states, dstates, dx, method, options)
        if estimate is not None and not batched:
            estimate = estimate[0]
        return Gradient(params={name: place.give(value, like=params[name]) for name, value in by_params.items()},
                        x=place.give(unbatched(dx, batched)) if cell.input_size else None,
                        h0=place.give(unbatched(dh0, batched)), method=method, error_estimate=estimate, work=work)


def _solve(problem: Problem, states: np.ndarray, dstates: np.ndarray, dx: np.ndarray, method: str, options: dict):
    """Gradients by parameters and h_0, the estimated errors or None, and the work; dL/dx goes to ``dx``."""
    estimate, stages, levels = None, _stages(method, problem.stop), 1
    if method == "mgrit":
        options = check_windows.settle_adjoint(problem, options)
        carries, estimate, stages, levels = adjoint_mgrit(problem, states, dstates, **options)
        by_params, dh0 = _by_carries(problem, states, dstates, carries, dx)
    elif method == "shooting":
        options = {"tol": default_tolerance(states.dtype), **options}
        if _in_windows(problem.model.cell):
            by_params, dh0 = adjoint_shooting(problem, states, dstates, dx, **options)
        else:
            carries = carries_by_shooting(problem, states, dstates, **options)
            by_params, dh0 = _by_carries(problem, states, dstates, carries, dx)
    elif method == "sequential" and _is_pulled(problem.model.cell):  # the loop is one window
        by_params, dh0 = adjoint_shooting(problem, states, dstates, dx, tol=0.0, window=max(1, problem.steps))
    else:
        by_params, dh0 = _adjoint(problem, states, dstates, dx, method)
    return by_params, dh0, estimate, None if stages is None else Work(tuple(stages), loop_stage(problem.stop), levels)


def _is_pulled(cell: Cell) -> bool:
    """Whether the cell states its pullback, so that no Jacobian is needed."""
    return isinstance(cell, GeneralCell) and cell.pullback is not None


def _in_windows(cell: Cell) -> bool:
    """Whether the adjoint runs through windows by gates or a stated pullback, without Jacobians."""
    return isinstance(cell, GatedCell) or _is_pulled(cell)


def _stages(method: str, stop: np.ndarray) -> list[Stage] | None:
    """The work of the adjoint recurrence by the loop or by a scan; None for methods that count for themselves."""
    if method == "sequential":
        return [loop_stage(stop)]
    return pointwise_stages(np.minimum(stop, 1), stop, scans=True) if method == "scan" else None


def _adjoint(problem: Problem, states: np.ndarray, dstates: np.ndarray, dx: np.ndarray, method: str):
    """Slab by slab from the end: linearise, solve for lambda, add up the parameter gradients."""
    model, stop, batch = problem.model, problem.stop, problem.stop.size
    start = np.zeros_like(stop)
    totals = model.totals(dx)
    back_substitution = method == "sequential" and isinstance(model.cell, GatedCell)
    zero = problem.backend.arrays.zeros(problem.h0.shape, problem.h0.dtype)
    carry = model.carry(zero) if back_substitution else zero
    step_bytes = 2 * model.step_bytes(model.VALUE if back_substitution else model.BLOCKS)
    for begin, end in reversed(problem.slabs(step_bytes, problem.backend.loop_memory())):
        previous = problem.previous(states, begin)
        adjoint = model.work.take("adjoint", batch, end - begin, problem.h0.shape[1])
        if back_substitution:
            partials = model.partials(problem.x, states, previous, begin, end, start, stop)
            model.backward(partials, dstates, carry, adjoint, begin, start, stop)
        else:
            _, jacobian = model.linearise(model.BLOCKS, problem.x, states, previous, begin, end, start, stop)
            carry = _reverse_scan(problem, jacobian, dstates, carry, adjoint, begin)
            partials = model.partials(problem.x, states, previous, begin, end, start, stop)
        model.accumulate(totals, partials, problem.x, states, previous, adjoint, begin, start, stop)
    return model.finish(totals), model.state(carry) if back_substitution else carry


def _by_carries(problem: Problem, states: np.ndarray, dstates: np.ndarray, carries: np.ndarray, dx: np.ndarray):
    """The gradients from c_t = J_t^T lambda_t, known for all t: lambda_t = dL/dh_t + c_{t+1}, dL/dh_0 = c_0."""
    model, stop, batch, arrays = problem.model, problem.stop, problem.stop.size, problem.backend.arrays
    start, totals = np.zeros_like(stop), model.totals(dx)
    for begin, end in reversed(problem.slabs(2 * model.step_bytes(model.BLOCKS), problem.backend.loop_memory())):
        previous = problem.previous(states, begin)
        adjoint = model.work.take("adjoint", batch, end - begin, problem.h0.shape[1])
        arrays.copy_steps(adjoint, dstates, begin)
        arrays.add_steps(adjoint, carries, begin + 1)  # zero from the end of each sequence on
        partials = model.partials(problem.x, states, previous, begin, end, start, stop)
        model.accumulate(totals, partials, problem.x, states, previous, adjoint, begin, start, stop)
    dh0 = arrays.at_step(carries, 0) if problem.steps else arrays.zeros(problem.h0.shape, problem.h0.dtype)
    return model.finish(totals), dh0


def _reverse_scan(problem, jacobian, dstates, carry, adjoint, begin) -> np.ndarray:
    """lambda on one slab from ``carry`` = lambda at its last step; returns lambda at the step before the slab.

    The scan runs over y_t = lambda_{t-1} = dL/dh_{t-1} + J_t^T lambda_t, so that its last value at t = 1 is dL/dh_0.
    """
    arrays, length = problem.backend.arrays, adjoint.shape[1]
    last = np.clip(problem.stop - begin, 0, length)
    ends_here = np.flatnonzero((last > 0) & (problem.stop <= begin + length))
    arrays.put_rows(carry, ends_here, arrays.take(dstates, ends_here, problem.stop[ends_here] - 1))
    shifted = problem.model.work.take("shifted", *adjoint.shape)
    arrays.copy_steps(shifted, dstates, begin - 1)
    problem.backend.scan(jacobian, shifted, carry, shifted, np.zeros_like(last), last, reverse=True, transpose=True)
    arrays.copy_steps(adjoint, shifted, 1)
    reached = np.flatnonzero(last > 0)
    arrays.put(adjoint, reached, last[reached] - 1, arrays.rows(carry, reached))
    arrays.put_rows(carry, reached, arrays.take(shifted, reached, np.zeros_like(reached)))
    return carry
