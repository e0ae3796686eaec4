"""Cells made from a user's function, the check of stated derivatives, and the keys under which compiled code is stored."""

import math

import numba
import numpy as np
import pytest
from models import MODELS, bump, oscillator
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve as ps
from pitsolve.cells import custom, verify
from pitsolve.cells.parameters import packing
from pitsolve.compile import _PROCESS, _describe, _specialised


def jacobian(p, x, h, new, J):
    J[0, 0] = 1.0
    J[0, 1] = 0.1
    J[1, 0] = -0.1 * p.stiffness[0] * math.cos(h[0])
    J[1, 1] = 0.9


def diagonal(p, x, h, new, d):
    d[0] = 1.0
    d[1] = 0.9


def pullback(p, x, h, new, v, dp, dx, dh):
    dp.stiffness[0] -= 0.1 * v[1] * math.sin(h[0])
    dp.drive[0, 0] += v[1] * x[0]
    dp.drive[0, 1] += v[1] * bump(x[1])
    dx[0] = v[1] * p.drive[0, 0]
    dx[1] = -2.0 * x[1] * v[1] * p.drive[0, 1] * bump(x[1])
    dh[0] = v[0] - 0.1 * p.stiffness[0] * math.cos(h[0]) * v[1]
    dh[1] = 0.1 * v[0] + 0.9 * v[1]


def wrong_jacobian(p, x, h, new, J):
    right_jacobian(p, x, h, new, J)
    J[1, 0] = 0.1 * p.stiffness[0] * math.cos(h[0])


def wrong_diagonal(p, x, h, new, d):
    d[0] = 1.0
    d[1] = 0.8


def wrong_pullback(p, x, h, new, v, dp, dx, dh):
    right_pullback(p, x, h, new, v, dp, dx, dh)
    dp.drive[0, 1] += 0.5 * v[1]


right_jacobian, right_pullback = numba.njit(jacobian), numba.njit(pullback)
PLAIN = MODELS["custom"]
STATED = {"jacobian": jacobian, "diagonal": diagonal, "pullback": pullback}


def oscillator_cell(step=oscillator, **stated):
    return custom(step, 2, 2, parameters={"stiffness": (1,), "drive": (1, 2)}, **stated)


def scaled(factor):
    def step(p, x, h, new):
        new[0] = factor * h[0] + 1.0

    return step


def decay(p, x, h, new):
    new[0] = p.a[0] * h[0] + x[0]


def several_decays(p, x, h, new, ratio):
    new[0] = h[0]
    for _ in range(ratio):
        new[0] = p.a[0] * new[0] + x[0]


def test_a_stated_coarse_step_stands_for_its_ratio_of_steps():
    cell = custom(decay, 1, 1, parameters={"a": (1,)}, coarse=several_decays)
    params, x, h0 = {"a": np.array([0.9])}, np.array([[1.0], [-2.0]]), np.array([0.3])
    compiled = set()
    for coarse, ratio in ((cell.coarsened(params, 3)[0], 3), (cell.coarsened(params, 3)[0].coarsened(params, 2)[0], 6)):
        repeated = np.repeat(x, ratio, axis=0)
        solution = ps.solve(coarse, params, x, h0, method="deer")
        assert_allclose(solution.states, ps.solve(cell, params, repeated, h0).states[ratio - 1::ratio], rtol=1e-15)
        ours = ps.gradient(coarse, params, x, solution, solution.states, h0)
        dstates = np.zeros((2 * ratio, 1))
        dstates[ratio - 1::ratio] = solution.states
        fine = ps.gradient(cell, params, repeated, ps.solve(cell, params, repeated, h0), dstates, h0)
        assert_allclose(ours.params["a"], fine.params["a"], rtol=1e-14)
        assert_allclose(ours.h0, fine.h0, rtol=1e-14)
        compiled.add(len(_specialised))
    assert len(compiled) == 1  # another ratio compiles nothing


def test_a_cell_without_a_coarse_step_says_so():
    with pytest.raises(TypeError, match="does not say how its steps coarsen, which a method with coarse grids needs"):
        PLAIN.cell.coarsened(PLAIN.cell.init(3), 2)


def test_an_njit_function_is_the_cell_of_its_python_function():
    assert oscillator_cell(numba.njit(oscillator)) == oscillator_cell() == PLAIN.cell


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
    gradient = ps.gradient(cell, {}, 3, alone, np.ones((3, 1)))
    assert gradient.params == {} and gradient.x is None
    assert_array_equal(gradient.h0, [0.5 + 0.25 + 0.125])


def test_stated_derivatives_give_the_same_results_as_complex_steps():
    stated, plain = oscillator_cell(**STATED), PLAIN.cell
    params, x, h0 = PLAIN.problem(30)
    for method in ("deer", "quasi-deer"):
        solution = ps.solve(stated, params, x, h0, method=method)
        assert_allclose(solution.states, ps.solve(plain, params, x, h0, method=method).states, rtol=1e-12, atol=1e-12)
    ours, theirs = (ps.gradient(cell, params, x, solution, np.ones((30, 2)), h0) for cell in (stated, plain))
    for a, b in zip((*ours.params.values(), ours.x, ours.h0), (*theirs.params.values(), theirs.x, theirs.h0), strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_verify_accepts_right_derivatives():
    for cell in (MODELS["lem"].cell, oscillator_cell(**STATED)):
        differences = verify(cell)
        assert sorted(differences) == ["diagonal", "jacobian", "pullback"]
        assert max(differences.values()) < 1e-13
    assert verify(PLAIN.cell) == {}


@pytest.mark.parametrize(("wrong", "message"), [
    ({"jacobian": wrong_jacobian}, r"jacobian\[1, 0\] is .*, but complex steps give"),
    ({"diagonal": wrong_diagonal}, r"diagonal\[1\] is 0\.8, but complex steps give 0\.9"),
    ({"pullback": wrong_pullback}, r"pullback: ddrive\[0, 1\] is .*, but complex steps give"),
], ids=["jacobian", "diagonal", "pullback"])
def test_verify_names_the_wrong_entry(wrong, message):
    with pytest.raises(ValueError, match=message):
        verify(oscillator_cell(**wrong))


def test_verify_is_for_cells_with_a_step():
    with pytest.raises(TypeError, match=r"cell must be a cell with a step function .* got GRU"):
        verify(ps.cells.GRU(2, 3))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: custom("step", 2), TypeError, "step must be a plain Python function .* got str"),
    (lambda: custom(math.sin, 2), TypeError, "step must be a plain Python function .* got builtin_function"),
    (lambda: custom(oscillator, 2, jacobian=3), TypeError, "jacobian must be a plain Python function .* got int"),
    (lambda: custom(oscillator, 0), ValueError, "state_size must be an integer of at least 1, got 0"),
    (lambda: custom(oscillator, 2, -1), ValueError, "input_size must be an integer of at least 0, got -1"),
    (lambda: custom(oscillator, 2, parameters={"a b": (1,)}), ValueError, "parameters must have names .* got 'a b'"),
    (lambda: custom(oscillator, 2, parameters={"ratio": (1,)}, coarse=several_decays), ValueError,
     "names .* other than 'ratio', got 'ratio'"),
    (lambda: custom(oscillator, 2, coarse=3), TypeError, "coarse must be a plain Python function .* got int"),
    (lambda: custom(oscillator, 2, parameters={"w": ()}), ValueError, r"parameters\['w'\] must be a shape .* got \(\)"),
    (lambda: custom(oscillator, 2, parameters={"w": (2, 0)}), ValueError, r"parameters\['w'\] must be a shape .* got \(2, 0\)"),
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


def test_the_cache_keeps_functions_of_different_modules_apart():
    """Numba imports their modules when it loads compiled code, and one without a module cannot be imported later."""
    source = "def step(p, x, h, new):\n    new[0] = 0.5 * h[0]\n"
    described = []
    for names in ({"__name__": "math"}, {"__name__": "cmath"}, {}):
        exec(source, names)
        described.append(_describe(names["step"]))
    assert len(set(described)) == 3
    assert _PROCESS in described[2] and _PROCESS not in described[0]


def test_parameters_travel_flat_and_as_a_named_tuple():
    fields = (("a", (2, 3)), ("none", (4, 0)), ("b", (1,)))
    bundle, gather, scatter = packing(fields)
    assert packing(tuple(fields)) is packing(fields)
    theta, again = np.arange(7.0), np.zeros(7)
    p = bundle(theta)
    assert_array_equal(p.a, [[0, 1, 2], [3, 4, 5]])
    assert p.none.shape == (4, 0) and p.b == [6]
    gather(p, again)
    assert_array_equal(again, theta)
    scatter(again, p)
    assert_array_equal(theta, 2 * again)


def test_kernels_of_general_cells_are_found_by_the_next_process():
    assert _PROCESS not in "".join(map(_describe, packing((("a", (2,)),))))


def test_an_input_that_a_stated_pullback_leaves_out_has_gradient_zero():
    def decay(p, x, h, new):
        new[0] = 0.5 * h[0] + p.a[0] * x[0]

    def pullback(p, x, h, new, v, dp, dx, dh):
        dp.a[0] += v[0] * x[0]
        dx[0] = v[0] * p.a[0]
        dh[0] = 0.5 * v[0]

    cell = ps.cells.custom(decay, 1, 2, parameters={"a": (1,)}, pullback=pullback)
    x, params = np.ones((30, 2)), {"a": np.array([2.0])}
    sol = ps.solve(cell, params, x, method="sequential")
    for options in ({}, {"method": "shooting", "window": 3}):
        gradient = ps.gradient(cell, params, x, sol, np.ones((30, 1)), **options)
        assert (gradient.x[:, 0] != 0.0).all() and (gradient.x[:, 1] == 0.0).all()
