"""The verbs of general cells against the naive twins of the cells: stated derivatives, complex steps, ragged lengths."""

import numpy as np
import pytest
import reference
from models import MODELS, QUADRATIC, naive_quadratic
from numpy.testing import assert_allclose, assert_array_equal
from test_ode_cells import naive_swing, naive_swing_jacobian, swing_cell

import pitsolve as ps
from pitsolve.backends.cuda import general_model, general_windows, transfer
from pitsolve.backends.cuda.general_model import GeneralModel
from pitsolve.backends.cuda.launch import device


def free(p, x, h, new):
    new[0] = 0.5 * h[0] + 1.0


CELLS = {
    "lem": (MODELS["lem"].cell, MODELS["lem"].naive),  # states all its derivatives
    "custom": (MODELS["custom"].cell, MODELS["custom"].naive),  # states none
    "trapezoid": (swing_cell("trapezoid"), reference.ode("trapezoid", naive_swing, naive_swing_jacobian, 0.3)),
    "rk4": (swing_cell("rk4"), reference.ode("rk4", naive_swing, naive_swing_jacobian, 0.3)),
    "no inputs": (QUADRATIC, naive_quadratic),
    "no parameters": (ps.cells.custom(free, 1), lambda p, x, h: 0.5 * h + 1.0),
}
START, STOP = np.array([0, 2, 0]), np.array([7, 5, 0])
every_cell = pytest.mark.parametrize("name", CELLS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    for module, sizes in ((general_model, {"_ALONE": 2, "_THREADS": 4, "_PARTS": 5, "_BLOCKS": 16}),
                          (general_windows, {"_ALONE": 2, "_MOST": 4}), (transfer, {"_THREADS": 4, "_MOST": 4})):
        for size, value in sizes.items():
            monkeypatch.setattr(module, size, value)


class Case:
    """A cell, random arrays, and its twin."""

    def __init__(self, name, dtype, batch=3, steps=7):
        random = np.random.default_rng(3)
        self.cell, self.naive = CELLS[name]
        n = self.cell.state_size
        self.params = self.cell.init(5, dtype)
        self.x = random.normal(size=(batch, steps, self.cell.input_size)).astype(dtype)
        self.states, self.source, self.adjoint = (random.normal(size=(batch, steps, n)).astype(dtype) for _ in range(3))
        self.h0 = (0.5 * random.normal(size=(batch, n))).astype(dtype)
        self.model = GeneralModel(self.cell, self.params, dtype)
        self.close = {"rtol": 1e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}

    def f(self, b, t, h):
        return reference.loop(self.naive, self.params, self.x[b, t:t + 1], h)[0]

    def before(self, b, t):
        return self.states[b, t - 1] if t else self.h0[b]

    def jacobian(self, b, t):
        h = self.before(b, t)
        return np.stack([self.f(b, t, h + 1e-100j * unit).imag / 1e-100 for unit in np.eye(h.size)], axis=1)

    def previous(self, begin):
        return device().upload(self.states[:, begin - 1] if begin else self.h0)

    def __getattr__(self, name):
        """``on_x`` is x on the device, and so on."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        value = device().upload(getattr(self, name[3:]))
        setattr(self, name, value)
        return value


def host(array):
    return device().download(array)


@every_dtype
@every_cell
def test_the_loop_runs_over_slabs_of_ragged_sequences(name, dtype):
    case = Case(name, dtype)
    states, carry = device().upload(np.full_like(case.states, 7)), case.model.carry(case.on_h0)
    for begin, end in ((0, 3), (3, 7)):
        case.model.propagate(case.on_x, carry, states, begin, end, START, STOP)
    expected = np.full(case.states.shape, 7.0)
    for b in range(2):
        expected[b, START[b]:STOP[b]] = reference.loop(case.naive, case.params, case.x[b, START[b]:STOP[b]], case.h0[b])
    assert_allclose(host(states), expected, **case.close)
    assert_allclose(host(carry), [expected[0, 6], expected[1, 4], case.h0[2]], **case.close)
    assert_array_equal(host(case.on_h0), case.h0)


def test_the_loop_adds_a_source_after_each_step():
    case = Case("lem", np.float64)
    states, carry = device().upload(case.states), case.model.carry(case.on_h0)
    case.model.propagate(case.on_x, carry, states, 0, 7, START, STOP, case.on_source)
    h = case.h0[0]
    for t in range(7):
        h = case.f(0, t, h) + case.source[0, t]
        assert_allclose(host(states)[0, t], h, rtol=1e-12)
    assert_array_equal(host(states)[2], case.states[2])


@every_dtype
@every_cell
def test_residuals_and_jacobians_are_those_of_the_twin(name, dtype):
    case = Case(name, dtype)
    for order in (case.model.VALUE, case.model.DIAGONAL, case.model.BLOCKS):
        for begin, end in ((0, 3), (3, 7)):
            defect, jacobian = map(host, case.model.linearise(
                order, case.on_x, case.on_states, case.previous(begin), begin, end, START, STOP))
            for b, t in np.ndindex(3, end - begin):
                now = begin + t
                if not START[b] <= now < STOP[b]:
                    assert not defect[b, t].any()
                    continue
                assert_allclose(defect[b, t], case.f(b, now, case.before(b, now)) - case.states[b, now], **case.close)
                if order == case.model.DIAGONAL:
                    assert_allclose(jacobian[b, t], np.diag(case.jacobian(b, now)), **case.close)
                elif order == case.model.BLOCKS:
                    assert_allclose(jacobian[b, t, 0], case.jacobian(b, now), **case.close)
            assert jacobian.dtype == defect.dtype == dtype


@every_dtype
@every_cell
def test_parameter_gradients_are_sums_over_slabs(name, dtype):
    case = Case(name, dtype)
    # A pullback is given f(h_{t-1}, x_t) as the state.
    case.states = reference.loop_batch(case.naive, case.params, case.x, case.h0).astype(dtype)
    totals = case.model.totals(device().upload(np.full_like(case.x, 7)))
    for begin, end in ((3, 7), (0, 3)):
        adjoint = device().upload(case.adjoint[:, begin:end])
        case.model.accumulate(totals, None, case.on_x, case.on_states, case.previous(begin), adjoint, begin, START, STOP)
    expected, dx = dict.fromkeys(case.params, 0.0), np.full(case.x.shape, 7.0)
    for b in range(3):
        for t in range(START[b], STOP[b]):
            parts = reference.gradient(case.naive, case.params, case.x[b, t:t + 1], case.before(b, t), case.adjoint[b, t:t + 1])
            dx[b, t] = parts["x"]
            expected = {key: value + parts[key] for key, value in expected.items()}
    assert_allclose(host(totals["x"]), dx, **case.close)
    gradients = case.model.finish(totals)
    assert list(gradients) == list(case.params)
    for key, value in expected.items():
        assert gradients[key].dtype == dtype
        assert_allclose(host(gradients[key]), value, err_msg=key, **case.close)


@every_dtype
@pytest.mark.parametrize("parts", [1, 2, 128])
def test_the_loop_over_pullbacks_is_back_propagation_through_time(parts, dtype):
    case = Case("lem", dtype)
    case.states = reference.loop_batch(case.naive, case.params, case.x, case.h0).astype(dtype)
    totals, windows = case.model.totals(device().upload(np.full_like(case.x, 7))), case.model.windows
    totals["theta"] = device().upload(np.zeros((totals["theta"].shape[0], parts)))
    stop, zero = np.array([7, 4, 0]), device().upload(np.zeros_like(case.h0))
    carry = windows.accumulate(totals, case.on_x, case.on_states, case.on_h0, zero, np.arange(3), np.zeros(3, np.int64), stop,
                               before=case.on_adjoint)
    expected, dx, dh0 = dict.fromkeys(case.params, 0.0), np.full(case.x.shape, 7.0), np.zeros(case.h0.shape)
    for b in range(2):
        alone = reference.gradient(case.naive, case.params, case.x[b, :stop[b]], case.h0[b], case.adjoint[b, :stop[b]])
        dx[b, :stop[b]], dh0[b] = alone["x"], alone["h0"]
        expected = {key: value + alone[key] for key, value in expected.items()}
    assert_allclose(host(totals["x"]), dx, **case.close)
    assert_allclose(host(carry), dh0, **case.close)
    gradients = case.model.finish(totals)
    for key, value in expected.items():
        assert_allclose(host(gradients[key]), value, err_msg=key, **case.close)
