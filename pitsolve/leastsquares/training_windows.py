"""The two halves of training in windows: local Levenberg-Marquardt steps, and the consensus between neighbours."""

from __future__ import annotations

import numpy as np

from pitsolve.backends.cpu.window_networks import WindowNetworks
from pitsolve.leastsquares.mailbox import Mailboxes

_TRIES = 14  # dampings tried for one step: growing twice, four, eight times ... they go from the smallest to the largest
_DAMPING = 1e-3  # the first one, relative to the scale of the Gauss-Newton matrix
_SMALLEST, _LARGEST = 1e-14, 1e14
_FACTOR, _RATIO = 1.5, 3.0  # of a change of a penalty, and of the two residuals that causes it

Pair = tuple[np.ndarray, np.ndarray]  # for states, for parameters


class LocalNetworks:
    """A network for every window, with its own starts s_{i,b} and parameters theta_i, and the damping of its steps."""

    def __init__(self, networks: WindowNetworks, theta: np.ndarray, starts: np.ndarray, regularisation: float):
        self.networks, self.theta, self.starts = networks, theta.copy(), starts.copy()
        self.cosine = np.full(networks.count, np.inf)
        self._regularisation = regularisation / networks.count
        self._free = np.arange(networks.count) > 0
        self._damping, self._growth = np.full(networks.count, _DAMPING), np.full(networks.count, 2.0)

    def objective(self, theta: np.ndarray, starts: np.ndarray, chosen: np.ndarray, penalties: Pair, anchors: Pair) -> Pair:
        """The augmented Lagrangian of every window (p,) and the states on its overlaps (p, B, 2, s, n).

        What depends on the parameters alone weighs as much less as the chosen sequences are fewer than all.
        """
        losses, edges, _ = self.networks.rollout(theta, starts, chosen, penalties[0], anchors[0])
        apart = ((theta[:, None] - anchors[1])**2).sum(axis=2)
        alone = 0.5 * (sides(penalties[1]) * apart).sum(axis=1) + 0.5 * self._regularisation * (theta**2).sum(axis=1)
        return losses.sum(axis=(1, 2)) + chosen.size / starts.shape[1] * alone, edges

    def improve(self, chosen: np.ndarray, penalties: Pair, anchors: Pair) -> Pair:
        """One step of every window that lowers its objective, if any damping gives one.

        Returns the objectives (p,) and the states on the overlaps. ``cosine`` becomes the largest cosine between the residuals
        and a column of their Jacobian by the parameters, before the step.
        """
        network, weights = self.networks, sides(penalties[1])
        share = chosen.size / self.starts.shape[1]
        value, edges = self.objective(self.theta, self.starts, chosen, penalties, anchors)
        normal = network.normal_equations(self.theta, self.starts, self._free, chosen, penalties[0], anchors[0])
        ridge = share * (weights.sum(axis=1) + self._regularisation)
        pull = share * ((weights[:, :, None] * (self.theta[:, None] - anchors[1])).sum(axis=1)
                        + self._regularisation * self.theta)
        self.cosine = _cosine(network.diagonal(normal) + ridge[:, None], normal.gradient.sum(axis=1) + pull, value)
        wanted = np.ones(network.count, bool)
        for _ in range(_TRIES):
            theta_step, start_step, predicted = network.step(normal, ridge, pull, self._damping, wanted)
            theta, starts = self.theta + theta_step, self.starts.copy()
            starts[:, chosen] += start_step
            tried, moved = self.objective(theta, starts, chosen, penalties, anchors)
            taken = wanted & (tried < value) & (predicted > 0)
            self._adapt(wanted & ~taken, taken, value - tried, predicted)
            self.theta[taken], self.starts[taken], edges[taken], value[taken] = (
                theta[taken], starts[taken], moved[taken], tried[taken])
            wanted &= ~taken
            if not wanted.any():
                break
        return value, edges

    def _adapt(self, failed: np.ndarray, taken: np.ndarray, decrease: np.ndarray, predicted: np.ndarray) -> None:
        """Nielsen's rule: the damping follows the ratio of actual to predicted decrease."""
        gain = decrease[taken] / predicted[taken]
        self._damping[taken] *= np.maximum(1 / 3, 1 - (2 * np.minimum(gain, 1.0) - 1)**3)
        self._growth[taken] = 2.0
        self._damping[failed] *= self._growth[failed]
        self._growth[failed] *= 2.0
        np.clip(self._damping, _SMALLEST, _LARGEST, out=self._damping)


def _cosine(squares: np.ndarray, gradient: np.ndarray, value: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(squares * 2.0 * value[:, None])
    return (np.abs(gradient) / np.where(lengths > 0, lengths, 1.0)).max(axis=1)


class Consensus:
    """Means, duals and penalties of the edges between neighbours. Both ends of an edge keep their own, from what they receive.

    Side 0 of a window is its left edge, side 1 its right one; edge e lies between windows e - 1 and e.
    """

    def __init__(self, edges: np.ndarray, theta: np.ndarray, penalties: tuple[float, float], duals: bool, batch_size: int):
        p, _, _, overlap, n = edges.shape
        self.duals = duals
        self.mail = Mailboxes(p, (theta.shape[1] + batch_size * overlap * n,), np.dtype(np.float64))
        self.means: Pair = edges.copy(), np.repeat(theta[:, None], 2, axis=1)
        self.multipliers: Pair = np.zeros_like(edges), np.zeros_like(self.means[1])
        self.penalties: Pair = tuple(np.concatenate([[0.0], np.full(p - 1, value), [0.0]]) for value in penalties)
        self.gaps = (0.0, 0.0)
        self._residuals = np.zeros((2, 2))

    def anchors(self) -> Pair:
        """Where the penalties pull: mean - dual / penalty, of states (p, B, 2, s, n) and parameters (p, 2, q)."""
        states, parameters = (np.where(sides(penalty) > 0, sides(penalty), 1.0) for penalty in self.penalties)
        return (self.means[0] - self.multipliers[0] / states[:, None, :, None, None],
                self.means[1] - self.multipliers[1] / parameters[:, :, None])

    def exchange(self, chosen: np.ndarray, edges: np.ndarray, theta: np.ndarray) -> None:
        """Send parameters and the states on overlaps of the chosen sequences to the neighbours; new means and duals."""
        (p, q), mail = theta.shape, self.mail
        for side, out in enumerate((mail.to_left, mail.to_right)):
            out[:, :q], out[:, q:] = theta, edges[:, :, side].reshape(p, -1)
        mail.deliver(np.arange(p))
        own = edges, np.repeat(theta[:, None], 2, axis=1)
        other = own[0].copy(), own[1].copy()  # an end of the chain agrees with itself
        for side, received, inner in ((0, mail.from_left, slice(1, p)), (1, mail.from_right, slice(0, p - 1))):
            other[1][inner, side] = received[inner, :q]
            other[0][inner, :, side] = received[inner, q:].reshape(other[0][inner, :, side].shape)
        self.gaps = tuple(float(np.abs(mine - theirs).max(initial=0.0)) for mine, theirs in zip(own, other))
        before = self.means[0][:, chosen], self.means[1]
        means = tuple(0.5 * (mine + theirs) for mine, theirs in zip(own, other))
        weights = sides(self.penalties[0])[:, None, :, None, None], sides(self.penalties[1])[:, :, None]
        self._residuals = np.array([[np.linalg.norm(mine - mean), np.linalg.norm(weight * (mean - old))]
                                    for mine, mean, old, weight in zip(own, means, before, weights)])
        self.means[0][:, chosen], self.means[1][...] = means
        if self.duals:
            self.multipliers[0][:, chosen] += weights[0] * (own[0] - means[0])
            self.multipliers[1][...] += weights[1] * (own[1] - means[1])

    def balance(self, lower: bool) -> None:
        """Raise a penalty where the ends differ by more than their means move, else lower it, if it may be lowered."""
        for penalty, (primal, dual) in zip(self.penalties, self._residuals):
            if primal > _RATIO * dual:
                penalty *= _FACTOR
            elif lower and dual > _RATIO * primal:
                penalty /= _FACTOR


def sides(penalty: np.ndarray) -> np.ndarray:
    """(p, 2): the penalties of every window's left and right edge, from those of the edges (p + 1,)."""
    return np.stack([penalty[:-1], penalty[1:]], axis=1)
