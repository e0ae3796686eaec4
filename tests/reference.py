"""Naive NumPy twins of what pitsolve computes: obvious loops, no tricks."""

import numpy as np


def dense_matrix(A, n):
    """The (n, n) matrix stored as a diagonal (n,), as itself (n, n), or as blocks (k, m, m)."""
    if A.ndim == 1:
        return np.diag(A)
    if A.ndim == 2:
        return A
    matrix = np.zeros((n, n), A.dtype)
    size = A.shape[-1]
    for k, block in enumerate(A):
        matrix[k * size:(k + 1) * size, k * size:(k + 1) * size] = block
    return matrix


def affine_scan(A, b, y0=None, reverse=False, transpose=False, start=0, stop=None):
    """y_t = A_t y_{t-1} + b_t for start <= t < stop of one sequence, in float64; zeros elsewhere."""
    steps, n = b.shape
    stop = steps if stop is None else stop
    y = np.zeros(n) if y0 is None else y0.astype(float)
    out = np.zeros((steps, n))
    for t in range(stop - 1, start - 1, -1) if reverse else range(start, stop):
        matrix = dense_matrix(A[t].astype(float), n)
        y = (matrix.T if transpose else matrix) @ y + b[t]
        out[t] = y
    return out


def affine_scan_batch(A, b, y0=None, reverse=False):
    """The same over any leading batch axes."""
    batch = b.shape[:-2]
    out = np.zeros(b.shape)
    for index in np.ndindex(batch):
        out[index] = affine_scan(A[index], b[index], None if y0 is None else y0[index], reverse)
    return out


def compose(earlier, later):
    """Apply the map ``earlier``, then the map ``later``, both as (matrix, vector)."""
    return later[0] @ earlier[0], later[0] @ earlier[1] + later[1]


# ---------------------------------------------------------------------------------------------------------------- cells


def sigmoid(z):
    return 0.5 + 0.5 * np.tanh(0.5 * z)


def elman(p, x, h):
    return np.tanh(p["weight_ih"] @ x + p["bias_ih"] + p["weight_hh"] @ h + p["bias_hh"])


def gru_gates(p, x, h):
    """Any number of heads: a unit sees the columns of ``weight_hh`` that its own head has."""
    n = h.size
    columns = p["weight_hh"].shape[1]
    hidden = np.zeros((3 * n, n), p["weight_hh"].dtype)
    for row in range(3 * n):
        first = row % n // columns * columns
        hidden[row, first:first + columns] = p["weight_hh"][row]
    a_r, a_z, a_n = np.split(p["weight_ih"] @ x + p["bias_ih"], 3)
    u_r, u_z, u_n = np.split(hidden @ h + p["bias_hh"], 3)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    return r, z, np.tanh(a_n + r * u_n)


def gru(p, x, h):
    _, z, c = gru_gates(p, x, h)
    return (1 - z) * c + z * h


def coarse_gru(ratio):
    """``ratio`` steps of a GRU with gates and input of the first."""
    def step(p, x, h):
        _, z, c = gru_gates(p, x, h)
        for _ in range(ratio):
            h = (1 - z) * c + z * h
        return h

    return step


def implicit_gru(ratio):
    def step(p, x, h):
        _, z, c = gru_gates(p, x, h)
        return (h + ratio * (1 - z) * c) / (1 + ratio * (1 - z))

    return step


def linear(p, x, h):
    return p["weight_ih"] @ x + p["bias_ih"] + p["weight_hh"] @ h + p["bias_hh"]


def ode(scheme, rhs, jacobian, dt):
    """One step of a scheme; ``rhs(p, x, u)`` returns du/dt and ``jacobian(p, x, u)`` its derivative by u."""
    def step(p, x, h):
        k = rhs(p, x, h)
        if scheme == "euler":
            return h + dt * k
        if scheme == "rk4":
            k2 = rhs(p, x, h + dt / 2 * k)
            k3 = rhs(p, x, h + dt / 2 * k2)
            return h + dt / 6 * (k + 2 * k2 + 2 * k3 + rhs(p, x, h + dt * k3))
        c = {"backward_euler": 1.0, "trapezoid": 0.5}[scheme]
        u = h
        for _ in range(30):  # in complex numbers too, so that complex steps through it are exact
            defect = u - h - dt * (c * rhs(p, x, u) + (1 - c) * k)
            u = u - np.linalg.solve(np.eye(h.size) - c * dt * jacobian(p, x, u), defect)
        return u

    return step


def lstm(p, x, h):
    h, c = np.split(h, 2)
    a_i, a_f, a_g, a_o = np.split(p["weight_ih"] @ x + p["bias_ih"] + p["weight_hh"] @ h + p["bias_hh"], 4)
    c = sigmoid(a_f) * c + sigmoid(a_i) * np.tanh(a_g)
    return np.concatenate([sigmoid(a_o) * np.tanh(c), c])


def lem(dt):
    def step(p, x, h):
        y, z = np.split(h, 2)
        v_1, v_2, v_z, v_y = np.split(p["weight_ih"] @ x + p["bias"], 4)
        w_1, w_2, w_z = np.split(p["weight_hh"] @ y, 3)
        dt_y, dt_z = dt * sigmoid(w_1 + v_1), dt * sigmoid(w_2 + v_2)
        z = (1 - dt_z) * z + dt_z * np.tanh(w_z + v_z)
        y = (1 - dt_y) * y + dt_y * np.tanh(p["weight_zy"] @ z + v_y)
        return np.concatenate([y, z])

    return step


def loop(step, params, x, h0):
    """h_1 ... h_T of one sequence, in double precision."""
    kind = complex if any(map(np.iscomplexobj, [*params.values(), x, h0])) else float
    params = {name: value.astype(kind) for name, value in params.items()}
    h, states = h0.astype(kind), np.zeros((len(x), h0.size), kind)
    for t in range(len(x)):
        h = states[t] = step(params, x[t], h)
    return states


def loop_batch(step, params, x, h0, lengths=None):
    """The same for a batch; zero past the end of each sequence."""
    states = np.zeros((*x.shape[:2], h0.shape[1]))
    for b in range(len(x)):
        stop = x.shape[1] if lengths is None else lengths[b]
        states[b, :stop] = loop(step, params, x[b, :stop], h0[b])
    return states


def slope(step, params, x, h0, dstates, by):
    """Derivative of sum(states * dstates) of one sequence in the direction ``by`` (keys of params, "x", "h0")."""
    tiny = 1e-150
    moved = params | {"x": x, "h0": h0}
    for name, direction in by.items():
        moved[name] = moved[name] + 1j * tiny * direction
    x, h0 = moved.pop("x"), moved.pop("h0")
    return np.sum(loop(step, moved, x, h0).imag / tiny * dstates)


def gradient(step, params, x, h0, dstates):
    """Gradient of sum(states * dstates) of one sequence, entry by entry, by complex steps through the whole loop."""
    result = {}
    for name, value in (params | {"x": x, "h0": h0}).items():
        result[name] = np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            direction = np.zeros(value.shape)
            direction[index] = 1.0
            result[name][index] = slope(step, params, x, h0, dstates, {name: direction})
    return result
