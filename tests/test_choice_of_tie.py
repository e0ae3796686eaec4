"""Covariances, and the choice of the tie by them: against dense inverses, a fine grid and the weights that are known."""

import numpy as np
import pytest

import pitsolve as ps
from pitsolve.leastsquares.tie import TieFit

STEPS, NOISE, STEP = 120, 0.3, 0.15
THEORY = NOISE ** 2 / STEP ** 2  # the tie of the Kalman smoother, which knows both


def drifting(seed, steps=STEPS):
    """Features, targets and the weights behind them, a random walk."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=2) + np.cumsum(STEP * rng.normal(size=(steps, 2)), axis=0)
    a = rng.normal(size=weights.shape)
    return a, (a * weights).sum(axis=1) + NOISE * rng.normal(size=steps), weights


def dense(problem):
    """N (T, n, T, n)."""
    steps, n = problem.rhs.shape
    N = np.zeros((steps, n, steps, n))
    for t in range(steps):
        N[t, :, t] = problem.diagonal[t]
        if t > 0:
            N[t - 1, :, t], N[t, :, t - 1] = problem.off_diagonal[t - 1], problem.off_diagonal[t - 1].T
    return N


def fit(a, z, lam):
    """RSS, tr H and weights by the inverse of the whole matrix."""
    problem = ps.leastsquares.BlockTridiagonal.from_time_varying_weights(a, z, lam)
    Phi = np.zeros((z.size, *a.shape))
    for t in range(z.size):
        Phi[t, t] = a[t]
    Phi = Phi.reshape(z.size, a.size)
    to_weights = np.linalg.solve(dense(problem).reshape(a.size, a.size), Phi.T)
    return ((Phi @ to_weights @ z - z) ** 2).sum(), np.trace(Phi @ to_weights), (to_weights @ z).reshape(a.shape)


@pytest.mark.parametrize("n, steps, dtype, rtol", [(2, 1, np.float64, 1e-12), (2, 40, np.float64, 1e-12),
                                                   (16, 9, np.float32, 1e-4)])
def test_covariances_are_the_diagonal_blocks_of_the_dense_inverse(n, steps, dtype, rtol):
    rows = np.random.default_rng(n).normal(size=(steps, n + 3, 2, n)).astype(dtype)
    problem = ps.leastsquares.BlockTridiagonal.from_rows(rows, np.ones((steps, n + 3), dtype))
    blocks = ps.leastsquares.covariances(problem)
    inverse = np.linalg.inv(dense(problem).reshape(steps * n, -1)).reshape(steps, n, steps, n)
    expected = np.array([inverse[t, :, t] for t in range(steps)])
    assert blocks.dtype == dtype
    np.testing.assert_allclose(blocks, expected, rtol=0, atol=rtol * np.abs(expected).max())
    np.testing.assert_array_equal(blocks, blocks.transpose(0, 2, 1))


def test_covariances_of_a_singular_problem_are_an_error():
    with pytest.raises(ValueError, match="not positive definite at step 3"):
        ps.leastsquares.covariances(ps.leastsquares.BlockTridiagonal(
            np.eye(2) * (np.arange(5) != 3)[:, None, None], np.zeros((4, 2, 2)), np.ones((5, 2))))


@pytest.mark.parametrize("lam", [1e-3, 1.0, 1e4])
def test_residual_and_trace_are_those_of_the_explicit_hat_matrix(lam):
    a, z, _ = drifting(0)
    np.testing.assert_allclose(TieFit(a, z)(lam), fit(a, z, lam)[:2], rtol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_cross_validation_is_best_of_a_fine_grid(seed):
    a, z, _ = drifting(seed)

    def gcv(lam):
        rss, trace, _ = fit(a, z, lam)
        return rss / (z.size - trace) ** 2

    assert gcv(ps.leastsquares.choose_tie(a, z)) <= min(map(gcv, np.geomspace(0.1, 100, 31))) * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_discrepancy_reaches_its_target(seed):
    a, z, _ = drifting(seed)
    rss, _, _ = fit(a, z, ps.leastsquares.choose_tie(a, z, rule="discrepancy", noise=NOISE, tau=1.1))
    assert rss == pytest.approx(1.1 ** 2 * z.size * NOISE ** 2, rel=1e-6)
    rss, trace, _ = fit(a, z, ps.leastsquares.choose_tie(a, z, rule="discrepancy", noise=NOISE, unbiased=True))
    assert rss == pytest.approx((z.size - trace) * NOISE ** 2, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_cross_validation_is_nearly_as_good_as_knowing_the_weights_and_plain_discrepancy_smooths_too_much(seed):
    a, z, weights = drifting(seed, 1000)

    def error(lam):
        problem = ps.leastsquares.BlockTridiagonal.from_time_varying_weights(a, z, lam)
        return np.linalg.norm(ps.schwarz_lstsq(problem, 1).solution - weights) / np.linalg.norm(weights)

    oracle = min(map(error, np.geomspace(0.5, 50, 21)))
    by_gcv = ps.leastsquares.choose_tie(a, z)
    plain, unbiased = (ps.leastsquares.choose_tie(a, z, rule="discrepancy", noise=NOISE, unbiased=u) for u in (False, True))
    assert error(by_gcv) < 1.02 * oracle
    assert error(unbiased) < 1.03 * oracle < error(plain)
    assert THEORY / 2 < by_gcv < 2 * THEORY < plain


def test_targets_that_no_tie_reaches_give_the_ends_of_the_range():
    a, z, _ = drifting(0)
    scale = (a ** 2).mean()
    assert ps.leastsquares.choose_tie(a, z, rule="discrepancy", noise=1e3) == pytest.approx(100 * STEPS ** 2 * scale)
    assert ps.leastsquares.choose_tie(a, z, rule="discrepancy", noise=1e-9) == pytest.approx(1e-4 * scale)


@pytest.mark.parametrize("arguments, words", [
    ({"rule": "discrepancy"}, "noise must be given"),
    ({"rule": "aic"}, "rule must be one of"),
    ({"a": np.eye(2), "z": np.ones(2)}, "a must have more steps than features"),
    ({"a": np.ones((9, 2)), "z": np.ones(9)}, "a must span all its 2 dimensions"),
])
def test_what_cannot_be_chosen_from_is_an_error(arguments, words):
    a, z, _ = drifting(0)
    with pytest.raises(ValueError, match=words):
        ps.leastsquares.choose_tie(**{"a": a, "z": z, **arguments})
