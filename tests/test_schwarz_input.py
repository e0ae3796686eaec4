"""What least-squares problems and their windows refuse, and what they say."""

import numpy as np
import pytest
import reference_schwarz as reference
import scipy.sparse

import pitsolve as ps

BlockTridiagonal = ps.leastsquares.BlockTridiagonal
PROBLEM = reference.forgetful(60)
EYE = np.eye(2)
Y = np.zeros((5, 2))


@pytest.mark.parametrize("arguments, message", [
    ({"windows": 13}, r"windows = 13 of 60 steps would be shorter than overlap \+ 1.*at most 12 windows, or overlap at most 3"),
    ({"windows": 61}, "at most the number of steps, 60, got 61"),
    ({"windows": 0}, "windows must be at least 1"),
    ({"windows": [0, 4, 60]}, r"window 0 has 4 steps, but each must have at least overlap \+ 1 = 5.*overlap at most 3"),
    ({"windows": [0, 30, 50]}, "begin at 0 and end at T = 60, got 0 and 50"),
    ({"overlap": -1}, "overlap must be at least 0"),
    ({"mu": -1.0}, "mu must be a finite number of at least 0, got -1.0"),
    ({"mu": np.nan}, "mu must be a finite number"),
    ({"mu": "best"}, "mu must be one of 'gcv' or 'discrepancy', got 'best'"),
    ({"mu": "discrepancy", "noise": None}, "noise must be given"),
    ({"formulation": "split", "mu": 0.0}, "mu must be positive with formulation='split'"),
    ({"formulation": "split", "transmission": "schur"}, "transmission='schur' is for formulation='complement'"),
    ({"transmission": "schur", "overlap": 0}, "needs an overlap of at least 1"),
    ({"sweeps": 2}, "sweeps is for transmission='schur'"),
    ({"accel": "cg", "mu": 1.0}, "accel='cg' takes"),
    ({"accel": "gmres"}, "accel must be one of 'cg'"),
    ({"mode": "parallel"}, "mode must be one of"),
    ({"tol": 0.0}, "tol must be positive"),
    ({"x0": np.zeros((3, 2))}, "x0 must have shape"),
    ({"x0": np.full((60, 2), np.nan)}, "x0 must be finite"),
])
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ps.schwarz_lstsq(PROBLEM, **{"windows": 4, **arguments})


def test_types_are_checked():
    with pytest.raises(TypeError, match=r"problem must be a .*BlockTridiagonal"):
        ps.schwarz_lstsq(np.eye(3), 2)
    with pytest.raises(TypeError, match="windows must be a count or an array of integer boundaries"):
        ps.schwarz_lstsq(PROBLEM, 2.5)
    with pytest.raises(TypeError, match="mixes float32 and float64"):
        ps.schwarz_lstsq(PROBLEM, 2, x0=np.zeros((60, 2), np.float32))


def test_a_choice_of_mu_needs_the_rows():
    problem = BlockTridiagonal(PROBLEM.diagonal, PROBLEM.off_diagonal, PROBLEM.rhs)
    with pytest.raises(ValueError, match="problem must have its rows and targets"):
        ps.schwarz_lstsq(problem, 4, mu="gcv")


def with_block(t, block):
    diagonal = PROBLEM.diagonal.copy()
    diagonal[t] = block
    return BlockTridiagonal(diagonal, PROBLEM.off_diagonal, PROBLEM.rhs)


@pytest.mark.parametrize("block", [np.zeros((2, 2)), -EYE, np.array([[1.0, 2.0], [2.0, 1.0]])])
@pytest.mark.parametrize("options", [{}, {"transmission": "schur"}])
def test_a_block_that_is_not_positive_definite_names_window_and_step(block, options):
    with pytest.raises(ValueError, match=r"window 2 \(steps 26 to 44\) has no unique solution.*at step 38"):
        ps.schwarz_lstsq(with_block(38, block), 4, **options)


def test_dependent_columns_name_the_window():
    """Two unknowns of one step that every row sees with the same coefficients."""
    rows = np.ones((30, 4, 2, 2))
    rows[:, :2, 0] = 0
    with pytest.raises(ValueError, match=r"window 0 \(steps 0 to 9\) has no unique solution.*full column rank"):
        ps.schwarz_lstsq(BlockTridiagonal.from_rows(rows, np.ones((30, 4))), 3)


@pytest.mark.parametrize("build, message", [
    (lambda: BlockTridiagonal(np.zeros((3, 2, 2)), np.zeros((3, 2, 2)), np.zeros((3, 2))), "off_diagonal must have shape"),
    (lambda: with_block(7, np.array([[1.0, 0.5], [0.0, 1.0]])), "diagonal must hold symmetric blocks, block 7 is not"),
    (lambda: with_block(7, EYE * np.nan), r"diagonal must be finite, got nan at index \(7, 0, 0\)"),
    (lambda: BlockTridiagonal(np.zeros((0, 2, 2)), np.zeros((0, 2, 2)), np.zeros((0, 2))), "at least one step"),
    (lambda: BlockTridiagonal.from_state_space(EYE, -EYE, EYE, EYE, Y), "Q must be positive definite, at step 0 it is not"),
    (lambda: BlockTridiagonal.from_state_space(EYE, EYE, EYE, np.zeros((2, 2)), Y), "R must be positive definite"),
    (lambda: BlockTridiagonal.from_state_space(EYE, EYE, EYE, EYE, Y * np.nan), "y must be finite"),
    (lambda: BlockTridiagonal.from_state_space(EYE, EYE, EYE[:1], EYE, Y), r"C must have shape \(2, 2\) or \(5, 2, 2\)"),
    (lambda: BlockTridiagonal.from_state_space(EYE, EYE, EYE, EYE, Y, observed=np.ones(4, bool)), "observed must be boolean"),
    (lambda: BlockTridiagonal.from_time_varying_weights(np.ones((9, 2)), np.ones(9), 1.0), "a must span all its 2 dimensions"),
    (lambda: BlockTridiagonal.from_time_varying_weights(np.ones((9, 1)), np.ones(9), 0.0), "lam must be positive"),
    (lambda: BlockTridiagonal.from_rows(np.ones((3, 6)), np.ones(3), size=2), "row 0 touches blocks 0 to 2"),
    (lambda: BlockTridiagonal.from_rows(np.ones((3, 5)), np.ones(3), size=2), "multiple of size = 2 columns"),
    (lambda: BlockTridiagonal.from_rows(np.eye(4)[:3], np.ones(3), size=2), "3 rows cannot determine 2 x 2 unknowns"),
    (lambda: BlockTridiagonal.from_rows(np.ones((3, 1, 3, 2)), np.ones((3, 1))), r"A must have shape \(T, r, 2, n\)"),
    (lambda: BlockTridiagonal.from_rows(scipy.sparse.eye_array(4), np.ones(3), size=2), "z must have shape"),
])
def test_problems_refuse_what_cannot_be_solved(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_failure_can_raise_or_warn():
    options = {"windows": 4, "overlap": 0, "max_iter": 2}
    with pytest.raises(ps.leastsquares.SchwarzError, match="Not converged") as error:
        ps.schwarz_lstsq(PROBLEM, **options, on_failure="raise")
    assert error.value.solution.iterations == 2 and not error.value.solution.converged
    with pytest.warns(RuntimeWarning, match="Not converged"):
        assert not ps.schwarz_lstsq(PROBLEM, **options, on_failure="warn").converged
    sol = ps.schwarz_lstsq(PROBLEM, **options)
    assert sol.status is ps.leastsquares.SchwarzStatus.FALLBACK and sol.iterations == 2
    np.testing.assert_allclose(sol.solution, reference.exact(PROBLEM), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_rows_of_a_matrix_in_any_order_give_its_normal_equations(form):
    random = np.random.default_rng(0)
    A = np.zeros((17, 8))
    for row in range(17):
        block = row % 4
        A[row, 2 * max(0, block - 1):2 * block + 2] = random.normal(size=2 * min(block + 1, 2))
    z = random.normal(size=17)
    problem = BlockTridiagonal.from_rows(form(A), z, size=2)
    matrix, f = reference.dense(problem)
    np.testing.assert_allclose(matrix, A.T @ A, rtol=0, atol=1e-14)
    np.testing.assert_allclose(f, A.T @ z, rtol=0, atol=1e-14)


def test_missing_components_of_correlated_observations_drop_out():
    """What is left has the marginal covariance."""
    random = np.random.default_rng(1)
    R = np.array([[1.0, 0.6], [0.6, 1.0]])
    y, observed = random.normal(size=(3, 2)), np.array([[True, True], [True, False], [False, False]])
    F, C = random.normal(size=(2, 2)), random.normal(size=(2, 2))
    problem = BlockTridiagonal.from_state_space(F, EYE, C, R, np.where(observed, y, np.nan), observed=observed)
    seen = [C.T @ np.linalg.inv(R) @ C, np.outer(C[0], C[0]), np.zeros((2, 2))]
    for t in range(3):
        np.testing.assert_allclose(problem.diagonal[t], EYE + (F.T @ F if t < 2 else 0) + seen[t], rtol=0, atol=1e-14)
    np.testing.assert_allclose(problem.off_diagonal, np.broadcast_to(-F.T, (2, 2, 2)), rtol=0, atol=1e-14)


def test_a_result_prints_itself():
    text = repr(ps.schwarz_lstsq(PROBLEM, 3, overlap=2))
    assert "60 steps of 2 unknowns in 3 windows with overlap 2" in text and "16 bytes an interface" in text
