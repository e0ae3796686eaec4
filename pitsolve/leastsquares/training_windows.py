"""The two halves of training in windows: local Levenberg-Marquardt steps, and the consensus between neighbours."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu.window_networks import WindowNetworks

_TRIES = 6  # dampings tried for one step
_DAMPING = 1e-3  # the first one, relative to the diagonal of the Gauss-Newton matrix
_SMALLEST, _LARGEST = 1e-14, 1e14


class LocalNetworks:
    """A network for every window, with its own start s_{i,b} and parameters theta_i, and the damping of its steps."""

    def __init__(self, networks: WindowNetworks, theta: np.ndarray, starts: np.ndarray, regularisation: float):
        self.networks, self.theta, self.starts = networks, theta, starts
        self.regularisation = regularisation / networks.count
        self.damping = np.full(networks.count, _DAMPING)
        self._growth = np.full(networks.count, 2.0)
        self._free = np.arange(networks.count) > 0
        self.predicted = np.full(networks.count, np.inf)

    def improve(self, chosen: np.ndarray, penalty: tuple[np.ndarray, np.ndarray], anchors: tuple[np.ndarray, np.ndarray],
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One accepted step of every window, if one of a few dampings gives one.

        Returns the states on the overlaps (p, B, 2, s, n) of the chosen sequences, the objective of every window and whether
        it fell. The data of the chosen sequences stand for all, so what depends on the parameters alone weighs less.
        """
        state_penalty, parameter_penalty = penalty
        state_anchors, parameter_anchors = anchors
        share = chosen.size / self.starts.shape[1]
        network, p = self.networks, self.networks.count
        sides = np.stack([parameter_penalty[:-1], parameter_penalty[1:]], axis=1)

        def objective(theta, starts):
            losses, edges, _ = network.rollout(theta, starts, chosen, state_penalty, state_anchors)
            apart = ((theta[:, None] - parameter_anchors)**2).sum(axis=2)
            alone = 0.5 * (sides * apart).sum(axis=1) + 0.5 * self.regularisation * (theta**2).sum(axis=1)
            return losses.sum(axis=(1, 2)) + share * alone, edges

        value, edges = objective(self.theta, self.starts)
        normal = network.normal_equations(self.theta, self.starts, self._free, chosen, state_penalty, state_anchors)
        ridge = share * (sides.sum(axis=1) + self.regularisation)
        pull = share * ((sides[:, :, None] * (self.theta[:, None] - parameter_anchors)).sum(axis=1)
                        + self.regularisation * self.theta)
        wanted, fell = np.ones(p, bool), np.zeros(p, bool)
        for _ in range(_TRIES):
            theta_step, start_step, predicted = network.step(normal, ridge, pull, self.damping, wanted)
            theta, starts = self.theta + theta_step, self.starts.copy()
            starts[:, chosen] += start_step
            tried, moved = objective(theta, starts)
            gain = (value - tried) / predicted
            taken = wanted & (tried < value)
            self.theta[taken], self.starts[taken], edges[taken] = theta[taken], starts[taken], moved[taken]
            self.predicted[taken] = predicted[taken]
            self._adapt(wanted, taken, gain)
            value[taken] = tried[taken]
            fell |= taken
            wanted &= ~taken
            if not wanted.any():
                break
        return edges, value, fell

    def _adapt(self, wanted: np.ndarray, taken: np.ndarray, gain: np.ndarray) -> None:
        """Nielsen's rule: the damping follows the ratio of actual to predicted decrease."""
        failed = wanted & ~taken
        with np.errstate(invalid="ignore", over="ignore"):
            factor = np.maximum(1 / 3, 1 - (2 * gain - 1)**3)
        self.damping[taken] *= factor[taken]
        self._growth[taken] = 2.0
        self.damping[failed] *= self._growth[failed]
        self._growth[failed] *= 2.0
        np.clip(self.damping, _SMALLEST, _LARGEST, out=self.damping)


class Mailbox:
    """What windows receive from their neighbours, and how many bytes went each way over every interface."""

    def __init__(self, windows: int, batch: int, overlap: int, n: int, parameters: int):
        self.states = np.zeros((windows, batch, 2, overlap, n))
        self.theta = np.zeros((windows, 2, parameters))
        self.bytes = np.zeros((windows - 1, 2), np.int64)

    def send(self, window: int, side: int, chosen: np.ndarray, states: np.ndarray, theta: np.ndarray) -> None:
        """From a window to its neighbour on the left (side 0) or on the right (side 1)."""
        neighbour = window + 2 * side - 1
        self.states[neighbour, chosen, 1 - side] = states
        self.theta[neighbour, 1 - side] = theta
        self.bytes[min(window, neighbour), side] += states.nbytes + theta.nbytes


class Consensus:
    """Means, duals and penalties of the edges between neighbours; each end of an edge keeps its own, from what it received."""

    def __init__(self, edges: np.ndarray, theta: np.ndarray, penalty: float, duals: bool):
        p, batch, _, overlap, n = edges.shape
        self.duals = duals
        self.inbox = Mailbox(p, batch, overlap, n, theta.shape[1])
        self.state_means, self.parameter_means = edges.copy(), np.repeat(theta[:, None], 2, axis=1)
        self.state_duals, self.parameter_duals = np.zeros_like(edges), np.zeros_like(self.parameter_means)
        self.state_penalty = np.concatenate([[0.0], np.full(p - 1, penalty), [0.0]])
        self.parameter_penalty = self.state_penalty.copy()
        self.state_gap = self.parameter_gap = 0.0
        self._primal, self._dual = np.zeros((2, p - 1)), np.zeros((2, p - 1))

    def anchors(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the penalties pull: mean - dual / penalty, of states (p, B, 2, s, n) and parameters (p, 2, q)."""
        states, parameters = _sides(self.state_penalty), _sides(self.parameter_penalty)
        return (self.state_means - self.state_duals / np.where(states > 0, states, 1.0)[:, None, :, None, None],
                self.parameter_means - self.parameter_duals / np.where(parameters > 0, parameters, 1.0)[:, :, None])

    def exchange(self, chosen: np.ndarray, edges: np.ndarray, theta: np.ndarray) -> None:
        """Send states on overlaps (p, B, 2, s, n) of the chosen sequences and parameters; new means and duals."""
        p = theta.shape[0]
        for i in range(p):
            for side in range(2):
                if 0 <= i + 2 * side - 1 < p:
                    self.inbox.send(i, side, chosen, edges[i, :, side], theta[i])
        there = _sides(np.concatenate([[0.0], np.ones(p - 1), [0.0]]))
        other = np.where(there[:, None, :, None, None] > 0, self.inbox.states[:, chosen], edges)
        states = 0.5 * (edges + other)
        others = np.where(there[:, :, None] > 0, self.inbox.theta, theta[:, None])
        parameters = 0.5 * (theta[:, None] + others)
        # Left ends see the edge on their right: side 1 of windows 0 ... p - 2.
        self._primal = np.array([_norms(edges - other)[:-1, 1], _norms(theta[:, None] - others)[:-1, 1]])
        self._dual = np.array([self.state_penalty[1:-1] * 2.0 * _norms(states - self.state_means[:, chosen])[:-1, 1],
                               self.parameter_penalty[1:-1] * 2.0 * _norms(parameters - self.parameter_means)[:-1, 1]])
        self.state_gap = float(np.abs(edges - other).max(initial=0.0))
        self.parameter_gap = float(np.abs(theta[:, None] - others).max(initial=0.0))
        self.state_means[:, chosen], self.parameter_means = states, parameters
        if self.duals:
            self.state_duals[:, chosen] += _sides(self.state_penalty)[:, None, :, None, None] * (edges - states)
            self.parameter_duals += _sides(self.parameter_penalty)[:, :, None] * (theta[:, None] - parameters)

    def balance(self, factor: float, ratio: float, down: bool, separate: bool, edgewise: bool) -> None:
        """Raise penalties where the ends of an edge differ more than their mean moves, lower them in the opposite case."""
        primal, dual = self._primal, self._dual
        if not separate:
            primal, dual = (np.broadcast_to(np.linalg.norm(v, axis=0), v.shape) for v in (primal, dual))
        if not edgewise:
            primal, dual = (np.broadcast_to(np.linalg.norm(v, axis=1)[:, None], v.shape) for v in (primal, dual))
        for penalty, r, s in zip((self.state_penalty, self.parameter_penalty), primal, dual):
            penalty[1:-1] *= np.where(r > ratio * s, factor, np.where((s > ratio * r) & down, 1.0 / factor, 1.0))


def _sides(penalty: np.ndarray) -> np.ndarray:
    """(p, 2): the penalties of every window's left and right edge."""
    return np.stack([penalty[:-1], penalty[1:]], axis=1)


def _norms(values: np.ndarray) -> np.ndarray:
    """(p, 2): 2-norms by window and side of states (p, B, 2, s, n) or parameters (p, 2, q)."""
    axes = (1, 3, 4) if values.ndim == 5 else (2,)
    return np.sqrt((values**2).sum(axis=axes))
