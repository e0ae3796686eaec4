"""Schwarz iterations whose windows are on the device, against dense NumPy."""

import numpy as np
import pytest
import reference_schwarz as reference

import pitsolve as ps
from pitsolve.backends import cuda
from pitsolve.leastsquares.iteration import Options, Schwarz
from pitsolve.leastsquares.windows import Chain

BOUNDARIES = np.array([0, 6, 11, 20])


pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("split, mu, mode", [
    (False, 0.0, "additive"), (False, 0.7, "oddeven"), (True, 0.7, "multiplicative"), (False, 0.7, "additive")])
def test_iterates_are_those_of_the_dense_twin(split, mu, mode):
    problem = reference.random_problem(2, 20, 3.0)
    schwarz = Schwarz(problem, Chain(BOUNDARIES, 2), Options(split, mode, mu), cuda)
    schwarz.start(np.zeros_like(problem.rhs))
    for _ in range(3):
        schwarz.sweep()
    expected = reference.sweeps(problem, BOUNDARIES, 2, mu, 3, split, mode)
    for i, copy in enumerate(expected):
        got = schwarz.arrays.to_host(schwarz.windows.window(i))
        np.testing.assert_allclose(got.ravel(), copy, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n, dtype", [(1, np.float64), (3, np.float32)])
@pytest.mark.parametrize("options", [
    {}, {"transmission": "schur", "sweeps": 2}, {"mu": 0.3, "mode": "oddeven"}, {"accel": "cg"}, {"overlap": 0}])
def test_the_limit_is_the_least_squares_solution(n, dtype, options):
    problem = reference.random_problem(n, 20, 5.0, dtype)
    sol = ps.schwarz_lstsq(problem, BOUNDARIES, backend="cuda", on_failure="raise", **{"overlap": 2, **options})
    tolerance = 1e-9 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(sol.solution, reference.exact(problem), rtol=0, atol=tolerance)
    assert sol.converged and sol.solution.dtype == dtype and sol.residual < 10 * tolerance


def test_one_window_is_a_direct_solution():
    problem = reference.random_problem(3, 9, 2.5)
    sol = ps.schwarz_lstsq(problem, 1, backend="cuda")
    np.testing.assert_allclose(sol.solution, reference.exact(problem), rtol=0, atol=1e-12)


def test_a_problem_without_a_solution_is_refused():
    problem = reference.random_problem(2, 20, 3.0)
    problem.diagonal[10] = 0
    with pytest.raises(ValueError, match=r"window 1 \(steps 4 to 10\) has no unique solution.*at step 10"):
        ps.schwarz_lstsq(problem, BOUNDARIES, overlap=2, backend="cuda")
