"""Bad arguments of solve and gradient: the error names the argument, what it got and what it expects."""

import re

import numpy as np
import pytest
from models import METHODS, QUADRATIC
from numba import cuda

import pitsolve as ps

CELL = ps.cells.GRU(3, 5)
PARAMS = CELL.init(7)
X = np.zeros((2, 6, 3))
STATES = np.zeros((2, 6, 5))
SOLUTION = ps.solve(CELL, PARAMS, X)
NAN = np.zeros((2, 6, 3))
NAN[1, 4, 2] = np.nan
INF_STATES = np.zeros((2, 6, 5))
INF_STATES[0, 3, 1] = -np.inf


def replaced(**changes):
    """The parameters with some of them replaced; None removes one."""
    return {name: value for name, value in {**PARAMS, **changes}.items() if value is not None}


def solving(**changes):
    return lambda: ps.solve(**{"cell": CELL, "params": PARAMS, "x": X, **changes})


def differentiating(**changes):
    return lambda: ps.gradient(**{"cell": CELL, "params": PARAMS, "x": X, "solution": SOLUTION, "dstates": STATES, **changes})


EQUATION = [
    ({"cell": "gru"}, TypeError, "cell must be a cell such as .*, got str"),
    ({"cell": ps.cells.GRU}, TypeError, "cell must be a cell such as .*, got type"),
    ({"params": [1.0]}, TypeError, "params must be a dict of arrays, got list"),
    ({"params": replaced(bias_hh=None)}, ValueError, r"params must have \['bias_hh', .*\], but 'bias_hh' is missing"),
    ({"params": replaced(bias=np.zeros(5))}, ValueError, r"params has an unknown entry 'bias'; GRU takes \['bias_hh'"),
    ({"params": replaced(bias_ih=np.zeros(5))}, ValueError, r"params\['bias_ih'\] must have shape \(15,\).*got \(5,\)"),
    ({"params": replaced(weight_hh=np.zeros((5, 15)))}, ValueError,
     r"params\['weight_hh'\] must have shape \(15, 5\).*got \(5, 15\)"),
    ({"params": replaced(weight_ih=np.full((15, 3), np.inf))}, ValueError,
     r"params\['weight_ih'\] must be finite, got inf at index \(0, 0\)"),
    ({"params": replaced(bias_ih=np.zeros(15, int))}, TypeError, r"params\['bias_ih'\] must be .*float64, got .*int64"),
    ({"params": replaced(bias_ih=np.zeros(15, object))}, TypeError, r"params\['bias_ih'\] must be .*float64, got .*object"),
    ({"params": replaced(bias_ih=np.zeros(15, np.float32))}, TypeError,
     r"mixes float32 and float64 .*float32: params\['bias_ih'\]"),
    ({"x": X.astype(np.float32)}, TypeError, r"mixes float32 and float64 .*float32: x"),
    ({"x": X.astype(int)}, TypeError, "x must be an array of float32 or float64, got .*int64"),
    ({"x": X.astype(object)}, TypeError, "x must be an array of float32 or float64, got .*object"),
    ({"x": X.astype(complex)}, TypeError, "x must be an array of float32 or float64, got .*complex128"),
    ({"x": [[0.0], [0.0, 1.0]]}, TypeError, "x must be an array of float32 or float64, got list"),
    ({"x": None}, TypeError, "x must be an array of float32 or float64, got NoneType"),
    ({"x": "words"}, TypeError, "x must be an array of float32 or float64, got str"),
    ({"x": 6}, TypeError, "x must be an array of float32 or float64, got int"),
    ({"x": np.zeros(3)}, ValueError, r"x must have 2 or 3 axes, got shape \(3,\)"),
    ({"x": np.zeros((1, 2, 6, 3))}, ValueError, r"x must have 2 or 3 axes, got shape \(1, 2, 6, 3\)"),
    ({"x": np.zeros((2, 6, 4))}, ValueError, r"x must have 3 features in its last axis .* got shape \(2, 6, 4\)"),
    ({"x": NAN}, ValueError, r"x must be finite, got nan (at index \(1, 4, 2\)|in sequence 1 at step 4, component 2)"),
    ({"h0": np.zeros(5)}, ValueError, r"h0 must have shape \(2, 5\).*got \(5,\)"),
    ({"h0": np.zeros((2, 4))}, ValueError, r"h0 must have shape \(2, 5\).*got \(2, 4\)"),
    ({"h0": np.zeros((2, 5), np.float32)}, TypeError, "mixes float32 and float64 .*float32: h0"),
    ({"h0": np.zeros((2, 5), int)}, TypeError, "h0 must be an array of float32 or float64, got .*int64"),
    ({"h0": STATES[:, 0] + np.nan}, ValueError, r"h0 must be finite, got nan at index \(0, 0\)"),
    ({"backend": "gpu"}, ValueError, "backend must be one of 'auto' or 'cpu' or 'cuda', got 'gpu'"),
    ({"backend": 3}, ValueError, "backend must be one of .* got 3"),
]


@pytest.mark.skipif(cuda.is_available(), reason="there is a card")
@pytest.mark.parametrize("call", [solving, differentiating, lambda backend: lambda: ps.affine_scan(X, X, backend=backend)])
def test_a_call_without_a_card_says_so(call):
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot be used: there is no CUDA device"):
        call(backend="cuda")()


@pytest.mark.parametrize("call", [solving, differentiating])
@pytest.mark.parametrize(("changes", "error", "message"), EQUATION)
def test_what_defines_the_equation(call, changes, error, message):
    with pytest.raises(error, match=message):
        call(**changes)()


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"lengths": [6, 7]}, ValueError, "lengths must be between 0 and T = 6, got 7 at index 1"),
    ({"lengths": [-1, 6]}, ValueError, "lengths must be between 0 and T = 6, got -1 at index 0"),
    ({"lengths": [6]}, ValueError, r"lengths must have shape \(2,\).*got \(1,\)"),
    ({"lengths": [6.0, 6.0]}, TypeError, "lengths must be integers, got dtype float64"),
    ({"lengths": [True, True]}, TypeError, "lengths must be integers, got dtype bool"),
    ({"lengths": [6], "x": X[0]}, ValueError, "lengths is for batches"),
    ({"lengths": [6, 4], "x": NAN[::-1]}, ValueError, "x must be finite, got nan in sequence 0 at step 4, component 2"),
    ({"method": "newton"}, ValueError, f"method must be one of 'auto' or .*{METHODS[1]}.*{METHODS[-1]}.*got 'newton'"),
    ({"method": None}, ValueError, "method must be one of .* got None"),
    ({"method": "deer", "speed": 3}, TypeError, "'deer' has no option 'speed'; it takes damping, max_memory"),
    ({"method": "elk", "damping": 0.5}, TypeError, "'elk' has no option 'damping'; it takes max_memory, trust"),
    ({"method": "picard", "trust": 3}, TypeError, "'picard' has no option 'trust'; it takes max_memory"),
    ({"method": "sequential", "damping": 0.5}, TypeError, "'sequential' has no option 'damping'; it takes no options"),
    ({"method": "deer", "damping": 1.5}, ValueError, "damping must be between 0 and 1, got 1.5"),
    ({"method": "deer", "damping": float("nan")}, ValueError, "damping must be between 0 and 1, got nan"),
    ({"method": "deer", "damping": "0.5"}, TypeError, "damping must be a number, got '0.5'"),
    ({"method": "elk", "trust": 0.0}, ValueError, "trust must be positive and finite, got 0.0"),
    ({"method": "deer", "max_memory": 0}, ValueError, "max_memory must be at least 1, got 0"),
    ({"method": "deer", "max_memory": 1e6}, TypeError, "max_memory must be an integer, got 1000000.0"),
    ({"tol": -1e-6}, ValueError, "tol must be positive and finite, got -1e-06"),
    ({"tol": 0.0}, ValueError, "tol must be positive and finite, got 0.0"),
    ({"tol": float("nan")}, ValueError, "tol must be positive and finite, got nan"),
    ({"tol": "small"}, TypeError, "tol must be a number, got 'small'"),
    ({"tol": True}, TypeError, "tol must be a number, got True"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
    ({"max_iter": -3}, ValueError, "max_iter must be at least 1, got -3"),
    ({"max_iter": 2.0}, TypeError, "max_iter must be an integer, got 2.0"),
    ({"on_failure": "ignore"}, ValueError, "on_failure must be one of 'fallback' or 'raise' or 'warn', got 'ignore'"),
    ({"guess": STATES[0]}, ValueError, r"guess must have shape \(2, 6, 5\) like the states, got \(6, 5\)"),
    ({"guess": STATES.astype(np.float32)}, TypeError, "mixes float32 and float64 .*float32: guess"),
    ({"guess": STATES.astype(int)}, TypeError, "guess must be an array of float32 or float64, got .*int64"),
    ({"guess": INF_STATES}, ValueError, "guess must be finite, got -inf (at|in)"),
])
def test_what_is_special_to_solve(changes, error, message):
    with pytest.raises(error, match=message):
        solving(**changes)()


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"method": "deer"}, ValueError, "method must be one of 'auto' or 'sequential' or .*'mgrit', got 'deer'"),
    ({"solution": STATES}, TypeError, "solution must be what pitsolve.solve returned, got ndarray"),
    ({"x": X[:, :5], "dstates": STATES[:, :5]}, ValueError,
     r"solution.states must have shape \(2, 5, 5\).*got \(2, 6, 5\)"),
    ({"x": X[0], "dstates": STATES[0]}, ValueError, r"solution.states must have shape \(6, 5\).*got \(2, 6, 5\)"),
    ({"cell": ps.cells.GRU(3, 1), "params": ps.cells.GRU(3, 1).init(7)}, ValueError,
     r"solution.states must have shape \(2, 6, 1\)"),
    ({"params": {name: value.astype(np.float32) for name, value in PARAMS.items()}, "x": X.astype(np.float32)}, TypeError,
     "mixes float32 and float64 .*float64: solution.states and dstates"),
    ({"dstates": STATES[0]}, ValueError, r"dstates must have shape \(2, 6, 5\) like the states, got \(6, 5\)"),
    ({"dstates": STATES.astype(np.float32)}, TypeError, "mixes float32 and float64 .*float32: dstates"),
    ({"dstates": STATES.astype(int)}, TypeError, "dstates must be an array of float32 or float64, got .*int64"),
    ({"dstates": INF_STATES}, ValueError, "dstates must be finite, got -inf (at|in)"),
    ({"dstates": None}, TypeError, "dstates must be an array of float32 or float64, got NoneType"),
])
def test_what_is_special_to_gradient(changes, error, message):
    with pytest.raises(error, match=message):
        differentiating(**changes)()


@pytest.mark.parametrize(("steps", "h0", "error", "message"), [
    (-1, None, TypeError, "x must be the number of steps, a non-negative integer, .*got -1"),
    (2.5, None, TypeError, "x must be the number of steps, .*got 2.5"),
    (True, None, TypeError, "x must be the number of steps, .*got True"),
    (np.zeros((6, 0)), None, TypeError, "x must be the number of steps, .*got array"),
    (6, np.zeros((1, 2, 1)), ValueError, r"h0 must have 1 or 2 axes, got shape \(1, 2, 1\)"),
    (6, np.zeros(2), ValueError, r"h0 must have shape \(1,\).*got \(2,\)"),
    (6, np.zeros((2, 2)), ValueError, r"h0 must have shape \(2, 1\).*got \(2, 2\)"),
    (6, np.zeros(1, np.float32), TypeError, "mixes float32 and float64 .*float32: h0"),
])
def test_cells_without_inputs(steps, h0, error, message):
    with pytest.raises(error, match=message):
        ps.solve(QUADRATIC, QUADRATIC.init(7), steps, h0)


def test_a_cell_without_inputs_or_parameters_checks_h0():
    cell = ps.cells.custom(lambda p, x, h, new: None, 1)
    with pytest.raises(TypeError, match=r"h0 must be an array of float32 or float64, got .*int64"):
        ps.solve(cell, {}, 3, np.zeros(1, int))
    with pytest.raises(ValueError, match=re.escape("h0 must have shape (1,)")):
        ps.solve(cell, {}, 3, [0.0, 0.0])


def test_lists_of_floats_and_other_byte_orders_are_read():
    expected = ps.solve(CELL, PARAMS, X[0] + 0.5).states
    assert (ps.solve(CELL, PARAMS, (X[0] + 0.5).tolist()).states == expected).all()
    swapped = (X[0] + 0.5).astype(np.dtype(float).newbyteorder())
    assert (ps.solve(CELL, PARAMS, swapped).states == expected).all()
