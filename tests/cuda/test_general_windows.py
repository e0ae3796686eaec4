"""Windows of general cells, and the Jacobians of windows of any cell, against naive twins."""

import math
import types

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal
from test_general import CELLS, Case, few_threads, host  # noqa: F401  (a fixture)

import pitsolve as ps
from pitsolve.backends.cuda import transfer
from pitsolve.backends.cuda.launch import device
from pitsolve.backends.cuda.workspace import Workspace

ROW, FIRST, LAST = np.array([0, 0, 1, 2]), np.array([0, 3, 2, 4]), np.array([3, 7, 3, 4])  # the last one is empty
WINDOWS = ROW, FIRST, LAST
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def apart(p, x, h, new):
    new[0] = 0.5 * h[0]
    new[1] = 0.5 * h[1]


def fading(p, x, h, new):
    for i in range(2):
        new[i] = 0.5 * h[i] + math.tanh(x[i])


CELLS |= {"apart": (ps.cells.custom(apart, 2), lambda p, x, h: 0.5 * h),
          "fading": (ps.cells.custom(fading, 2, 2), lambda p, x, h: 0.5 * h + np.tanh(x)),
          "wide": (ps.cells.LEM(1, 5, dt=0.5), reference.lem(0.5))}


def swept(case, starts, source=None):
    """Naive states of all windows; NaN outside, and at the last step of each, and the ends."""
    states, ends = np.full(case.states.shape, np.nan), np.array(starts, float)
    for w, (b, first, last) in enumerate(zip(*WINDOWS)):
        for t in range(first, last):
            ends[w] = case.f(b, t, ends[w]) + (0.0 if source is None else source[b, t])
            if t < last - 1:
                states[b, t] = ends[w]
    return states, ends


@every_dtype
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", ["lem", "trapezoid", "no inputs"])
def test_a_sweep_runs_the_loop_through_every_window(name, added, dtype):
    case = Case(name, dtype)
    starts = case.adjoint[:2, :2].reshape(4, -1)
    source = case.source if added else None
    states = device().upload(case.states)
    ends = case.model.windows.sweep(case.on_x, states, device().upload(starts), *WINDOWS,
                                    source=case.on_source if added else None)
    inside, expected = swept(case, starts, source)
    assert_allclose(host(ends), expected, **case.close)
    assert_allclose(host(states), np.where(np.isnan(inside), case.states, inside), **case.close)


@every_dtype
def test_merging_stops_where_new_states_agree_with_the_stored_ones(dtype):
    case = Case("fading", dtype)
    starts = case.adjoint[:2, :2].reshape(4, -1)
    states, given = device().upload(case.states), device().upload(starts)
    ends = case.model.windows.sweep(case.on_x, states, given, *WINDOWS)
    kept = host(states)
    for row, last, end in zip(ROW[:3], LAST[:3], host(ends)):
        kept[row, last - 1] = end  # as methods do before they merge
    states = device().upload(kept)
    # Window 0 starts where it did and agrees at once; window 1 starts nearby; window 2 never agrees.
    moved, marked = starts.copy(), host(ends).copy()
    moved[1] += 0.02
    moved[2] = np.nan
    marked[1:] = 7.0
    tolerance = 0.007
    ends = device().upload(marked)
    steps, differences = case.model.windows.merge(case.on_x, states, device().upload(moved), *WINDOWS, tolerance, ends)
    h, expected_steps, expected = moved[1].astype(float), 0, kept.copy()
    for t in range(3, 7):
        h = case.f(0, t, h)
        difference = np.max(np.abs(h - kept[0, t]) / np.maximum(1.0, np.abs(kept[0, t])))
        if difference <= tolerance:
            expected_steps = t - 2
            break
        expected[0, t] = h
    assert 1 < expected_steps < 5
    assert_array_equal(steps, [1, expected_steps, 1, 0])
    assert_allclose(differences[1], difference, rtol=1e-4 if dtype == np.float32 else 1e-10)
    assert differences[0] < 1e-5
    assert_array_equal(differences[2:], 0.0)
    assert_allclose(host(states), expected, **case.close)
    assert_array_equal(host(ends)[:2], kept[0, [2, 6]])
    assert np.isnan(host(ends)[2]).all()
    assert_array_equal(host(ends)[3], 7.0)


def test_a_state_that_is_partly_nan_agrees_with_nothing():
    case = Case("apart", np.float64)
    starts, ends = np.array([[np.nan, 0.0]]), device().upload(np.zeros((1, 2)))
    states = device().upload(np.zeros_like(case.states))
    window = ROW[:1], FIRST[:1], LAST[:1]
    steps, _ = case.model.windows.merge(case.on_x, states, device().upload(starts), *window, 1.0, ends)
    assert steps == 3
    assert_array_equal(host(ends), [[np.nan, 0.0]])


@every_dtype
@pytest.mark.parametrize("sources", [(), ("before",), ("after",), ("before", "after")], ids=lambda sources: "+".join(sources))
@pytest.mark.parametrize("name", ["custom", "lem", "wide"])
def test_a_pull_runs_the_transposed_jacobians_backward(name, sources, dtype):
    case = Case(name, dtype)
    n = case.cell.state_size
    assert (n > 8) == (name == "wide")  # a thread a window, or a block
    starts = np.random.default_rng(4).normal(size=(4, n)).astype(dtype)
    carries = device().upload(np.full_like(case.states, 7))
    given = {"before": case.source, "after": case.adjoint}
    expected, ends = np.full(case.states.shape, 7.0), starts.astype(float)
    for w, (b, first, last) in enumerate(zip(*WINDOWS)):
        for t in range(last - 1, first - 1, -1):
            c = ends[w] + (case.source[b, t] if "before" in sources else 0.0)
            ends[w] = case.jacobian(b, t).T @ c + (case.adjoint[b, t] if "after" in sources else 0.0)
            if t > first:
                expected[b, t] = ends[w]
    for _ in range(2):  # the second call finds the Jacobians of the first, although the model computed others since
        got = case.model.windows.pull(case.on_x, case.on_states, case.on_h0, carries, device().upload(starts), *WINDOWS,
                                      **{key: device().upload(given[key]) for key in sources})
        assert_allclose(host(got), ends, **case.close)
        assert_allclose(host(carries), expected, **case.close)
        case.model.linearise(case.model.BLOCKS, case.on_x, case.on_source, case.on_h0, 0, 7, np.zeros(3, int), np.full(3, 7))


@every_dtype
@pytest.mark.parametrize(("heads", "m"), [(1, 1), (2, 3), (1, 17)])
def test_jacobians_of_windows_are_products_of_those_of_their_steps(heads, m, dtype):
    random = np.random.default_rng(6)
    model = types.SimpleNamespace(cell=types.SimpleNamespace(blocks=(heads, m)), dtype=np.dtype(dtype), work=Workspace(dtype),
                                  DIAGONAL=1)
    blocks = random.normal(size=(3, 7, heads, m, m)).astype(dtype)
    diagonals = random.normal(size=(3, 7, heads * m)).astype(dtype)
    blocks[1, 2, 0, 0] = 1e-31  # a row of the product becomes negligible
    diagonals[1, 2, 0] = 1e-31
    for order, jacobian in ((1, diagonals), (2, blocks)):
        products = transfer.identity(model, order, 4)
        for begin, end in ((0, 4), (4, 7)):
            transfer.extend(model, order, products, device().upload(np.ascontiguousarray(jacobian[:, begin:end])), begin,
                            *WINDOWS)
        products = host(products)
        assert products.dtype == dtype
        for w, (b, first, last) in enumerate(zip(*WINDOWS)):
            if order == 1:
                expected = np.prod(jacobian[b, first:last].astype(float), axis=0)
            else:
                expected = np.tile(np.eye(m), (heads, 1, 1))
                for t in range(first, last):
                    expected = jacobian[b, t].astype(float) @ expected
            assert_allclose(products[w], np.where(np.abs(expected) < 1e-30, 0.0, expected), rtol=1e-4 if dtype == np.float32
                            else 1e-12, atol=1e-5 if dtype == np.float32 else 1e-13)
        assert products[2].ravel()[0] == 0.0
