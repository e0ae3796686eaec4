"""The choice of mu: closed forms against explicit hat matrices, minima and roots against fine grids."""

import numpy as np
import pytest
import scipy.linalg

import pitsolve as ps
from pitsolve.leastsquares.penalty import local_solutions, penalty_spectrum
from pitsolve.leastsquares.windows import Chain

CHAINS = [  # boundaries, overlap: two and three windows, cores as short as they may be
    ([0, 7, 13], 1),
    ([0, 4, 9, 13], 3),
    ([0, 5, 13], 4),
]


def random_problem(seed, steps=13, n=2, per_step=3):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(steps, per_step, 2, n))
    rows[4, 0] = 0  # no row
    rows[5:7, 0, 1] = 0  # touches the step before its own only
    rows[:, 1, 0] = 0  # an observation: it touches one step
    return ps.leastsquares.BlockTridiagonal.from_rows(rows, rng.normal(size=(steps, per_step)))


def matrix_of(problem):
    """A (T r, T n) and z, row by row."""
    steps, r, _, n = problem.rows.shape
    A = np.zeros((steps, r, steps, n))
    for t in range(steps):
        A[t, :, t] = problem.rows[t, :, 1]
        if t > 0:
            A[t, :, t - 1] = problem.rows[t, :, 0]
    return A.reshape(steps * r, steps * n), problem.targets.ravel()


class LocalProblem:
    """A window's rows, targets given the neighbours' values, and overlaps, dense."""

    def __init__(self, problem, boundaries, overlap, i, start):
        n, last = problem.size, len(boundaries) - 2
        first, stop = max(0, boundaries[i] - overlap * (i > 0)), boundaries[i + 1]
        A, z = matrix_of(problem)
        inside = np.zeros(A.shape[1], bool)
        inside[first * n:stop * n] = True
        touching = A[:, inside].any(axis=1)
        self.A = A[np.ix_(touching, inside)]
        self.c = z[touching] - A[np.ix_(touching, ~inside)] @ start.ravel()[~inside]
        shared = np.zeros(problem.steps, bool)
        shared[first:first + overlap * (i > 0)] = True
        shared[stop - overlap * (i < last):stop] = True
        self.P = np.diag(np.repeat(shared[first:stop], n).astype(float))
        self.y = start[first:stop].ravel()

    def fit(self, mu):
        """RSS and tr H by solving the stacked least-squares problem once for each unit vector."""
        stacked = np.vstack([self.A, np.sqrt(mu) * self.P])
        pseudo = np.linalg.pinv(stacked)
        x = pseudo @ np.concatenate([self.c, np.sqrt(mu) * self.P @ self.y])
        hat = self.A @ pseudo[:, :self.c.size]
        return ((self.A @ x - self.c) ** 2).sum(), np.trace(hat)

    def gcv(self, mu):
        rss, trace = self.fit(mu)
        return self.c.size * rss / (self.c.size - trace) ** 2


def cases():
    for seed, (boundaries, overlap) in enumerate(CHAINS):
        problem = random_problem(seed)
        start = np.random.default_rng(100 + seed).normal(size=problem.rhs.shape)
        for i in range(len(boundaries) - 1):
            yield pytest.param(problem, boundaries, overlap, start, i, id=f"{boundaries}-{overlap}-{i}")


CASES = pytest.mark.parametrize("problem, boundaries, overlap, start, i", list(cases()))


@CASES
def test_closed_forms_are_those_of_the_explicit_hat_matrix(problem, boundaries, overlap, start, i):
    chain = Chain(np.array(boundaries), overlap)
    spectrum = penalty_spectrum(problem, chain, i, [start[a:b] for a, b in zip(chain.first, chain.last)])
    local = LocalProblem(problem, boundaries, overlap, i, start)
    assert spectrum.rows == local.c.size
    for mu in (0.0, 1e-3, 0.3, 1.0, 7.0, 1e3):
        rss, trace = local.fit(mu)
        np.testing.assert_allclose(spectrum.rss(mu), rss, rtol=1e-9)
        np.testing.assert_allclose(spectrum.trace(mu), trace, rtol=1e-9)
        np.testing.assert_allclose(spectrum.gcv(mu), local.gcv(mu), rtol=1e-9)


@CASES
def test_cross_validation_takes_the_best_mu_of_a_fine_grid(problem, boundaries, overlap, start, i):
    mu = ps.leastsquares.choose_mu(problem, boundaries, overlap=overlap, start=start, most=np.inf)[i]
    local = LocalProblem(problem, boundaries, overlap, i, start)
    grid = np.geomspace(1e-4, 1e4, 400)
    values = [local.gcv(point) for point in grid]
    assert local.gcv(mu) <= min(*values, local.gcv(0.0)) * (1 + 1e-6)


@CASES
def test_discrepancy_reaches_its_target_or_says_on_which_side_it_lies(problem, boundaries, overlap, start, i):
    local = LocalProblem(problem, boundaries, overlap, i, start)
    least, most = local.fit(0.0)[0], local.fit(1e12)[0]
    assert most > 1.1 * least
    tau = 1.3

    def chosen(target):
        return ps.leastsquares.choose_mu(problem, boundaries, overlap=overlap, rule="discrepancy", tau=tau, start=start,
                                         noise=np.sqrt(target / local.c.size) / tau, most=np.inf)[i]

    for part in (0.2, 0.5, 0.9):
        target = least + part * (most - least)
        assert local.fit(chosen(target))[0] == pytest.approx(target, rel=1e-8)
    assert chosen(0.9 * least) == 0
    assert chosen(1.1 * most) == pytest.approx(1e6 * scipy.linalg.eigvalsh(schur(local))[-1], rel=1e-9)


@CASES
@pytest.mark.parametrize("rule", ["gcv", "discrepancy"])
def test_neighbours_never_outweigh_the_window_unless_allowed_to(problem, boundaries, overlap, start, i, rule):
    local = LocalProblem(problem, boundaries, overlap, i, start)
    smallest = scipy.linalg.eigvalsh(schur(local))[0]
    noise = np.sqrt(local.fit(1e12)[0])  # more than any residual

    def chosen(most):
        arguments = {"overlap": overlap, "rule": rule, "noise": noise, "start": start, "most": most}
        return ps.leastsquares.choose_mu(problem, boundaries, **arguments)[i]

    free = chosen(np.inf)
    for most in (1.0, 0.01):
        bounded = chosen(most)
        assert bounded <= most * smallest * (1 + 1e-9)
        if rule == "discrepancy":
            assert free > bounded == pytest.approx(most * smallest, rel=1e-9)
        elif bounded < 0.99 * most * smallest:
            assert bounded == pytest.approx(free, rel=1e-3)


def schur(local):
    N, shared = local.A.T @ local.A, np.diag(local.P) > 0
    inner = N[np.ix_(~shared, ~shared)]
    return N[np.ix_(shared, shared)] - N[np.ix_(shared, ~shared)] @ np.linalg.solve(inner, N[np.ix_(~shared, shared)])


def test_as_many_rows_as_unknowns_leave_a_criterion_that_is_finite_at_zero():
    rng = np.random.default_rng(0)
    F = np.array([[0.9, 0.2], [-0.2, 0.9]])
    y, observed = rng.normal(size=(13, 1)), np.arange(13) < 5
    problem = ps.leastsquares.BlockTridiagonal.from_state_space(F, np.eye(2), np.ones((1, 2)), np.eye(1), y, observed=observed)
    start = rng.normal(size=(13, 2))
    chain = Chain(np.array([0, 7, 13]), 2)
    spectrum = penalty_spectrum(problem, chain, 1, [start[:7], start[5:]])
    local = LocalProblem(problem, [0, 7, 13], 2, 1, start)
    assert spectrum.rows == spectrum.unknowns == local.c.size
    np.testing.assert_allclose(spectrum.gcv(0.5), local.gcv(0.5), rtol=1e-8)
    np.testing.assert_allclose(spectrum.gcv(0.0), spectrum.gcv(1e-9), rtol=1e-6)


def test_default_start_is_one_sweep_without_penalty_from_zero():
    problem, boundaries, overlap = random_problem(5), [0, 4, 9, 13], 2
    chain = Chain(np.array(boundaries), overlap)
    copies = []
    for i in range(3):
        local = LocalProblem(problem, boundaries, overlap, i, np.zeros(problem.rhs.shape))
        copies.append(np.linalg.lstsq(local.A, local.c, rcond=None)[0].reshape(-1, problem.size))
        np.testing.assert_allclose(local_solutions(problem, chain)[i], copies[i], rtol=1e-9)
    start = np.zeros(problem.rhs.shape)  # what window 1 sees of its neighbours
    start[:4], start[7:] = copies[0], copies[2]
    local = LocalProblem(problem, boundaries, overlap, 1, start)
    target = (local.fit(0.0)[0] + local.fit(1e12)[0]) / 2
    mu = ps.leastsquares.choose_mu(problem, boundaries, overlap=overlap, rule="discrepancy", most=np.inf,
                                   noise=np.sqrt(target / local.c.size))[1]
    assert local.fit(mu)[0] == pytest.approx(target, rel=1e-8)


def test_float32_problems_are_computed_in_float64():
    problem = random_problem(1)
    start = np.zeros(problem.rhs.shape)
    start[4:6] = 5.0  # the overlap of [0, 6) and [4, 13)
    rounded = ps.leastsquares.BlockTridiagonal.from_rows(problem.rows.astype(np.float32), problem.targets.astype(np.float32))
    mu = ps.leastsquares.choose_mu(rounded, 2, overlap=2, start=start.astype(np.float32), most=np.inf)
    assert mu.dtype == np.float64 and 0.01 < mu.min() < mu.max() < 100
    np.testing.assert_allclose(mu, ps.leastsquares.choose_mu(problem, 2, overlap=2, start=start, most=np.inf), rtol=1e-3)


def test_neighbours_that_are_far_off_are_not_trusted():
    problem = random_problem(0)
    start = np.zeros(problem.rhs.shape)
    start[4:6] = 1e9  # the overlap of [0, 6) and [4, 13)
    assert not ps.leastsquares.choose_mu(problem, 2, overlap=2, start=start).any()


def test_without_overlap_there_is_nothing_to_penalise():
    problem = random_problem(0)
    assert not ps.leastsquares.choose_mu(problem, 3, overlap=0).any()
    assert not ps.leastsquares.choose_mu(problem, 1).any()


@pytest.mark.parametrize("call, error, words", [
    (lambda s, p: s.choose_mu(p, 2, rule="loo"), ValueError, "rule must be one of 'gcv' or 'discrepancy'"),
    (lambda s, p: s.choose_mu(p, 2, rule="discrepancy"), ValueError, "noise must be given"),
    (lambda s, p: s.choose_mu(p, 2, rule="discrepancy", noise=0.0), ValueError, "noise must be positive"),
    (lambda s, p: s.choose_mu(p, 2, tau=0.5), ValueError, "tau must be at least 1"),
    (lambda s, p: s.choose_mu(p, 2, most=0.0), ValueError, "most must be positive"),
    (lambda s, p: s.choose_mu(p, 3), ValueError, "at most 2 windows"),
    (lambda s, p: s.choose_mu(p, 2, start=np.zeros((13, 3))), ValueError, r"start must have shape \(13, 2\)"),
    (lambda s, p: s.choose_mu(np.zeros(3), 2), TypeError, "problem must be a pitsolve.leastsquares.BlockTridiagonal"),
    (lambda s, p: s.choose_mu(s.BlockTridiagonal(p.diagonal, p.off_diagonal, p.rhs), 2), ValueError, "from_rows"),
    (lambda s, p: s.choose_mu(s.BlockTridiagonal(0 * p.diagonal, 0 * p.off_diagonal, p.rhs, p.rows, p.targets), 2), ValueError,
     "window 0 has rows that do not determine its unknowns"),
])
def test_what_cannot_be_chosen_from_is_an_error(call, error, words):
    with pytest.raises(error, match=words):
        call(ps.leastsquares, random_problem(0))
