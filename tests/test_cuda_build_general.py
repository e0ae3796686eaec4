"""Kernels of general cells, built offline. How much a user's cell takes is up to the cell; these stand for many."""

import numpy as np
import offline
import pytest
from models import MODELS
from test_ode_cells import swing_cell

import pitsolve as ps
from pitsolve.backends.cuda import transfer
from pitsolve.backends.cuda.general_model import GeneralModel

F32, F64 = np.float32, np.float64
LEM, OSCILLATOR, IMPLICIT = MODELS["lem"].cell, MODELS["custom"].cell, swing_cell("trapezoid")
every_architecture = pytest.mark.parametrize("capability", offline.ARCHITECTURES)

# A float32 sine reduces a large argument with products in float64, a float64 one with numbers on the stack.
FORWARD = ("general.sweep", "general.merge", "general.linearise")
# Sums over time are in float64. What is read at a variable index is on the stack, and so is the scratch of schemes.
SUMS = "general_derivatives.total", "general_derivatives.accumulate", "general_windows.accumulate"
DERIVATIVES = ("general_windows.accumulate", *(f"general_derivatives.{name}" for name in (
    "accumulate", "differentiate", "pull_inputs", "pull_parameters")))

WINDOWS = np.zeros(3, np.int64), np.zeros(3, np.int64), np.full(3, 4)


def verbs(cell, dtype):
    """A function that calls every verb once."""
    n = cell.state_size
    x, states, h0, starts = (np.zeros(shape, dtype) for shape in ((2, 5, cell.input_size), (2, 5, n), (2, n), (3, n)))
    bounds = np.zeros(2, np.int64), np.full(2, 5)

    def call():
        model = GeneralModel(cell, {name: np.zeros(shape, dtype) for name, shape in cell.shapes.items()}, dtype)
        model.propagate(x, h0, states, 0, 5, *bounds)
        for order in (model.VALUE, model.DIAGONAL, model.BLOCKS):
            model.linearise(order, x, states, h0, 0, 5, *bounds)
        totals = model.totals(x)
        model.accumulate(totals, None, x, states, h0, states, 0, *bounds)
        if cell.pullback is not None:
            for before in (states, None):
                model.windows.accumulate(totals, x, states, h0, starts, *WINDOWS, before=before, tol=0.1)
        model.finish(totals)
        model.windows.sweep(x, states, starts, *WINDOWS, source=states)
        model.windows.merge(x, states, starts, *WINDOWS, 0.1, starts)
        model.windows.pull(x, states, h0, states, starts, *WINDOWS, before=states)

    return call


@every_architecture
@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_state_of_a_small_cell_is_in_registers(dtype, capability):
    offline.check(verbs(LEM, dtype), capability, SUMS, DERIVATIVES)


@every_architecture
@pytest.mark.parametrize("dtype", [F32, F64])
def test_complex_steps_are_compiled_for_the_card(dtype, capability):
    on_stack = DERIVATIVES if dtype == F32 else DERIVATIVES + FORWARD
    offline.check(verbs(OSCILLATOR, dtype), capability, SUMS + FORWARD, on_stack)


@every_architecture
def test_implicit_schemes_compute_in_float64_without_a_heap(capability):
    offline.check(verbs(IMPLICIT, F32), capability, SUMS, DERIVATIVES + FORWARD)


@pytest.mark.parametrize("power", ["h[0] ** 2.5", "h[0] ** -2", "h[0] ** p.a[0]", "1.0 / h[0] + math.sqrt(h[0])"])
def test_powers_and_functions_of_complex_numbers_are_compiled_for_the_card(power):
    names = {}
    exec(f"import math\ndef step(p, x, h, new):\n    new[0] = {power}", names)
    cell = ps.cells.custom(names["step"], 1, parameters={"a": (1,)})

    def call():
        x, states, h0 = np.zeros((1, 3, 0)), np.zeros((1, 3, 1)), np.zeros((1, 1))
        GeneralModel(cell, {"a": np.zeros(1)}, F64).linearise(2, x, states, h0, 0, 3, np.zeros(1, np.int64), np.full(1, 3))

    kernel, signature = offline.record(call)[-1]
    assert kernel.name == "general_derivatives.differentiate"
    assert offline.build(kernel, signature, (9, 0)).spilled == 0


def nothing(p, x, h, new):
    pass


def no_jacobian(p, x, h, new, J):
    pass


@every_architecture
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("block", [4, 16, 17])
def test_products_of_jacobians_have_their_columns_in_registers(block, dtype, capability):
    def call():
        model = GeneralModel(ps.cells.custom(nothing, block), {}, dtype)
        for order, shape in ((model.DIAGONAL, (2, 5, block)), (model.BLOCKS, (2, 5, 1, block, block))):
            transfer.extend(model, order, transfer.identity(model, order, 3), np.zeros(shape, dtype), 0, *WINDOWS)

    offline.check(call, capability)


@every_architecture
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("n", [8, 9])
def test_transposed_jacobians_are_pulled_from_registers_or_shared_memory(n, dtype, capability):
    def call():
        model = GeneralModel(ps.cells.custom(nothing, n, jacobian=no_jacobian), {}, dtype)
        x, states, starts = (np.zeros(shape, dtype) for shape in ((2, 5, 0), (2, 5, n), (3, n)))
        model.windows.pull(x, states, starts[:2], states, starts, *WINDOWS, after=states)

    offline.check(call, capability)
