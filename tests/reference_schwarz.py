"""Naive dense twins of the Schwarz windows, and the families of problems that the specification measured."""

import numpy as np

import pitsolve as ps

BlockTridiagonal = ps.leastsquares.BlockTridiagonal


def dense(problem):
    """N (Tn, Tn) and f."""
    steps, n = problem.rhs.shape
    matrix = np.zeros((steps, n, steps, n))
    for t in range(steps):
        matrix[t, :, t] = problem.diagonal[t]
    for t in range(steps - 1):
        matrix[t, :, t + 1] = problem.off_diagonal[t]
        matrix[t + 1, :, t] = problem.off_diagonal[t].T
    return matrix.reshape(steps * n, steps * n), problem.rhs.ravel()


def exact(problem):
    """The least-squares solution, by a dense solver."""
    matrix, f = dense(problem)
    return np.linalg.solve(matrix, f).reshape(problem.rhs.shape)


def window_indices(boundaries, overlap, n):
    """Unknowns of every window: cores, each but the first begun ``overlap`` steps earlier."""
    windows = []
    for i in range(len(boundaries) - 1):
        first = boundaries[i] - (overlap if i else 0)
        windows.append(np.arange(first * n, boundaries[i + 1] * n))
    return windows


def sweeps(problem, boundaries, overlap, mu, count, split=False, mode="additive"):
    """The copies of all windows after ``count`` iterations from zero."""
    matrix, f = dense(problem)
    windows = window_indices(boundaries, overlap, problem.size)
    copies = [np.zeros(w.size) for w in windows]
    order = {"additive": [range(len(windows))], "oddeven": [range(0, len(windows), 2), range(1, len(windows), 2)],
             "multiplicative": [[i] for i in range(len(windows))]}[mode]
    for _ in range(count):
        for chosen in order:
            before = [copy.copy() for copy in copies]
            for i in chosen:
                copies[i] = local(matrix, f, windows, before, i, mu, split)
    return copies


def local(matrix, f, windows, copies, i, mu, split):
    """One local problem, reading (11) in the one way or the other."""
    here = windows[i]
    left, rhs = matrix[np.ix_(here, here)].copy(), f[here].copy()
    for j in (i - 1, i + 1):
        if 0 <= j < len(windows):
            _, mine, theirs = np.intersect1d(here, windows[j], return_indices=True)
            left[mine, mine] += mu
            rhs[mine] += mu * copies[j][theirs]
            seen = np.arange(windows[j].size) if split else np.setdiff1d(np.arange(windows[j].size), theirs)
            rhs -= matrix[np.ix_(here, windows[j][seen])] @ copies[j][seen]
    return np.linalg.solve(left, rhs)


def forgetful(steps=256, seed=0):
    """A smoother for a network whose states forget, observed every second step (the specification's "kal")."""
    random = np.random.default_rng(seed)
    F = (1 - np.tanh(random.normal(size=(steps, 2))) ** 2)[:, :, None] * np.array([[0.9, 0.5], [-0.4, 0.8]])
    return BlockTridiagonal.from_state_space(F, 0.1 * np.eye(2), np.eye(2), 0.1 * np.eye(2), random.normal(size=(steps, 2)),
                                             observed=np.arange(steps) % 2 == 0)


def persistent(steps=256, seed=0):
    """Dynamics of spectral radius 0.99, observed every eighth step ("kal_long")."""
    random = np.random.default_rng(seed)
    F = 0.99 * np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]])
    return BlockTridiagonal.from_state_space(F, 1e-3 * np.eye(2), np.eye(2)[:1], np.eye(1), random.normal(size=(steps, 1)),
                                             observed=np.arange(steps) % 8 == 0)


def toeplitz(d, steps):
    """tridiag(-1, d, -1)."""
    random = np.random.default_rng(0)
    return BlockTridiagonal(np.full((steps, 1, 1), d), -np.ones((steps - 1, 1, 1)), random.normal(size=(steps, 1)))
