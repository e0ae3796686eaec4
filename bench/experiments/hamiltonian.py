"""A Hamiltonian network as a cell: one step of the explicit midpoint rule for u' = (dH/dp, -dH/dq), H a perceptron.

    z_l = W_l^T a_{l-1} + b_l,   a_l = softplus(z_l),   a_0 = u,   H = w^T a_L
    d_L = w s_L,   d_l = s_l W_{l+1} d_{l+1},   dH/du = W_1 d_1          with s = softplus'(z), products of vectors by element
    u_t = u_{t-1} + dt f(u_{t-1} + dt/2 f(u_{t-1}))

Second derivatives: the Hessian of H is the sum over layers of Z_l^T diag(d_l (1 - s_l)) Z_l with Z_l = dz_l/du. For the
pullback, let ' be the derivative along a direction y. Then y^T dH/du = H', so its gradient is (dH/du)' with respect to u, and
with respect to W_l, b_l and w it is a_{l-1}' d_l^T + a_{l-1} d_l'^T, d_l' and a_L'.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from numba.extending import register_jitable

import pitsolve as ps
from pitsolve.cells.memory import scratch

SIZE = 8  # positions of two bodies in the plane, then their velocities; the masses are one
HALF = SIZE // 2


def shapes(width: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; ``weight[l, i, j]`` leads from unit i of hidden layer l to unit j of the next."""
    return {"weight_in": (SIZE, width), "weight": (layers - 1, width, width), "bias": (layers, width), "weight_out": (width,)}


def init(width: int, layers: int, seed: int) -> dict[str, np.ndarray]:
    """Normal weights of variance 1 / inputs, no biases."""
    random = np.random.default_rng(seed)
    inputs = {"weight_in": SIZE, "weight": width, "bias": math.inf, "weight_out": width}
    return {name: random.normal(size=shape) / math.sqrt(inputs[name]) for name, shape in shapes(width, layers).items()}


@register_jitable
def advance(u, slope, dt, out):
    """out = u + dt slope."""
    for i in range(SIZE):
        out[i] = u[i] + dt * slope[i]


@register_jitable
def identity_plus(second, dt, out):
    """out = I + dt S M, where S turns dH/du into f = (dH/dp, -dH/dq)."""
    for i in range(HALF):
        for j in range(SIZE):
            out[i, j] = dt * second[HALF + i, j]
            out[HALF + i, j] = -dt * second[i, j]
        out[i, i] += 1.0
        out[HALF + i, HALF + i] += 1.0


@register_jitable
def turn_back(v, dt, y):
    """y = dt S^T v, the direction with y^T dH/du = dt v^T f."""
    for i in range(HALF):
        y[HALF + i] = dt * v[i]
        y[i] = -dt * v[HALF + i]


@functools.cache
def field(width: int, layers: int) -> Callable:
    """``evaluate(p, u, a, s, d, out)``: out = f(u); a, s, d as above, but no a of the last layer, which nothing needs."""

    @register_jitable
    def evaluate(p, u, a, s, d, out):
        for layer in range(layers):
            for j in range(width):
                a[layer, j] = p.bias[layer, j]
            if layer == 0:
                for i in range(SIZE):
                    for j in range(width):
                        a[0, j] += p.weight_in[i, j] * u[i]
            else:
                for i in range(width):
                    for j in range(width):
                        a[layer, j] += p.weight[layer - 1, i, j] * a[layer - 1, i]
            for j in range(width):
                power = math.exp(a[layer, j])
                s[layer, j] = power / (1.0 + power)
                if layer < layers - 1:
                    a[layer, j] = math.log(1.0 + power)
        for j in range(width):
            d[layers - 1, j] = p.weight_out[j] * s[layers - 1, j]
        for layer in range(layers - 1, 0, -1):
            for i in range(width):
                total = 0.0 * u[0]
                for j in range(width):
                    total += p.weight[layer - 1, i, j] * d[layer, j]
                d[layer - 1, i] = total * s[layer - 1, i]
        for i in range(SIZE):
            total = 0.0 * u[0]
            for j in range(width):
                total += p.weight_in[i, j] * d[0, j]
            if i < HALF:
                out[HALF + i] = -total
            else:
                out[i - HALF] = total

    return evaluate


@register_jitable
def add_product(left, scale, right, out):
    """out += left^T diag(scale) right, eight columns wide: a row of the sum stays in registers, one vector."""
    for row in range(out.shape[0]):
        t0, t1, t2, t3, t4, t5, t6, t7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(right.shape[0]):
            factor = left[i, row] * scale[i]
            t0 += factor * right[i, 0]
            t1 += factor * right[i, 1]
            t2 += factor * right[i, 2]
            t3 += factor * right[i, 3]
            t4 += factor * right[i, 4]
            t5 += factor * right[i, 5]
            t6 += factor * right[i, 6]
            t7 += factor * right[i, 7]
        out[row, 0] += t0
        out[row, 1] += t1
        out[row, 2] += t2
        out[row, 3] += t3
        out[row, 4] += t4
        out[row, 5] += t5
        out[row, 6] += t6
        out[row, 7] += t7


@register_jitable
def clear(array):
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            array[i, j] = 0.0


@functools.cache
def second_derivatives(width: int, layers: int) -> tuple[Callable, Callable]:
    """``hessian(p, s, d, Z, bend, out)``, and ``along(p, s, d, y, da, dd, dg)`` for one direction y."""

    @register_jitable
    def hessian(p, s, d, Z, bend, out):
        clear(Z)
        clear(out)
        for layer in range(layers):
            rows = Z[layer * width:(layer + 1) * width]
            if layer == 0:
                for j in range(width):
                    for i in range(SIZE):
                        rows[j, i] = p.weight_in[i, j]
            else:
                add_product(p.weight[layer - 1], s[layer - 1], Z[(layer - 1) * width:layer * width], rows)
            for j in range(width):
                bend[j] = d[layer, j] * (1.0 - s[layer, j])
            add_product(rows, bend, rows, out)

    @register_jitable
    def along(p, s, d, y, da, dd, dg):
        clear(da)
        for layer in range(layers):
            if layer == 0:
                for i in range(SIZE):
                    for j in range(width):
                        da[0, j] += p.weight_in[i, j] * y[i]
            else:
                for i in range(width):
                    for j in range(width):
                        da[layer, j] += p.weight[layer - 1, i, j] * da[layer - 1, i]
            for j in range(width):
                dd[layer, j] = d[layer, j] * (1.0 - s[layer, j]) * da[layer, j]
                da[layer, j] *= s[layer, j]
        for layer in range(layers - 1, 0, -1):
            for i in range(width):
                total = 0.0
                for j in range(width):
                    total += p.weight[layer - 1, i, j] * dd[layer, j]
                dd[layer - 1, i] += total * s[layer - 1, i]
        for i in range(SIZE):
            dg[i] = 0.0
            for j in range(width):
                dg[i] += p.weight_in[i, j] * dd[0, j]

    return hessian, along


@functools.cache
def cell(width: int, layers: int) -> ps.cells.base.Cell:
    """The cell; its input is the time step."""
    evaluate, (hessian, along) = field(width, layers), second_derivatives(width, layers)

    @register_jitable
    def add_gradients(p, u, y, a, d, da, dd, dp):
        """dp += (dH/dp)' along y at u."""
        for layer in range(layers):
            for j in range(width):
                dp.bias[layer, j] += dd[layer, j]
            if layer == 0:
                for i in range(SIZE):
                    for j in range(width):
                        dp.weight_in[i, j] += y[i] * d[0, j] + u[i] * dd[0, j]
            else:
                for i in range(width):
                    for j in range(width):
                        dp.weight[layer - 1, i, j] += da[layer - 1, i] * d[layer, j] + a[layer - 1, i] * dd[layer, j]
        for j in range(width):
            dp.weight_out[j] += da[layers - 1, j]

    def step(p, x, h, new):
        rows, vectors = scratch(3 * layers, width, h[0]), scratch(2, SIZE, h[0])
        a, s, d = rows[:layers], rows[layers:2 * layers], rows[2 * layers:]
        middle, slope = vectors[0], vectors[1]
        evaluate(p, h, a, s, d, slope)
        advance(h, slope, 0.5 * x[0], middle)
        evaluate(p, middle, a, s, d, slope)
        advance(h, slope, x[0], new)

    def jacobian(p, x, h, new, J):
        rows, vectors = scratch(3 * layers + 1, width, h[0]), scratch(3, SIZE, h[0])
        a, s, d, bend = rows[:layers], rows[layers:2 * layers], rows[2 * layers:3 * layers], rows[3 * layers]
        middle, slope, ones = vectors[0], vectors[1], vectors[2]
        Z, matrices = scratch(layers * width, SIZE, h[0]), scratch(3 * SIZE, SIZE, h[0])
        second, half_way, product = matrices[:SIZE], matrices[SIZE:2 * SIZE], matrices[2 * SIZE:]
        evaluate(p, h, a, s, d, slope)
        advance(h, slope, 0.5 * x[0], middle)
        hessian(p, s, d, Z, bend, second)
        identity_plus(second, 0.5 * x[0], half_way)
        evaluate(p, middle, a, s, d, slope)
        hessian(p, s, d, Z, bend, second)
        for i in range(SIZE):
            ones[i] = 1.0
        clear(product)
        add_product(second, ones, half_way, product)
        identity_plus(product, x[0], J)

    def pullback(p, x, h, new, v, dp, dx, dh):
        rows, vectors = scratch(8 * layers, width, h[0]), scratch(6, SIZE, h[0])
        a, s, d = rows[:layers], rows[layers:2 * layers], rows[2 * layers:3 * layers]
        a_middle, s_middle, d_middle = rows[3 * layers:4 * layers], rows[4 * layers:5 * layers], rows[5 * layers:6 * layers]
        da, dd = rows[6 * layers:7 * layers], rows[7 * layers:]
        middle, slope, slope_middle, y, first, second = (
            vectors[0], vectors[1], vectors[2], vectors[3], vectors[4], vectors[5])
        evaluate(p, h, a, s, d, slope)
        advance(h, slope, 0.5 * x[0], middle)
        evaluate(p, middle, a_middle, s_middle, d_middle, slope_middle)
        turn_back(v, x[0], y)
        along(p, s_middle, d_middle, y, da, dd, second)
        add_gradients(p, middle, y, a_middle, d_middle, da, dd, dp)
        turn_back(second, 0.5 * x[0], y)
        along(p, s, d, y, da, dd, first)
        add_gradients(p, h, y, a, d, da, dd, dp)
        dx[0] = 0.0
        for i in range(SIZE):
            dx[0] += v[i] * slope_middle[i] + 0.5 * second[i] * slope[i]
            dh[i] = v[i] + second[i] + first[i]

    return ps.cells.custom(step, SIZE, 1, parameters=shapes(width, layers), jacobian=jacobian, pullback=pullback)
