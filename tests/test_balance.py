"""Load balance of windows: equal loads where observations are not uniform in time, and the flows that lead there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pitsolve as ps

STEPS, WINDOWS, OVERLAP = 2000, 8, 4


def observations(case):
    """Counts of observations, the three cases of Schwarz windows under observations that are not uniform."""
    t, rng = np.arange(STEPS) / STEPS, np.random.default_rng(0)
    return rng.poisson({
        "first quarter": 8.0 * (t < 0.25),
        "two bursts": 6 * np.exp(-((t - 0.3) / 0.05) ** 2) + 9 * np.exp(-((t - 0.75) / 0.08) ** 2),
        "ramp": 12 * t,
    }[case])


def loads(cost, boundaries, overlap):
    """What each window sums up, its overlap included, term by term."""
    begins = [max(0, b - overlap) for b in boundaries[:-1]]
    return np.array([sum(cost[begin:end]) for begin, end in zip(begins, boundaries[1:])])


CASES = pytest.mark.parametrize("case", ["first quarter", "two bursts", "ramp"])


@CASES
@pytest.mark.parametrize("dynamics", [0.0, 0.2])
def test_balanced_windows_share_the_work(case, dynamics):
    counts = observations(case)
    cost = dynamics * counts.mean() + counts
    boundaries = ps.leastsquares.balance(cost, WINDOWS, OVERLAP)
    assert (boundaries[0], boundaries[-1], boundaries.size) == (0, STEPS, WINDOWS + 1)
    assert np.diff(boundaries).min() >= OVERLAP + 1
    reached = loads(cost, boundaries, OVERLAP)
    assert reached.min() / reached.max() > 0.95
    assert ps.leastsquares.efficiency(cost, boundaries, OVERLAP) == pytest.approx(reached.min() / reached.max(), rel=1e-12)
    assert ps.leastsquares.efficiency(cost, WINDOWS, OVERLAP) < 0.2


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 6), st.integers(0, 40))
def test_cores_keep_their_shortest_length_whatever_the_cost(seed, windows, overlap, spare):
    rng = np.random.default_rng(seed)
    cost = rng.exponential(size=windows * (overlap + 1) + spare) ** 4 * (rng.random(windows * (overlap + 1) + spare) < 0.5)
    cost[rng.integers(cost.size)] = 1.0
    boundaries = ps.leastsquares.balance(cost, windows, overlap)
    assert (boundaries[0], boundaries[-1], boundaries.size) == (0, cost.size, windows + 1)
    assert np.diff(boundaries).min() >= overlap + 1


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_without_overlap_loads_differ_by_less_than_the_two_dearest_steps(seed, windows):
    cost = np.random.default_rng(seed).random(60)
    reached = loads(cost, ps.leastsquares.balance(cost, windows, 0), 0)
    assert reached.max() - reached.min() < np.sort(cost)[-2:].sum()


@CASES
def test_measured_times_balance_windows_whose_cost_is_unknown(case):
    counts = observations(case)
    truth = 0.2 * counts.mean() + counts
    cost, boundaries = np.ones(STEPS), ps.leastsquares.balance(np.ones(STEPS), WINDOWS, OVERLAP)
    reached = []
    for _ in range(5):
        seconds = loads(truth, boundaries, OVERLAP)
        cost = ps.leastsquares.calibrate(cost, boundaries, seconds, OVERLAP)
        boundaries = ps.leastsquares.balance(cost, WINDOWS, OVERLAP)
        reached.append(ps.leastsquares.efficiency(truth, boundaries, OVERLAP))
    assert max(reached) > 0.95


def test_calibration_leaves_a_cost_that_is_right_as_it_is():
    cost = np.random.default_rng(0).random(50) + 0.1
    boundaries = np.array([0, 9, 30, 50])
    np.testing.assert_allclose(ps.leastsquares.calibrate(cost, boundaries, loads(cost, boundaries, 4), 4), cost, rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_flows_solve_the_laplacian_system_of_the_path_and_balance_it(seed, windows):
    load = np.random.default_rng(seed).exponential(size=windows)
    flow = ps.leastsquares.flows(load)
    edges = np.eye(windows)[:-1] - np.eye(windows)[1:]
    potential = np.linalg.lstsq(edges.T @ edges, load - load.mean(), rcond=None)[0]
    np.testing.assert_allclose(flow, edges @ potential, atol=1e-12 * windows ** 2)
    np.testing.assert_allclose(load - edges.T @ flow, load.mean(), rtol=1e-12)


@pytest.mark.parametrize("call, words", [
    (lambda s: s.balance(np.ones(20), 5, 4), "at most 4 windows, or overlap at most 3"),
    (lambda s: s.balance(np.ones(20), 0, 4), "windows must be at least 1"),
    (lambda s: s.balance(np.ones(20), 2, -1), "overlap must be at least 0"),
    (lambda s: s.balance(np.array([1.0, -1.0, 1.0]), 1, 0), "cost must not be negative, got -1.0 at step 1"),
    (lambda s: s.balance(np.array([1.0, np.nan]), 1, 0), "cost must be finite, got nan at index 1"),
    (lambda s: s.balance(np.zeros(20), 2, 4), "cost must be positive at one step at least"),
    (lambda s: s.efficiency(np.ones(20), [0, 3, 20], 4), "window 0 has 3 steps"),
    (lambda s: s.calibrate(np.ones(20), 2, [1.0, 0.0], 4), "seconds must be positive, got 0.0 at index 1"),
    (lambda s: s.calibrate(np.ones(20), 2, [1.0], 4), "seconds must have shape"),
    (lambda s: s.calibrate(np.arange(20), 2, [1.0, 1.0], 4), "cost must be positive, got 0.0 at index 0"),
    (lambda s: s.flows([]), "loads must hold one window at least"),
])
def test_what_cannot_be_is_an_error_that_says_what_would(call, words):
    with pytest.raises(ValueError, match=words):
        call(ps.leastsquares)
