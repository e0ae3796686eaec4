"""Load balance on a chain of windows: boundaries that give all windows equally much to do."""

from __future__ import annotations

import numpy as np

from pitsolve.leastsquares import check_choice as check
from pitsolve.leastsquares.windows import Chain

_BISECTIONS = 60  # after these the common load is known to the last bit


def _sums(cost: np.ndarray) -> np.ndarray:
    """Cost of the first t steps, t = 0 ... T."""
    return np.concatenate([[0.0], np.cumsum(cost)])


def _loads(sums: np.ndarray, chain: Chain) -> np.ndarray:
    """Cost of every window, its overlap included."""
    return sums[chain.last] - sums[chain.first]


def _filled(sums: np.ndarray, windows: int, overlap: int, load: float) -> Chain:
    """Windows from left to right, each the shortest valid one of at least the given load; the last takes the rest."""
    steps, least = sums.size - 1, overlap + 1
    boundaries = np.zeros(windows + 1, np.int64)
    for i in range(1, windows):
        target = sums[boundaries[i - 1] - (overlap if i > 1 else 0)] + load
        end = int(np.searchsorted(sums, target))
        boundaries[i] = min(max(end, boundaries[i - 1] + least), steps - (windows - i) * least)
    boundaries[-1] = steps
    return Chain(boundaries, overlap)


def _ratio(loads: np.ndarray) -> float:
    return float(loads.min() / loads.max()) if loads.max() > 0 else 1.0


def balance(cost: np.ndarray, windows: int, overlap: int = 4) -> np.ndarray:
    r"""Boundaries of windows that cost equally much.

    With :math:`C_b` the cost of the first b steps, window i costs :math:`C_{b_{i+1}} - C_{b_i - s}`. Windows are filled from
    left to right up to a given load, no core shorter than s + 1 steps; bisection finds the load that the last window has too.

    Parameters
    ----------
    cost : array_like (T,)
        Cost of every step, not negative, in any unit. Where observations are scattered: a constant for the dynamics plus a
        constant times the number of observations of the step. :func:`calibrate` corrects it by measured seconds.
    windows : int
        Number of windows p.
    overlap : int
        Steps s that two neighbours share, as in :func:`pitsolve.schwarz_lstsq`.

    Returns
    -------
    ndarray of int (p + 1,)
        0, the ends of the cores, T: the ``windows`` of a solver.

    Raises
    ------
    ValueError
        If T steps have no room for so many windows, or the cost is negative, not finite or zero everywhere.

    References
    ----------
    L. D'Amore, "A model decomposition-in-time of recurrent neural networks: a feasibility analysis" (2025), whose windows are
    equal. L. D'Amore, R. Cacciapuoti, "Parallel framework for dynamic domain decomposition of data assimilation problems"
    (2020), arXiv:2203.16535, moves boundaries by counts of observations.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> observed = np.arange(1000) < 250
    >>> cost = 0.2 + observed
    >>> boundaries = ps.leastsquares.balance(cost, windows=4)
    >>> boundaries
    array([   0,   96,  188,  429, 1000])
    """
    cost, windows, overlap = check.balance(cost, windows, overlap)
    sums = _sums(cost)
    lower, upper = 0.0, sums[-1]
    best, quality = None, (-1.0, 0.0)
    for _ in range(_BISECTIONS):
        load = (lower + upper) / 2
        chain = _filled(sums, windows, overlap, load)
        loads = _loads(sums, chain)
        if (_ratio(loads), -loads.max()) > quality:
            best, quality = chain.boundaries, (_ratio(loads), -loads.max())
        if loads[-1] > load:
            lower = load
        else:
            upper = load
    return best


def efficiency(cost: np.ndarray, windows: int | np.ndarray, overlap: int = 4) -> float:
    r"""How evenly windows share the work, :math:`E = \min_i l_i / \max_i l_i`; 1 is even.

    Parameters
    ----------
    cost : array_like (T,)
        Cost of every step, not negative.
    windows : int or ndarray of int (p + 1,)
        Number of windows of equal length, or their boundaries.
    overlap : int
        Steps s that two neighbours share; the load of a window counts them.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the windows do not fit the T steps, or the cost is negative, not finite or zero everywhere.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> cost = np.arange(1000.0)
    >>> round(ps.leastsquares.efficiency(cost, 4), 3)
    0.14
    >>> round(ps.leastsquares.efficiency(cost, ps.leastsquares.balance(cost, 4)), 3)
    0.994
    """
    cost, chain = check.loads(cost, windows, overlap)
    return _ratio(_loads(_sums(cost), chain))


def calibrate(cost: np.ndarray, windows: int | np.ndarray, seconds: np.ndarray, overlap: int = 4) -> np.ndarray:
    r"""The cost of every step, corrected by measured times of windows.

    .. math:: w_t \leftarrow w_t \, \frac{\tau_i}{l_i}, \qquad l_i = \sum_{t \in I_i} w_t

    with the mean of both factors where two windows share a step. Measure, calibrate and balance again, a few times; what was
    learnt in one round is kept in the next.

    Parameters
    ----------
    cost : array_like (T,)
        Cost of every step, positive; ones where nothing is known.
    windows : int or ndarray of int (p + 1,)
        The windows that were measured, by their number or their boundaries.
    seconds : array_like (p,)
        Time of every window, positive, in any unit.
    overlap : int
        Steps s that two neighbours share.

    Returns
    -------
    ndarray (T,)
        Cost in the unit of ``seconds``.

    Raises
    ------
    ValueError
        If shapes do not fit, or a cost or a time is not positive.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> ps.leastsquares.calibrate(np.ones(10), 2, [2.0, 7.0], overlap=2)
    array([0.4, 0.4, 0.4, 0.7, 0.7, 1. , 1. , 1. , 1. , 1. ])
    """
    cost, chain, seconds = check.calibrate(cost, windows, seconds, overlap)
    total = np.zeros(cost.size)
    for first, last, factor in zip(chain.first, chain.last, seconds / _loads(_sums(cost), chain)):
        total[first:last] += factor
    return cost * total / chain.sharing


def flows(loads: np.ndarray) -> np.ndarray:
    r"""The least migration of load between neighbours on a chain that makes all loads equal.

    .. math:: \delta_{i,i+1} = \sum_{j \le i} (l_j - \bar l)

    It solves the Laplacian system of the path, :math:`L \lambda = l - \bar l`, :math:`\delta_{i,i+1} = \lambda_i -
    \lambda_{i+1}`; on a path no other flow balances the loads, so it is the one of least norm.

    Parameters
    ----------
    loads : array_like (p,)
        Load of every window.

    Returns
    -------
    ndarray (p - 1,)
        What window i hands to window i + 1; negative in the other direction.

    Raises
    ------
    ValueError
        If there is no load, or one is not finite.

    References
    ----------
    Y. F. Hu, R. J. Blake, D. R. Emerson, "An optimal migration algorithm for dynamic load balancing" (1998), Concurrency:
    Practice and Experience 10.

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.leastsquares.flows([8, 0, 1])
    array([5., 2.])
    """
    loads = check.loads_of_windows(loads)
    return np.cumsum(loads - loads.mean())[:-1]
