"""Cells made from a user's function, the check of stated derivatives, and the keys under which compiled code is stored."""

import math

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.cells import LEM, custom, verify
from pitsolve.compile import _describe


@numba.njit
def cubed(a):
    return a * a * a


def rotation(p, x, h, new):
    new[0] = 0.9 * h[0] + p.w[0, 0] * math.sin(h[1]) + p.w[0, 1] * x[0]
    new[1] = 0.8 * h[1] - p.w[1, 0] * cubed(h[0]) + p.w[1, 1] * x[0]


def naive_rotation(w, x, h):
    return np.array([0.9 * h[0] + w[0, 0] * np.sin(h[1]) + w[0, 1] * x[0], 0.8 * h[1] - w[1, 0] * h[0]**3 + w[1, 1] * x[0]])


def rotation_jacobian(p, x, h, new, J):
    J[0, 0] = 0.9
    J[0, 1] = p.w[0, 0] * math.cos(h[1])
    J[1, 0] = -3.0 * p.w[1, 0] * h[0] * h[0]
    J[1, 1] = 0.8


def rotation_diagonal(p, x, h, new, d):
    d[0] = 0.9
    d[1] = 0.8


def rotation_pullback(p, x, h, new, v, dp, dx, dh):
    dp.w[0, 0] += v[0] * math.sin(h[1])
    dp.w[0, 1] += v[0] * x[0]
    dp.w[1, 0] -= v[1] * cubed(h[0])
    dp.w[1, 1] += v[1] * x[0]
    dx[0] = v[0] * p.w[0, 1] + v[1] * p.w[1, 1]
    dh[0] = 0.9 * v[0] - 3.0 * p.w[1, 0] * h[0] * h[0] * v[1]
    dh[1] = p.w[0, 0] * math.cos(h[1]) * v[0] + 0.8 * v[1]


def wrong_jacobian(p, x, h, new, J):
    rotation_jacobian_compiled(p, x, h, new, J)
    J[1, 0] = 3.0 * p.w[1, 0] * h[0] * h[0]


def wrong_diagonal(p, x, h, new, d):
    d[0] = 0.9
    d[1] = 0.7


def wrong_pullback(p, x, h, new, v, dp, dx, dh):
    rotation_pullback_compiled(p, x, h, new, v, dp, dx, dh)
    dp.w[0, 1] += 0.5 * v[0]


rotation_jacobian_compiled = numba.njit(rotation_jacobian)
rotation_pullback_compiled = numba.njit(rotation_pullback)
SHAPES = {"w": (2, 2)}
STATED = {"jacobian": rotation_jacobian, "diagonal": rotation_diagonal, "pullback": rotation_pullback}


def scaled(factor):
    def step(p, x, h, new):
        new[0] = factor * h[0] + 1.0

    return step


@pytest.mark.parametrize("step", [rotation, numba.njit(rotation)], ids=["plain", "njit"])
def test_a_function_of_the_user_is_a_cell(step):
    cell = custom(step, 2, 1, parameters=SHAPES)
    params, x = cell.init(5), np.random.default_rng(2).normal(size=(30, 1))
    h, expected = np.zeros(2), []
    for t in range(30):
        h = naive_rotation(params["w"], x[t], h)
        expected.append(h)
    assert_allclose(ps.solve(cell, params, x).states, expected, rtol=1e-13, atol=1e-13)
    assert_allclose(ps.solve(cell, params, x, method="deer").states, expected, rtol=1e-12, atol=1e-12)


def test_closures_keep_their_own_constants():
    for factor in (0.5, 0.25):
        states = ps.solve(custom(scaled(factor), 1), {}, 4, np.zeros(1)).states[:, 0]
        assert_allclose(states, np.cumsum(factor**np.arange(4.0)), rtol=1e-15)


def test_a_cell_without_parameters_and_inputs():
    cell = custom(scaled(0.5), 1)
    assert cell.shapes == {} and cell.init(3) == {}
    for dtype in (np.float32, np.float64):
        batch = ps.solve(cell, {}, 3, np.array([[2.0], [0.0]], dtype))
        assert_array_equal(batch.states, np.array([[[2], [2], [2]], [[1], [1.5], [1.75]]], dtype))
        assert batch.states.dtype == dtype
    alone = ps.solve(cell, {}, 3)
    assert_array_equal(alone.states, [[1], [1.5], [1.75]])
    assert ps.gradient(cell, {}, 3, alone, np.ones((3, 1))).params == {}


def test_stated_derivatives_give_the_same_results_as_complex_steps():
    stated, plain = (custom(rotation, 2, 1, parameters=SHAPES, **given) for given in (STATED, {}))
    params, x = plain.init(5), np.random.default_rng(2).normal(size=(30, 1))
    solution = ps.solve(stated, params, x, method="deer")
    assert_allclose(solution.states, ps.solve(plain, params, x, method="deer").states, rtol=1e-13, atol=1e-13)
    ours, theirs = (ps.gradient(cell, params, x, solution, np.ones((30, 2))) for cell in (stated, plain))
    for a, b in ((ours.params["w"], theirs.params["w"]), (ours.x, theirs.x), (ours.h0, theirs.h0)):
        assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_verify_accepts_right_derivatives():
    for cell in (LEM(2, 3), custom(rotation, 2, 1, parameters=SHAPES, **STATED)):
        differences = verify(cell)
        assert sorted(differences) == ["diagonal", "jacobian", "pullback"]
        assert max(differences.values()) < 1e-13
    assert verify(custom(rotation, 2, 1, parameters=SHAPES)) == {}


@pytest.mark.parametrize(("wrong", "message"), [
    ({"jacobian": wrong_jacobian}, r"jacobian\[1, 0\] is .*, but complex steps give"),
    ({"diagonal": wrong_diagonal}, r"diagonal\[1\] is 0\.7, but complex steps give 0\.8"),
    ({"pullback": wrong_pullback}, r"pullback: dw\[0, 1\] is .*, but complex steps give"),
], ids=["jacobian", "diagonal", "pullback"])
def test_verify_names_the_wrong_entry(wrong, message):
    with pytest.raises(ValueError, match=message):
        verify(custom(rotation, 2, 1, parameters=SHAPES, **wrong))


def test_verify_is_for_cells_with_a_step():
    with pytest.raises(TypeError, match="cell must be a cell with a step function .* got GRU"):
        verify(ps.cells.GRU(2, 3))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: custom("step", 2), TypeError, "step must be a plain Python function .* got str"),
    (lambda: custom(math.sin, 2), TypeError, "step must be a plain Python function .* got builtin_function"),
    (lambda: custom(rotation, 2, jacobian=3), TypeError, "jacobian must be a plain Python function .* got int"),
    (lambda: custom(rotation, 0), ValueError, "state_size must be an integer of at least 1, got 0"),
    (lambda: custom(rotation, 2, -1), ValueError, "input_size must be an integer of at least 0, got -1"),
    (lambda: custom(rotation, 2, parameters={"a b": (1,)}), ValueError, "parameters must have names .* got 'a b'"),
    (lambda: custom(rotation, 2, parameters={"w": ()}), ValueError, r"parameters\['w'\] must be a shape .* got \(\)"),
    (lambda: custom(rotation, 2, parameters={"w": (2, 0)}), ValueError, r"parameters\['w'\] must be a shape .* got \(2, 0\)"),
])
def test_bad_descriptions_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def typed_at_a_prompt(function):
    """A step without source, like one typed at an interactive prompt."""
    names = {"math": math}
    exec(f"def step(p, x, h, new):\n    new[0] = math.{function}(h[0])\n", names)
    return names["step"]


def test_functions_without_source_are_told_apart():
    for function in (math.sin, math.cos):
        states = ps.solve(custom(typed_at_a_prompt(function.__name__), 1), {}, 1, np.array([0.3])).states
        assert_allclose(states, [[function(0.3)]], rtol=1e-15)


def with_table(value):
    table = np.zeros(2000)
    table[1000] = value

    def step(p, x, h, new):
        new[0] = table[1000] + 0.0 * h[0]

    return step


def test_large_tables_of_constants_are_told_apart():
    for value in (1.0, 2.0):
        assert ps.solve(custom(with_table(value), 1), {}, 1, np.zeros(1)).states == value


def test_the_key_of_a_compiled_function_is_what_it_computes():
    def calls(helper):
        return lambda a: helper(a)

    def helper(factor):
        return numba.njit(lambda a: factor * a)

    assert _describe(calls(helper(2.0))) == _describe(calls(helper(2.0)))
    assert _describe(calls(helper(2.0))) != _describe(calls(helper(3.0)))
