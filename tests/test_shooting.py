"""Multiple shooting: windows of time, boundary corrections, certificate, adjoint."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS

import pitsolve as ps
from pitsolve.backends.cpu import gated_windows, general_model, workspace
from pitsolve.backends.cpu.simd import register_bytes
from pitsolve.methods.iteration import residual
from pitsolve.methods.shooting import CORRECTIONS, Windows
from pitsolve.place import placed
from pitsolve.solve import prepare

CELLS = ["gru", "gru-f32", "heads", "lstm", "lem", "custom"]


def forgetting(name, steps=150, batch=None):
    """A model whose memory is shorter than a window or two, its arguments and its states."""
    model = MODELS[name]
    params, x, h0 = model.problem(steps, batch)
    return model, params, x, h0


@pytest.mark.parametrize("name, correction", [*((name, "none") for name in CELLS), *(("gru", c) for c in CORRECTIONS[1:]),
                                              *(("lstm", c) for c in ("diagonal", "full")), ("heads", "full")])
def test_states_are_those_of_the_loop(name, correction):
    model, params, x, h0 = forgetting(name)
    sol = ps.solve(model.cell, params, x, h0, method="shooting", window=20, correction=correction, max_iter=8)
    assert sol.converged
    np.testing.assert_allclose(sol.states, model.loop(params, x, h0), **model.close)


@pytest.mark.parametrize("window", [1, 7, 149, 150, 151, 1000])
def test_any_window_gives_the_same_states(window):
    model, params, x, h0 = forgetting("gru")
    sol = ps.solve(model.cell, params, x, h0, method="shooting", window=window)
    np.testing.assert_allclose(sol.states, model.loop(params, x, h0), **model.close)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_sequences(steps):
    model, params, x, h0 = forgetting("gru", steps)
    sol = ps.solve(model.cell, params, x, h0, method="shooting")
    assert sol.states.shape == (steps, 5) and sol.converged
    np.testing.assert_allclose(sol.states, model.loop(params, x, h0), **model.close)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.integers(1, 40), st.integers(0, 30))
def test_ragged_batches_overlap_and_windows_of_any_size(lengths, window, overlap):
    model, params, x, h0 = forgetting("gru", max(lengths), len(lengths))
    for b, length in enumerate(lengths):
        x[b, length:] = np.nan
    sol = ps.solve(model.cell, params, x, h0, lengths=lengths, method="shooting", window=window, overlap=overlap)
    expected = model.loop(params, np.nan_to_num(x), h0, lengths)
    assert sol.converged.all()
    np.testing.assert_allclose(sol.states, expected, **model.close)


def test_the_certificate_is_the_residual():
    model, params, x, h0 = forgetting("gru")
    sol = ps.solve(model.cell, params, x, h0, method="shooting", window=20, correction="none", tol=1e-2)
    with placed("cpu") as place:
        problem, _ = prepare(model.cell, params, x, h0, None, place)
    measured, _ = residual(problem, sol.states[None], 1e-2, 1 << 20)
    assert 1e-9 < sol.residual <= 1e-2
    assert measured[0] <= sol.residual + 1e-14
    assert sol.residuals[-1] == sol.residual


def test_k_iterations_make_k_more_windows_exact():
    """The first k + 1 windows are exact after k iterations, whatever the model."""
    cell = ps.cells.GRU(2, 4)
    params = cell.init(3)
    params["bias_hh"][4:8] += 5.0  # the update gate keeps nearly everything
    x = np.random.default_rng(1).normal(size=(80, 2))
    exact = reference.loop(reference.gru, params, x, np.zeros(4))
    for correction in ("none", "diagonal", "full"):
        for k in range(1, 4):
            with pytest.warns(RuntimeWarning, match="Not converged"):
                sol = ps.solve(cell, params, x, method="shooting", window=10, correction=correction, tol=1e-300,
                               max_iter=k, on_failure="warn")
            np.testing.assert_allclose(sol.states[:10 * (k + 1)], exact[:10 * (k + 1)], rtol=0, atol=1e-9)


def test_full_correction_is_newtons_method():
    """A linear model is solved by one correction."""
    def linear(p, x, h, new):
        new[0] = 0.9 * h[0] + 0.5 * h[1] + x[0]
        new[1] = -0.5 * h[0] + 0.9 * h[1]

    cell = ps.cells.custom(linear, 2, 1)
    x = np.random.default_rng(2).normal(size=(60, 1))
    sol = ps.solve(cell, {}, x, method="shooting", window=10, correction="full", tol=1e-10)
    assert sol.iterations == 1
    np.testing.assert_allclose(sol.states, ps.solve(cell, {}, x, method="sequential").states, rtol=0, atol=1e-9)


def test_only_windows_whose_start_moved_are_swept_again():
    """From the solution as a guess nothing moves."""
    model, params, x, h0 = forgetting("gru")
    exact = ps.solve(model.cell, params, x, h0, method="shooting", window=20, tol=1e-14)
    again = ps.solve(model.cell, params, x, h0, method="shooting", window=20, guess=exact.states, tol=1e-12)
    assert again.iterations == 0 and again.work.fine == 150


def test_overlap_replaces_iterations():
    model, params, x, h0 = forgetting("gru")
    without, with_overlap = (ps.solve(model.cell, params, x, h0, method="shooting", window=30, overlap=k, tol=1e-6, max_iter=9)
                             for k in (0, 29))
    assert with_overlap.residuals[0] < 1e-3 * without.residuals[0]


def test_a_model_that_never_forgets_costs_at_most_one_iteration_a_window():
    cell = ps.cells.custom(rotation, 2, 1)
    x = np.ones((50, 1))
    sol = ps.solve(cell, {}, x, h0=np.array([1.0, 0.0]), method="shooting", window=10, correction="none")
    assert sol.converged and sol.iterations == 4
    assert sol.work.depth <= 50


def rotation(p, x, h, new):
    new[0] = 0.8 * h[0] - 0.6 * h[1]
    new[1] = 0.6 * h[0] + 0.8 * h[1] + 0.0 * x[0]


@pytest.mark.parametrize("name", CELLS)
def test_gradient_is_that_of_the_loop(name):
    model, params, x, h0 = forgetting(name, 90, 3)
    lengths = [90, 31, 0]
    sol = ps.solve(model.cell, params, x, h0, lengths=lengths)
    dstates = np.random.default_rng(5).normal(size=sol.states.shape).astype(model.dtype)
    expected = ps.gradient(model.cell, params, x, sol, dstates, h0)
    got = ps.gradient(model.cell, params, x, sol, dstates, h0, method="shooting", window=13)
    bound = {"rtol": 2e-5, "atol": 2e-4} if model.dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}
    for key in params:
        np.testing.assert_allclose(got.params[key], expected.params[key], **bound, err_msg=key)
    np.testing.assert_allclose(got.x, expected.x, **bound)
    np.testing.assert_allclose(got.h0, expected.h0, **bound)


def test_windows_of_a_stated_pullback_form_no_jacobian(monkeypatch):
    model, params, x, h0 = forgetting("lem", 60)
    sol = ps.solve(model.cell, params, x, h0, method="shooting", window=20)
    monkeypatch.delattr(general_model.GeneralModel, "linearise")
    grad = ps.gradient(model.cell, params, x, sol, np.ones_like(sol.states), h0, method="shooting", window=20)
    expected = ps.gradient(model.cell, params, x, sol, np.ones_like(sol.states), h0, method="sequential")
    np.testing.assert_allclose(grad.x, expected.x, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["gru-f32", "lem"])
@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_threads(threads, name):
    import numba

    model, params, x, h0 = forgetting(name, 400, 2)
    dstates = np.ones((2, 400, model.cell.state_size), model.dtype)
    before = numba.get_num_threads()
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("one thread only")
    try:
        results = []
        for count in (1, threads):
            numba.set_num_threads(count)
            sol = ps.solve(model.cell, params, x, h0, method="shooting", window=7)
            grad = ps.gradient(model.cell, params, x, sol, dstates, h0, method="shooting", window=7)
            results.append([sol.states, grad.x, *grad.params.values()])
    finally:
        numba.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_windows_cover_every_step_once():
    windows = Windows.cut(np.array([10, 0, 3]), 4)
    assert windows.row.tolist() == [0, 0, 0, 2]
    assert windows.first.tolist() == [0, 4, 8, 0] and windows.last.tolist() == [4, 8, 10, 3]
    assert windows.follow.tolist() == [1, 2]


def test_narrow_registers_give_the_same_states_and_gradients(monkeypatch):
    """The path of machines without AVX-512."""
    width = 32
    if width >= register_bytes():
        pytest.skip("as wide as this machine's registers")
    model, params, x, h0 = forgetting("gru", 60)
    exact = ps.solve(model.cell, params, x, h0, method="shooting", window=9)
    dstates = np.ones_like(exact.states)
    expected = ps.gradient(model.cell, params, x, exact, dstates, h0, method="shooting", window=9)
    monkeypatch.setattr(gated_windows, "register_bytes", lambda: width)
    sol = ps.solve(model.cell, params, x, h0, method="shooting", window=9)
    grad = ps.gradient(model.cell, params, x, sol, dstates, h0, method="shooting", window=9)
    np.testing.assert_allclose(sol.states, exact.states, rtol=0, atol=1e-13)
    for key in params:
        np.testing.assert_allclose(grad.params[key], expected.params[key], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name, unwritten", [("gru", np.nan), ("gru-f32", np.inf), ("lstm", np.nan)])
def test_kernels_write_nothing_beside_their_scratch_and_read_nothing_unwritten(name, unwritten, monkeypatch):
    """Numba checks no bounds in these kernels, so guards around every scratch array do."""
    guards, take = [], workspace.Workspace.take

    def guarded(self, label, *shape):
        size = int(np.prod(shape))
        memory = workspace.aligned((size + 256,), self._dtype)
        memory[:] = 77
        if self._dtype.kind == "f":
            memory[128:size + 128] = unwritten
        guards.append((label, memory, size))
        return memory[128:size + 128].reshape(shape)

    assert take is not guarded
    monkeypatch.setattr(workspace.Workspace, "take", guarded)
    model, params, x, h0 = forgetting(name, 43, 2)
    sol = ps.solve(model.cell, params, x, h0, lengths=[43, 20], method="shooting", window=2)
    grad = ps.gradient(model.cell, params, x, sol, sol.states, h0, method="shooting", window=1)
    assert all(np.isfinite(value).all() for value in (sol.states, grad.x, grad.h0, *grad.params.values()))
    if name == "gru":
        ps.solve(model.cell, params, x, h0, method="mgrit", coarsening=3)
        ps.gradient(model.cell, params, x, sol, sol.states, h0, method="mgrit", coarsening=3)
    broken = {label for label, memory, size in guards if (memory[:128] != 77).any() or (memory[size + 128:] != 77).any()}
    assert guards and broken == set()


@pytest.mark.parametrize("options, message", [
    ({"window": 0}, "window must be at least 1"), ({"overlap": -1}, "overlap must be at least 0"),
    ({"correction": "some"}, "correction must be one of"), ({"levels": 3}, "has no option 'levels'")])
def test_bad_options_are_named(options, message):
    model, params, x, h0 = forgetting("gru")
    with pytest.raises((ValueError, TypeError), match=message):
        ps.solve(model.cell, params, x, h0, method="shooting", **options)
