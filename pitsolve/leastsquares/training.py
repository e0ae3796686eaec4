"""Training a recurrent network by local networks on overlapping windows of time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pitsolve import check
from pitsolve.backends.cpu.window_networks import Sizes, WindowNetworks
from pitsolve.cells.base import Cell, Parameters
from pitsolve.leastsquares import check_fit as checked
from pitsolve.leastsquares.fit import FitStatus, SchwarzFit
from pitsolve.leastsquares.training_windows import Consensus, LocalNetworks, Pair
from pitsolve.leastsquares.windows import Chain

_EVERY, _LOWER = 5, 60  # iterations from one balance of the penalties to the next; until when it may lower them
_PER_STEP = 0.05  # penalty of the parameters for each step of a window, whose data pull that much harder


@dataclass(frozen=True)
class _Options:
    iterations: int
    polish: int
    penalties: tuple[float, float]
    duals: bool
    balance: bool
    regularisation: float
    batch_size: int
    seed: int
    tol: float


@dataclass
class _History:
    """Of the iterations of the windows, and the best mean parameters."""

    best: np.ndarray
    losses: list[float]
    gaps: list[tuple[float, float]] = field(default_factory=list)
    penalties: list[tuple[float, float]] = field(default_factory=list)
    agreed: bool = False
    bytes_per_interface: float = 0.0


class _Single:
    """One network over all steps of all sequences: a chain of one window, with nobody to agree with."""

    def __init__(self, sizes: Sizes, x: np.ndarray, y: np.ndarray, h0: np.ndarray, regularisation: float):
        steps, batch, n = x.shape[1], h0.shape[0], h0.shape[1]
        self.networks = WindowNetworks(sizes, x, y, np.zeros(1, np.int64), np.array([steps]), 0, np.ones(steps))
        self.everyone, self.regularisation, self.h0, self.steps = np.arange(batch), regularisation, h0, steps
        self.no_penalties: Pair = np.zeros(2), np.zeros(2)
        self.no_anchors: Pair = np.zeros((1, batch, 2, 0, n)), np.zeros((1, 2, sizes.total))

    def states(self, theta: np.ndarray) -> np.ndarray:
        """h_1 ... h_T (B, T, n)."""
        return self.networks.rollout(theta[None], self.h0[None], self.everyone, self.no_penalties[0], self.no_anchors[0],
                                     self.steps)[2][0]

    def loss(self, theta: np.ndarray) -> float:
        """Half the sum of squared errors, and the regularisation."""
        local = LocalNetworks(self.networks, theta[None], self.h0[None], self.regularisation)
        return float(local.objective(local.theta, local.starts, self.everyone, self.no_penalties, self.no_anchors)[0][0])

    def polish(self, theta: np.ndarray, loss: float, steps: int, tol: float
               ) -> tuple[np.ndarray, list[float], float, FitStatus]:
        """Levenberg-Marquardt steps until the gradient or the loss vanishes."""
        local = LocalNetworks(self.networks, theta[None], self.h0[None], self.regularisation)
        losses, nothing = [loss], 100 * (np.finfo(np.float64).eps * np.linalg.norm(self.networks.y))**2
        status = FitStatus.NOT_CONVERGED
        for _ in range(steps):
            value = float(local.improve(self.everyone, self.no_penalties, self.no_anchors)[0][0])
            fell, small = value < losses[-1], local.cosine[0] <= tol or losses[-1] <= nothing
            if fell:
                losses.append(value)
            if small or not fell:
                status = FitStatus.CONVERGED if small else FitStatus.STALLED
                break
        return local.theta[0], losses, float(local.cosine[0]), status


def _least_squares_readout(states: np.ndarray, y: np.ndarray, ridge: float) -> Parameters:
    """Weights and biases with the smallest squared error and ridge times the squared weights."""
    rows = np.concatenate([states.reshape(-1, states.shape[-1]), np.ones((states[..., 0].size, 1))], axis=1)
    normal = rows.T @ rows
    normal.flat[::normal.shape[0] + 1] += max(ridge, 1e-10 * np.trace(normal))
    solution = np.linalg.solve(normal, rows.T @ y.reshape(-1, y.shape[-1]))
    return {"weight_hy": np.ascontiguousarray(solution[:-1].T), "bias_hy": solution[-1]}


def _agree(single: _Single, chain: Chain, theta: np.ndarray, starts: np.ndarray, loss: float, options: _Options) -> _History:
    """Local steps, exchange with the neighbours, and so on, until the windows agree."""
    one, everyone = single.networks, single.everyone
    p, overlap = chain.count, chain.overlap if chain.count > 1 else 0
    networks = WindowNetworks(one.sizes, one.x, one.y, chain.first, chain.last, overlap, 1.0 / chain.sharing)
    local = LocalNetworks(networks, np.repeat(theta[None], p, axis=0), starts, options.regularisation)
    edges = networks.rollout(local.theta, starts, everyone, np.zeros(p + 1),
                             np.zeros((p, everyone.size, 2, overlap, networks.n)))[1]
    consensus = Consensus(edges, local.theta, options.penalties, options.duals, options.batch_size)
    history, random = _History(theta, [loss]), np.random.default_rng(options.seed)
    for k in range(options.iterations):
        chosen = everyone if options.batch_size == everyone.size else np.sort(
            random.choice(everyone.size, options.batch_size, replace=False))
        before = local.theta.copy()
        _, edges = local.improve(chosen, consensus.penalties, consensus.anchors())
        history.penalties.append(tuple(penalty[1:-1].max(initial=0.0) for penalty in consensus.penalties))
        consensus.exchange(chosen, edges, local.theta)
        mean = local.theta.mean(axis=0)
        history.losses.append(single.loss(mean))
        history.gaps.append(consensus.gaps)
        if history.losses[-1] <= np.nanmin(history.losses):
            history.best = mean
        if max(*consensus.gaps, np.abs(local.theta - before).max()) < options.tol:
            history.agreed = True
            break
        if options.balance and (k + 1) % _EVERY == 0:
            consensus.balance(lower=k < _LOWER)
    history.bytes_per_interface = consensus.mail.bytes_per_interface
    return history


def fit_schwarz(
    cell: Cell, params0: Parameters, x: np.ndarray | int, y: np.ndarray, windows: int | np.ndarray = 4, overlap: int = 8, *,
    h0: np.ndarray | None = None, iterations: int = 150, polish: int = 60, penalty: float = 1.0,
    parameter_penalty: float | None = None, duals: bool = True, balance: bool | None = None, regularisation: float = 0.0,
    batch_size: int | None = None, tol: float = 1e-8, seed: int = 7,
) -> SchwarzFit:
    r"""Train a recurrent network by local networks on overlapping windows of time, which agree with their neighbours.

    .. math:: \min_\theta \frac12 \sum_t \|W h_t + c - y_t\|^2 + \frac r2 \|\theta\|^2, \qquad h_t = f(h_{t-1}, x_t; \theta)

    Window i runs from its own start :math:`s_i` with its own parameters :math:`\theta_i`. On every edge e between two
    neighbours, states on the overlap and parameters have to be equal; with multipliers :math:`\lambda` for that, all windows
    minimise at once, each by one Levenberg-Marquardt step,

    .. math:: L_i(s_i, \theta_i) + \sum_e \langle \lambda_{e,i}, v_i - \bar v_e \rangle
              + \frac{\rho_e}2 \|v_i - \bar v_e\|^2, \qquad v = (h_t \text{ on the overlap}, \theta),

    send v to their neighbours, take the mean :math:`\bar v_e` of both ends and add :math:`\rho_e (v_i - \bar v_e)` to
    :math:`\lambda_{e,i}`. Where all agree, this is the problem above. Levenberg-Marquardt steps of the single network, from the
    best mean of all parameters, follow. Everything is computed in float64; derivatives are exact.

    Parameters
    ----------
    cell : Cell
        Any cell. The readout reads the first k entries of its state: ``hidden_size`` of them (LSTM: h), all if it has none.
    params0 : dict of ndarray
        Start: the cell's parameters and, if given, ``weight_hy`` (m1, k) and ``bias_hy`` (m1,), W and c. A readout that is not
        given begins as the least-squares fit of y to the states of the start.
    x : ndarray (T, m) or (B, T, m), or int
        Inputs; the number of steps for a cell without inputs.
    y : ndarray (T, m1) or (B, T, m1)
        Targets.
    windows : int or ndarray of int (p + 1,)
        Number p of windows, or the boundaries 0, ..., T of their cores. With one window this is the Levenberg-Marquardt method.
    overlap : int
        Steps s that two neighbours share; every core must be longer.
    h0 : ndarray (n,) or (B, n), optional
        State before the first step; zero by default.
    iterations, polish : int
        Most iterations of the windows, and most steps of the single network after them.
    penalty, parameter_penalty : float
        First penalties of states and of parameters; the second is by default 0.05 B T / p.
    duals : bool
        False leaves the multipliers at zero: the paper's penalty, with which windows never agree on noisy data.
    balance : bool, optional
        Whether penalties follow the residuals: times 1.5 every 5 iterations where copies differ by more than 3 times what
        their means move, divided by it in the opposite case, which ends after 60 iterations. By default as ``duals``.
    regularisation : float
        r.
    batch_size : int, optional
        Sequences of one iteration, drawn anew each time; all by default. Polishing takes all.
    tol : float
        The iteration ends when gaps and changes of parameters are below it, polishing when all cosines between residuals and
        columns of their Jacobian are.
    seed : int
        Of the draws of sequences.

    Returns
    -------
    SchwarzFit

    Raises
    ------
    ValueError
        If a window is not longer than its overlaps, a shape does not fit, a value is not finite, or the states of the start
        are not.
    TypeError
        If dtypes mix float32 and float64.

    References
    ----------
    L. D'Amore (2025), eqs. (15)-(18) and the algorithm after them, with squared norms, multipliers, and means in place of
    eq. (18)'s factor. S. Boyd et al., Foundations and Trends in Machine Learning 3 (2011), section 3.4.1 (balance).
    H. B. Nielsen, report IMM-REP-1999-05 (damping).

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> x = np.sin(0.3 * np.arange(60.0) ** 1.2)[:, None]
    >>> cell = ps.cells.Elman(input_size=1, hidden_size=4)
    >>> fit = ps.fit_schwarz(cell, cell.init(seed=5), x[:-1], x[1:], windows=2, overlap=4, iterations=20, polish=5)
    >>> bool(fit.loss < fit.losses[0]), fit.bytes_per_interface == 8 * (4 * 4 + 33)
    (True, True)
    """
    check.a_cell(cell)
    y = checked.targets(y)
    inner, x, y, h0 = checked.data(cell, params0, x, y, h0)
    dtype, (batch, steps, outputs) = y.dtype, y.shape
    chain = checked.windows(windows, overlap, steps)
    options = _Options(
        check.length("iterations", iterations), check.length("polish", polish),
        (check.positive("penalty", penalty), _PER_STEP * batch * steps / chain.count if parameter_penalty is None
         else check.positive("parameter_penalty", parameter_penalty)),
        check.flag("duals", duals), check.flag("balance", duals if balance is None else balance),
        checked.at_least_zero("regularisation", regularisation), checked.batch_size(batch_size, batch),
        check.length("seed", seed), check.positive("tol", tol))
    readout = checked.readout(cell, params0, outputs, dtype)
    read = getattr(cell, "hidden_size", cell.state_size) if readout is None else readout["weight_hy"].shape[1]
    sizes = Sizes(cell, read, outputs)
    x, y, h0 = (np.ascontiguousarray(array, np.float64) for array in (x, y, h0))
    single = _Single(sizes, x, y, h0, options.regularisation)
    blank = {"weight_hy": np.zeros((outputs, read)), "bias_hy": np.zeros(outputs)}
    states = single.states(sizes.flat({**inner, **(readout or blank)}))
    checked.finite_start(states)
    readout = readout or _least_squares_readout(states[:, :, :read], y, options.regularisation)
    theta = sizes.flat({**inner, **readout})
    loss = single.loss(theta)
    checked.finite_start(loss)
    starts = np.concatenate([h0[None], states[:, chain.first[1:] - 1].transpose(1, 0, 2)])
    history = _agree(single, chain, theta, starts, loss, options)
    status = FitStatus.CONSENSUS if history.agreed else FitStatus.NOT_CONVERGED
    theta, polished, gradient = history.best, [float(np.nanmin(history.losses))], np.nan
    if options.polish:
        theta, polished, gradient, status = single.polish(theta, polished[0], options.polish, options.tol)
    gaps = np.array(history.gaps).reshape(-1, 2)
    return SchwarzFit(
        sizes.named(theta, dtype), polished[-1], status, status in (FitStatus.CONVERGED, FitStatus.CONSENSUS), len(gaps),
        np.array(history.losses), gaps[:, 0], gaps[:, 1], np.array(history.penalties).reshape(-1, 2), np.array(polished),
        gradient, chain, history.bytes_per_interface)
