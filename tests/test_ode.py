"""Differential equations: the discrete equation and its gradient against naive twins, accuracy, stability, bad arguments."""

import math

import numba
import numpy as np
import pytest
import reference_ode
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp

import pitsolve as ps
from pitsolve.backends.cpu import phi
from pitsolve.backends.cpu.dual import dual_row
from pitsolve.compile import specialise


def rhs(p, x, u, out):
    """A linear part, that of van der Pol, a cube and a force: many equations in one, since each is compiled for a while."""
    for i in range(2):
        out[i] = p.force[i] * x[0]
        for j in range(2):
            out[i] += p.linear[i, j] * u[j]
    out[1] += p.mu[0] * (1.0 - u[0] * u[0]) * u[1]
    out[0] -= p.cube[0] * u[0] ** 3


def naive(p, x, u):
    out = p["force"] * x[0] + p["linear"] @ u
    return out + np.array([-p["cube"][0] * u[0] ** 3, p["mu"][0] * (1 - u[0] ** 2) * u[1]])


def naive_jacobian(p, x, u):
    mu = p["mu"][0]
    return p["linear"] + np.array([[-3 * p["cube"][0] * u[0] ** 2, 0 * mu], [-2 * mu * u[0] * u[1], mu * (1 - u[0] ** 2)]])


def parameters(linear=((0.0, 1.0), (-1.0, 0.0)), force=(0.0, 1.0), mu=0.0, cube=0.0, dtype=np.float64):
    values = {"linear": linear, "force": force, "mu": [mu], "cube": [cube]}
    return {name: np.array(value, dtype) for name, value in values.items()}


def oscillator(steps=40, dtype=np.float64):
    """Van der Pol's equation with a cube and a force on an uneven grid."""
    t = 4.0 * np.linspace(0.0, 1.0, steps + 1) ** 1.2
    return {"u0": np.array([-1.5, 0.5], dtype), "t": t, "params": parameters(mu=1.5, cube=0.1, dtype=dtype),
            "inputs": np.sin(2.0 * t)[:, None].astype(dtype)}


def loop(u0, t, params, inputs):
    return reference_ode.loop(naive, naive_jacobian, params, inputs, t, u0)


def exact(u0, t, params, force):
    """An accurate solution, the force being a function of time."""
    return solve_ivp(lambda time, u: naive(params, [force(time)], u), (t[0], t[-1]), u0, "Radau", t[1:], rtol=1e-11, atol=1e-13,
                     jac=lambda time, u: naive_jacobian(params, None, u)).y.T


# ------------------------------------------------------------------------------------------------------- phi functions


def flow(A, a, b):
    """phi_1(A) a + phi_2(A) b and e^A - I."""
    n = len(A)
    matrices, vectors = np.full((phi.MATRICES, n, n), np.nan), np.full((phi.VECTORS, n), np.nan)
    matrices[0], vectors[0], vectors[1] = A, a, b
    specialise(phi.flow)(matrices, vectors, True, True)
    return vectors[0], matrices[1]


def random_matrix(n, size, seed):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return size * A / np.linalg.norm(A, np.inf)


def stable_matrix(n, size, seed):
    A = random_matrix(n, 1.0, seed)
    A = -A @ A.T
    return size * A / np.linalg.norm(A, np.inf)


MATRICES = {
    "zero": np.zeros((3, 3)), "tiny": random_matrix(4, 1e-9, 1), "below-the-series": random_matrix(4, 0.0624, 2),
    "above-the-series": random_matrix(4, 0.0626, 3), "ten": random_matrix(5, 10.0, 4), "one": np.array([[-2.8]]),
    "nilpotent": 1e3 * np.eye(4, k=1) @ np.diag([0.0, 1.0, 1.0, 1.0]), "defective": np.array([[-3.0, 1.0], [0.0, -3.0]]),
    "rotation": np.array([[0.0, 7.0], [-7.0, 0.0]]), "large": random_matrix(12, 5.0, 5),
    "stiff": stable_matrix(4, 1e4, 6), "stiff-large": stable_matrix(12, 1e4, 7), "two-scales": np.diag([-1e4, -1e-4, 2.0]),
}


@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES)
def test_phi_functions_are_those_of_expm(A):
    n = len(A)
    a, b = np.random.default_rng(8).normal(size=(2, n))
    change, D = flow(A, a, b)
    exponential, phi_1, phi_2 = reference_ode.expm(A), reference_ode.phi(A, 1), reference_ode.phi(A, 2)
    expected = phi_1 @ a + phi_2 @ b
    assert np.linalg.norm(change - expected) <= 1e-13 * np.linalg.norm(expected)
    assert np.linalg.norm(D + np.eye(n) - exponential) <= 1e-13 * max(1.0, np.linalg.norm(exponential))


def test_small_matrices_keep_their_digits():
    A = np.array([[-1e-12]])
    change, D = flow(A, np.ones(1), np.zeros(1))
    assert_allclose(D[0], np.expm1(-1e-12), rtol=1e-15)
    assert_allclose(change, np.expm1(-1e-12) / -1e-12, rtol=1e-15)


def test_the_stiffest_matrices_give_what_they_tend_to():
    for size in (1e8, 1e100, 1e250):
        change, D = flow(np.diag([-size, -2.0]), np.array([size, 1.0]), np.zeros(2))
        assert_allclose(change, [1.0, np.expm1(-2.0) / -2.0], rtol=1e-13)
        assert_allclose(D, np.diag([-1.0, np.expm1(-2.0)]), rtol=1e-13)


def test_matrices_that_are_not_finite_give_nan():
    for bad in (np.nan, np.inf):
        change, D = flow(np.array([[1.0, bad], [0.0, 1.0]]), np.ones(2), np.ones(2))
        assert np.isnan(change).all() and np.isnan(D).all()


# -------------------------------------------------------------------------------------------------------- dual numbers


@numba.njit
def gaussian(a):
    return math.exp(-a * a)


def functions(u, out):
    a, b = u[0], u[1]
    out[0] = math.sin(a) * math.cos(b) - math.tan(a) / b + 2.0
    out[1] = 1 / math.sinh(b) + math.cosh(a) - math.tanh(a * b)
    out[2] = math.asin(0.3 * a) + math.acos(0.3 * b) * math.atan(-a)
    out[3] = math.asinh(a) + math.acosh(1.5 + b) - math.atanh(0.4 * a)
    out[4] = math.exp(a) + math.log(b) - math.log10(b) + math.sqrt(b)
    out[5] = a**3 + b**-2 + b**0.5 + b**1.5 + 2.0**a + b**a + a**0 + a**1
    out[6] = 1.0
    total = 0.0
    for i in range(len(u)):
        total += u[i] * 2
        total /= b
        total -= 1.0
    out[7] = gaussian(total) + u.size
    out[7] *= +a


@numba.njit
def differentiated(u, v, out, slopes):
    compiled(dual_row(u, v), dual_row(out, slopes))


compiled = numba.njit(functions)


def as_numpy(monkeypatch):
    """The functions of math as those of NumPy, for complex numbers."""
    names = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"}
    for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "log", "log10", "sqrt", *names):
        monkeypatch.setattr(math, name, getattr(np, names.get(name, name)))
    monkeypatch.setitem(globals(), "gaussian", gaussian.py_func)


def test_dual_numbers_give_values_slopes_and_second_derivatives(monkeypatch):
    """All three from one complex step through the slope, against means of the values on a circle around u."""
    u, v = np.array([-0.7, 0.9]), np.array([0.04, -0.11])
    out, slopes = np.empty((2, 8), complex)
    differentiated(u + 1e-100j * v, v + 0j, out, slopes)
    points, circle = 0.5 * np.exp(2j * np.pi * np.arange(32) / 32), np.empty((32, 8), complex)
    as_numpy(monkeypatch)
    for point, value in zip(points, circle):
        functions(u + point * v, value)
    means = [np.mean(circle / points[:, None] ** k, axis=0).real for k in range(3)]
    assert_allclose(out.real, means[0], rtol=1e-13)
    assert_allclose(slopes.real, means[1], rtol=1e-13, atol=1e-15)
    assert_allclose(slopes.imag / 1e-100, 2.0 * means[2], rtol=1e-12, atol=1e-14)


def test_integer_powers_of_complex_steps_keep_their_derivative_below_zero():
    @numba.njit
    def powers(z):
        w = z
        w **= 5
        return z**3, z**-2, z**2.0, pow(z, 4), w, z**0

    step = 1e-200
    expected = {3: -8.0, -2: 0.25, 2: 4.0, 4: 16.0, 5: -32.0, 0: 1.0}
    for result, (k, value) in zip(powers(complex(-2.0, step)), expected.items()):
        assert_allclose([result.real, result.imag / step], [value, k * value / -2.0], rtol=1e-15)


# ------------------------------------------------------------------------------------------------------------ solutions


@pytest.mark.parametrize("method", ps.ode.METHODS)
def test_states_are_those_of_the_naive_loop(method):
    problem = oscillator()
    solution = ps.solve_ode(rhs, **problem, method=method)
    assert solution.converged and solution.method == method and solution.states.shape == (40, 2)
    assert solution.status is (ps.Status.SEQUENTIAL if method == "sequential" else ps.Status.CONVERGED)
    assert_allclose(solution.states, loop(**problem), rtol=1e-12, atol=1e-12)


def test_float32():
    problem = oscillator(dtype=np.float32)
    solutions = [ps.solve_ode(rhs, **problem, method=method) for method in ("deer", "sequential")]
    assert solutions[0].converged and solutions[0].status is ps.Status.CONVERGED
    for solution in solutions:
        assert solution.states.dtype == np.float32
        assert_allclose(solution.states, loop(**oscillator()), rtol=1e-5, atol=1e-5)


def test_a_batch_is_its_sequences():
    problem = oscillator()
    u0 = np.stack([problem["u0"], [0.3, -1.0], [2.0, 2.0]])
    inputs = np.stack([problem["inputs"], 0.5 * problem["inputs"], np.cos(problem["t"])[:, None]])
    together = ps.solve_ode(rhs, u0, problem["t"], problem["params"], inputs)
    assert together.converged.all() and together.iterations.shape == (3,)
    for b in range(3):
        alone = ps.solve_ode(rhs, u0[b], problem["t"], problem["params"], inputs[b])
        assert_array_equal(together.states[b], alone.states)
        assert together.iterations[b] == alone.iterations


@pytest.mark.parametrize("stiffness", [1.0, 1e5])
def test_linear_equations_with_linear_inputs_are_exact_after_one_iteration(stiffness):
    linear = np.array([[-stiffness, stiffness], [0.0, -1.0]])
    t, A, force = np.array([0.0, 0.1, 0.15, 0.6, 1.0, 2.5, 2.6]), np.zeros((4, 4)), np.array([1.0, 0.5])
    A[:2, :2], A[:2, 2], A[2, 3] = linear, force, 1.0  # u, the input and its slope as one linear equation
    knots = np.array([0.3, -1.0, 2.0, 0.5, 0.5, 4.0, -2.0])
    states, u = [], np.array([1.0, -1.0])
    for i, dt in enumerate(np.diff(t)):
        u = (reference_ode.expm(dt * A) @ [*u, knots[i], (knots[i + 1] - knots[i]) / dt])[:2]
        states.append(u)
    solution = ps.solve_ode(rhs, np.array([1.0, -1.0]), t, parameters(linear, force), knots[:, None], tol=1e-13)
    assert solution.status is ps.Status.CONVERGED and solution.residuals[1] < 1e-14
    assert_allclose(solution.states, states, rtol=1e-12)


def test_second_order():
    params, u0 = parameters(mu=1.5, cube=0.1), np.array([-1.5, 0.5])
    errors = []
    for steps in (400, 800):
        t = np.linspace(0.0, 4.0, steps + 1)
        states = ps.solve_ode(rhs, u0, t, params, np.sin(2.0 * t)[:, None]).states
        errors.append(abs(states[-1] - exact(u0, t, params, lambda time: math.sin(2.0 * time))[-1]).max())
    assert_allclose(np.log2(errors[0] / errors[1]), 2.0, atol=0.1)


def test_the_cube_that_is_too_stiff_for_the_authors_package():
    """u' = -10 u^3 from 100 over 1000 points: dt |df/du| begins at 300."""
    t, u0 = np.linspace(0.0, 1.0, 1001), np.array([100.0, 0.0])
    params = parameters(linear=np.zeros((2, 2)), force=[0.0, 0.0], cube=10.0)
    solution = ps.solve_ode(rhs, u0, t, params, np.zeros((1001, 1)))
    assert solution.status is ps.Status.CONVERGED
    truth = u0[0] / np.sqrt(1.0 + 20.0 * u0[0] ** 2 * t[1:])
    assert abs(solution.states[-1, 0] / truth[-1] - 1.0) < 5e-3
    assert (np.diff(solution.states[:, 0]) < 0.0).all()
    with np.errstate(all="ignore"):
        theirs = reference_ode.deer_package(naive, naive_jacobian, params, np.zeros((1001, 1)), t, u0, iterations=20)
    assert not np.isfinite(theirs).all()


def test_relaxation_oscillations_converge_with_the_exact_derivative():
    """Van der Pol's equation with mu = 20, where e^A alone does not get there: see docs/methods/ode.md."""
    t, params = np.linspace(0.0, 30.0, 4001), parameters(mu=20.0)
    arguments = rhs, np.array([2.0, 0.0]), t, params, np.zeros((4001, 1))
    solution = ps.solve_ode(*arguments)
    assert solution.status is ps.Status.CONVERGED and solution.iterations < 20
    assert_allclose(solution.states, ps.solve_ode(*arguments, method="sequential").states, rtol=1e-8, atol=1e-8)
    assert abs(solution.states[-1] - exact(*arguments[1:4], lambda time: 0.0)[-1]).max() < 1e-5


def test_a_stiff_equation_follows_its_force():
    """u' = -1e4 (u - cos t): on a grid 100 times too coarse for its own time scale the error is that of the interpolation."""
    t = np.linspace(0.0, 5.0, 501)
    params = parameters(linear=np.diag([-1e4, -1.0]), force=[1e4, 0.0])
    solution = ps.solve_ode(rhs, np.array([3.0, 1.0]), t, params, np.cos(t)[:, None])
    assert solution.status is ps.Status.CONVERGED
    truth = (1e8 * np.cos(t) + 1e4 * np.sin(t)) / (1e8 + 1.0)
    assert abs(solution.states[:, 0] - truth[1:]).max() < 1e-6
    assert_allclose(solution.states[:, 1], np.exp(-t[1:]), rtol=1e-12)


@pytest.mark.parametrize("points", [1, 2])
def test_none_and_one_step(points):
    problem = oscillator()
    problem["t"], problem["inputs"] = problem["t"][:points], problem["inputs"][:points]
    for method in ps.ode.METHODS:
        solution = ps.solve_ode(rhs, **problem, method=method)
        assert solution.converged and solution.states.shape == (points - 1, 2)
        assert_allclose(solution.states, loop(**problem).reshape(points - 1, 2), rtol=1e-13)
    gradient = ps.gradient_ode(rhs, **problem, solution=solution, dstates=np.ones((points - 1, 2)))
    assert gradient.x.shape == (points, 1) and gradient.h0.shape == (2,)
    assert (gradient.h0 != 0.0).all() == (points == 2)


def test_what_does_not_converge_is_finished_by_the_loop_or_raises():
    problem = oscillator()
    solution = ps.solve_ode(rhs, **problem, max_iter=1)
    assert solution.status is ps.Status.FALLBACK and solution.converged
    assert_allclose(solution.states, loop(**problem), rtol=1e-12, atol=1e-12)
    with pytest.raises(ps.ConvergenceError):
        ps.solve_ode(rhs, **problem, max_iter=1, on_failure="raise")


def test_the_solution_as_a_guess_needs_no_iteration_beyond_the_first():
    problem = oscillator()
    states = ps.solve_ode(rhs, **problem).states
    assert ps.solve_ode(rhs, **problem, guess=states).iterations <= 1


# ------------------------------------------------------------------------------------------------------------- gradients


def naive_gradient(problem, dstates):
    """By complex steps through the naive loop, entry by entry."""
    values = {**problem["params"], "x": problem["inputs"], "h0": problem["u0"]}
    result = {name: np.zeros(value.shape) for name, value in values.items()}
    for name, value in values.items():
        for index in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[index] += 1e-100j
            params = {**values, name: moved}
            x, u0 = params.pop("x"), params.pop("h0")
            states = reference_ode.loop(naive, naive_jacobian, params, x, problem["t"], u0)
            result[name][index] = np.sum(states.imag / 1e-100 * dstates)
    return result


def test_the_gradient_is_exact_for_the_discrete_solution():
    """The derivatives of A are second derivatives of f; without them the error would be of the order of dt, 1e-1 here."""
    problem = oscillator()
    solution = ps.solve_ode(rhs, **problem)
    dstates = np.random.default_rng(9).normal(size=(40, 2))
    gradient = ps.gradient_ode(rhs, **problem, solution=solution, dstates=dstates)
    for name, expected in naive_gradient(problem, dstates).items():
        found = gradient.params[name] if name in gradient.params else getattr(gradient, name)
        assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * abs(expected).max(), err_msg=name)


def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_sequences():
    problem = oscillator()
    u0, inputs = np.stack([problem["u0"], [0.3, -1.0]]), np.stack([problem["inputs"], 0.5 * problem["inputs"]])
    dstates = np.random.default_rng(9).normal(size=(2, 40, 2))

    def differentiate(rows):
        arguments = rhs, u0[rows], problem["t"], problem["params"], inputs[rows]
        return ps.gradient_ode(*arguments, ps.solve_ode(*arguments), dstates[rows])

    together, alone = differentiate(slice(None)), [differentiate(b) for b in range(2)]
    for name in problem["params"]:
        assert_allclose(together.params[name], alone[0].params[name] + alone[1].params[name], rtol=1e-11, atol=1e-11)
    for b in range(2):
        assert_allclose(together.x[b], alone[b].x, rtol=1e-12, atol=1e-13)
        assert_allclose(together.h0[b], alone[b].h0, rtol=1e-12, atol=1e-13)


# --------------------------------------------------------------------------------------------------------- bad arguments

GOOD = oscillator(4)
BAD = [
    ({"rhs": "decay"}, TypeError, "rhs must be a plain Python function .*, got str"),
    ({"u0": np.zeros((1, 1, 2))}, ValueError, r"u0 must have 1 or 2 axes, got shape \(1, 1, 2\)"),
    ({"u0": np.zeros(0)}, ValueError, r"u0 must have 1 to 64 components in its last axis, got shape \(0,\)"),
    ({"u0": np.zeros(65)}, ValueError, r"u0 must have 1 to 64 components in its last axis, got shape \(65,\)"),
    ({"u0": np.array([1, 2])}, TypeError, "u0 must be an array of float32 or float64, got .*int64"),
    ({"u0": np.array([1.0, np.nan])}, ValueError, "u0 must be finite, got nan at index 1"),
    ({"u0": np.zeros(2, np.float32)}, TypeError, "mixes float32 and float64"),
    ({"t": np.array([0.0, 1.0, 1.0, 2.0, 3.0])}, ValueError, r"t must increase strictly, got t\[2\] = 1.0 after t\[1\] = 1.0"),
    ({"t": np.array([0.0, np.inf, 2.0])}, ValueError, "t must be finite, got inf at index 1"),
    ({"t": np.zeros(0)}, ValueError, "t must hold the initial time at least, got an empty array"),
    ({"t": np.zeros((2, 2))}, ValueError, r"t must have 1 axes, got shape \(2, 2\)"),
    ({"t": 5}, TypeError, "t must be an array of float32 or float64, got int"),
    ({"params": [1.0]}, TypeError, "params must be a dict of arrays, got list"),
    ({"params": {"_a": np.ones(1)}}, ValueError, "params must have names that are Python identifiers, got '_a'"),
    ({"params": {"a": np.float64(1.0)}}, ValueError, r"params\['a'\] must have at least one axis and one entry, got .*\(\)"),
    ({"params": {"a": np.ones(1, int)}}, TypeError, r"params\['a'\] must be an array of float32 or float64"),
    ({"inputs": np.zeros((4, 1))}, ValueError, r"inputs must have shape \(5, m\) for t and u0, got \(4, 1\)"),
    ({"inputs": np.zeros((2, 5, 1))}, ValueError, r"inputs must have 2 axes, got shape \(2, 5, 1\)"),
    ({"inputs": np.zeros((5, 0))}, ValueError, r"inputs must have shape \(5, m\) for t and u0, got \(5, 0\)"),
    ({"inputs": np.full((5, 1), np.nan)}, ValueError, r"inputs must be finite, got nan at index \(0, 0\)"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_arguments(changes, error, message):
    arguments = {"rhs": rhs, **GOOD, **changes}
    with pytest.raises(error, match=message):
        ps.solve_ode(**arguments)
    with pytest.raises(error, match=message):
        ps.gradient_ode(**arguments, solution=None, dstates=np.zeros((4, 2)))


@pytest.mark.parametrize(("changes", "message"), [
    ({"method": "elk"}, "method must be one of 'deer' or 'frozen-deer' or 'sequential', got 'elk'"),
    ({"tol": 0.0}, "tol must be positive"),
    ({"max_iter": 0}, "max_iter must be at least 1"),
    ({"guess": np.zeros((5, 2))}, r"guess must have shape \(4, 2\) like the states, got \(5, 2\)"),
    ({"on_failure": "ignore"}, "on_failure must be one of"),
])
def test_bad_options(changes, message):
    with pytest.raises(ValueError, match=message):
        ps.solve_ode(rhs, **GOOD, **changes)


def test_bad_arguments_of_the_gradient():
    with pytest.raises(TypeError, match="solution must be what"):
        ps.gradient_ode(rhs, **GOOD, solution=None, dstates=np.zeros((4, 2)))
    solution = ps.solve_ode(rhs, **GOOD)
    with pytest.raises(ValueError, match=r"dstates must have shape \(4, 2\) like the states"):
        ps.gradient_ode(rhs, **GOOD, solution=solution, dstates=np.zeros((5, 2)))
