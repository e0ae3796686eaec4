"""Methods of solution touch arrays by the verbs of a backend only, so that any backend can serve them."""

import sys

import numpy as np
import pytest
from grids import GRIDS
from models import METHODS, MODELS
from numpy.testing import assert_array_equal
from opaque import opaque

import pitsolve as ps
from pitsolve.backends import cpu
from pitsolve.place import Place

LENGTHS = [130, 0, 41]
CALLS = [*((method, {}) for method in METHODS), ("deer", {"damping": 0.3}), ("auto", {}),
         *(("shooting", {"window": 20, "overlap": 3, "correction": c}) for c in ("none", "diagonal", "full", "auto"))]
COARSE_CALLS = [("mgrit", {"weight": 0.9, "cycle": "F", "nested": True}), ("mgrit", {"skip_first": True}),
                ("parareal", {"window": 13})]
every_cell = pytest.mark.parametrize("name", ["gru", "lstm", "heads", "custom"])


class OpaquePlace(Place):
    """Where arrays are opaque and stay so."""

    def __init__(self, *_):
        super().__init__("opaque", None)

    def give(self, values, like=None):
        return values


@pytest.fixture
def behind_opaque_arrays(monkeypatch):
    """A function whose calls run in the opaque backend."""
    monkeypatch.setitem(sys.modules, "pitsolve.backends.opaque", opaque)

    def run(function, *arguments, **options):
        with monkeypatch.context() as patch:
            for name in ("scan", "solve", "leastsquares.schwarz"):
                patch.setattr(sys.modules[f"pitsolve.{name}"], "placed", OpaquePlace)
            return function(*arguments, **options)

    return run


def ragged(name):
    model = {**MODELS, **GRIDS}[name]
    params, x, h0 = model.problem(130, batch=3)
    return model.cell, params, x, h0


def same_solution(name, arguments, behind_opaque_arrays):
    cell, params, x, h0 = ragged(name)
    expected = ps.solve(cell, params, x, h0, lengths=LENGTHS, **arguments)
    solution = behind_opaque_arrays(ps.solve, cell, params, x, h0, lengths=LENGTHS, **arguments)
    assert_array_equal(solution.states.hidden, expected.states)
    assert_array_equal(solution.residual, expected.residual)
    assert solution.status is expected.status


@every_cell
@pytest.mark.parametrize("method, options", CALLS, ids=str)
def test_solve(name, method, options, behind_opaque_arrays):
    same_solution(name, {"method": method, **options}, behind_opaque_arrays)


@every_cell
@pytest.mark.parametrize("method, options", CALLS, ids=str)
def test_guess_and_fallback(name, method, options, behind_opaque_arrays):
    guess = np.full((3, 130, MODELS[name].cell.state_size), 0.1)
    same_solution(name, {"method": method, **options, "max_iter": 1, "guess": guess}, behind_opaque_arrays)


@pytest.mark.parametrize("name", ["gru", "gated"])
@pytest.mark.parametrize("max_iter", [1, 100])
@pytest.mark.parametrize("method, options", COARSE_CALLS, ids=str)
def test_coarse_grids(name, max_iter, method, options, behind_opaque_arrays):
    same_solution(name, {"method": method, **options, "max_iter": max_iter}, behind_opaque_arrays)


@pytest.mark.parametrize("name, method, options", [
    *((name, method, options) for name in ("gru", "lstm", "heads", "custom", "lem")
      for method, options in (("sequential", {}), ("scan", {}), ("shooting", {"window": 20}))),
    *((name, "mgrit", options) for name in ("gru", "gated") for options in ({}, {"cycles": 1}))], ids=str)
def test_gradient(name, method, options, behind_opaque_arrays):
    cell, params, x, h0 = ragged(name)
    solution = ps.solve(cell, params, x, h0, lengths=LENGTHS, method="sequential")
    arguments = cell, params, x, solution, np.cos(solution.states), h0
    expected = ps.gradient(*arguments, method=method, **options)
    gradient = behind_opaque_arrays(ps.gradient, *arguments, method=method, **options)
    assert_array_equal(gradient.x.hidden, expected.x)
    assert_array_equal(gradient.h0.hidden, expected.h0)
    for key, value in expected.params.items():
        assert_array_equal(gradient.params[key], value)


def test_auto_takes_windows(behind_opaque_arrays):
    cell = ps.cells.GRU(3, 2)
    params, x = cell.init(3, np.float32), np.random.default_rng(4).normal(size=(16384, 3)).astype(np.float32)
    solution = behind_opaque_arrays(ps.solve, cell, params, x)
    assert solution.method == "shooting" and solution.states.shape == (16384, 2)
    assert_array_equal(solution.states.hidden, ps.solve(cell, params, x).states)


def test_affine_scan(behind_opaque_arrays):
    A, b = np.random.default_rng(5).normal(size=(2, 9, 3))
    assert_array_equal(behind_opaque_arrays(ps.affine_scan, A, b, reverse=True).hidden, ps.affine_scan(A, b, reverse=True))


@pytest.mark.parametrize("options", [{}, {"accel": "cg"}, {"transmission": "schur"}, {"formulation": "split"},
                                     {"mode": "oddeven"}], ids=str)
def test_schwarz(options, behind_opaque_arrays):
    random = np.random.default_rng(7)
    problem = ps.leastsquares.BlockTridiagonal.from_state_space(0.9 * np.eye(2), 0.5 * np.eye(2), np.eye(2), np.eye(2),
                                                                random.normal(size=(80, 2)))
    arguments = {"windows": 4, "overlap": 3, "x0": np.full((80, 2), 0.1), "max_iter": 5000, **options}
    expected = ps.schwarz_lstsq(problem, **arguments)
    solution = behind_opaque_arrays(ps.schwarz_lstsq, problem, **arguments)
    assert_array_equal(solution.solution, expected.solution)
    assert solution.iterations == expected.iterations


class Elsewhere:
    """Newton's method on a copy of the states, as a fused kernel with two buffers does it."""

    def __init__(self, model, order, damping, x, h0, states, stop, max_memory):
        self.model, self.order, self.x, self.h0, self.states, self.stop = model, order, x, h0, states, stop
        self.newest = states.copy()

    def sweep(self, tol, start):
        arguments = 0, start, self.stop
        defect, jacobian = self.model.linearise(self.order, self.x, self.newest, self.h0, 0, self.x.shape[1], *arguments[1:])
        norms, first = cpu.measure(defect, self.newest, tol, *arguments)
        cpu.scan(jacobian, defect, np.zeros_like(self.h0), defect, *arguments[1:])
        return norms, first, cpu.update(self.newest, defect, *arguments)

    def finish(self):
        self.states[...] = self.newest


@pytest.mark.parametrize("max_iter", [2, 100])
@pytest.mark.parametrize("method", ["deer", "quasi-deer"])
def test_newton_takes_a_fused_iteration_where_there_is_one(method, max_iter, monkeypatch):
    cell, params, x, h0 = ragged("gru")
    arguments = {"lengths": LENGTHS, "method": method, "max_iter": max_iter}
    expected = ps.solve(cell, params, x, h0, **arguments)
    monkeypatch.setattr(cpu, "fused_newton", Elsewhere)
    solution = ps.solve(cell, params, x, h0, **arguments)
    assert_array_equal(solution.states, expected.states)
    assert_array_equal(solution.residuals, expected.residuals)
    assert_array_equal(solution.resumed_at, expected.resumed_at)
