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


def random_problem(n, steps, dominance, dtype=np.float64, seed=0):
    """A random positive definite matrix; windows interact the less, the larger ``dominance`` is."""
    random = np.random.default_rng(seed)
    off = random.normal(size=(steps - 1, n, n)) / np.sqrt(n)
    diagonal = random.normal(size=(steps, n, n)) / np.sqrt(n)
    diagonal = diagonal @ diagonal.transpose(0, 2, 1) + dominance * np.eye(n)
    diagonal[1:] += off.transpose(0, 2, 1) @ off / dominance
    return BlockTridiagonal(*(array.astype(dtype) for array in (diagonal, off, random.normal(size=(steps, n)))))


def window_solution(case, i, mu, split, left, right, from_left, from_right):
    """What window i makes of matrices and messages at its ends; ``case`` has a problem, its windows and their overlap."""
    matrix, f = dense(case.problem)
    n, s, p = case.problem.size, case.overlap, case.count
    here = window_indices(case.boundaries, s, n)[i]
    rhs = f[here].astype(np.float64)
    rhs[:n] += from_left[i, 0]
    rhs[-n:] += from_right[i, 0]
    inside = matrix[np.ix_(here, here)].astype(np.float64)
    local = inside.copy()
    local[:n, :n] += left[i]
    local[-n:, -n:] += right[i]
    for shared, message in ([(slice(0, s * n), from_left[i, 1:])] if i > 0 else []) + (
            [(slice(len(here) - s * n, len(here)), from_right[i, 1:])] if i < p - 1 else []):
        local[shared, shared] += mu * np.eye(s * n)
        if len(message):
            rhs[shared] += mu * message.ravel()
            rhs -= split * (inside[:, shared] @ message.ravel())
    return np.linalg.solve(local, rhs).reshape(-1, n)


def eliminated(case, i, left, right):
    """Schur complements (to the left, to the right) of what window i has beyond its overlaps; zero at the ends of the chain."""
    matrix, _ = dense(case.problem)
    n, s, steps = case.problem.size, case.overlap, len(case.problem.rhs)
    first, last = case.first[i], case.boundaries[i + 1]
    out = np.zeros((2, n, n))
    if i > 0:  # the steps from the neighbour's end on
        inside = matrix[(first + s) * n:last * n, (first + s) * n:last * n].astype(np.float64)
        inside[-n:, -n:] += right[i]
        beyond = matrix[(first + s - 1) * n:(first + s) * n, (first + s) * n:last * n]
        out[0] = -beyond @ np.linalg.solve(inside, beyond.T)
    if last < steps:
        inside = matrix[first * n:(last - s) * n, first * n:(last - s) * n].astype(np.float64)
        inside[:n, :n] += left[i]
        beyond = matrix[(last - s) * n:(last - s + 1) * n, first * n:(last - s) * n]
        out[1] = -beyond @ np.linalg.solve(inside, beyond.T)
    return out
