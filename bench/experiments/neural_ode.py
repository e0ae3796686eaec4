"""Two usual ways to train a neural ODE, for comparison: scipy's RK45, and one of two gradients.

RK45 chooses its steps for all rows of a batch together and interpolates the states at the points of the data. ``adjoint``
integrates the adjoint equation: with f = (dH/dp, -dH/dq) and a loss L of the states at t_1 ... t_T,

    du/dt = f(u),    dlambda/dt = -(df/du)^T lambda,    dmu/dt = -(df/dtheta)^T lambda,

the last two from t_T back to t_0 = 0, where lambda jumps by dL/du_i at every t_i; dL/dtheta is mu at t_0. As in the libraries,
u is integrated backward too, and set to what the forward pass found at every t_i. ``unroll`` differentiates the steps that
the forward pass took, their lengths held fixed, and the interpolation between them.
"""

from typing import NamedTuple

import numpy as np
from scipy.integrate import RK45

from bench.experiments.hamiltonian import HALF, SIZE

TOLERANCE = 1.4e-8  # of jax.experimental.ode.odeint, relative and absolute


class Layers(NamedTuple):
    """Of each hidden layer: a (none for the last one), s and d of hamiltonian.py."""

    values: list[np.ndarray]
    slopes: list[np.ndarray]
    gradients: list[np.ndarray]


def field(params: dict[str, np.ndarray], u: np.ndarray) -> tuple[np.ndarray, Layers]:
    """f at u (B, 8), and what its derivatives need."""
    hidden, last = params["weight"], len(params["bias"]) - 1
    values, slopes, a = [], [], u
    for layer in range(last + 1):
        power = np.exp(a @ (hidden[layer - 1] if layer else params["weight_in"]) + params["bias"][layer])
        slopes.append(power / (1.0 + power))
        if layer < last:
            a = np.log1p(power)
            values.append(a)
    gradients = [params["weight_out"] * slopes[last]]
    for layer in range(last, 0, -1):
        gradients.insert(0, gradients[0] @ hidden[layer - 1].T * slopes[layer - 1])
    dH = gradients[0] @ params["weight_in"].T
    return np.concatenate([dH[:, HALF:], -dH[:, :HALF]], axis=1), Layers(values, slopes, gradients)


def pullback(params: dict[str, np.ndarray], u: np.ndarray, layers: Layers, v: np.ndarray):
    """(df/du)^T v (B, 8), and (df/dtheta)^T v by parameter, summed over the batch."""
    values, slopes, gradients = layers
    hidden, last = params["weight"], len(slopes) - 1
    y = np.concatenate([-v[:, HALF:], v[:, :HALF]], axis=1)
    tangents, bent, a = [], [], y  # a' and d' along y
    for layer in range(last + 1):
        z = a @ (hidden[layer - 1] if layer else params["weight_in"])
        bent.append(gradients[layer] * (1.0 - slopes[layer]) * z)
        a = slopes[layer] * z
        tangents.append(a)
    for layer in range(last, 0, -1):
        bent[layer - 1] += bent[layer] @ hidden[layer - 1].T * slopes[layer - 1]
    between = [tangents[i].T @ gradients[i + 1] + values[i].T @ bent[i + 1] for i in range(last)]
    return bent[0] @ params["weight_in"].T, {
        "weight_in": y.T @ gradients[0] + u.T @ bent[0],
        "weight": np.stack(between) if between else np.zeros_like(hidden),
        "bias": np.stack([one.sum(axis=0) for one in bent]), "weight_out": tangents[last].sum(axis=0)}


class Step(NamedTuple):
    """One step of RK45 over all rows: where it began, its length, u there (B, 8), the seven slopes (7, B, 8) at its stages."""

    begin: float
    length: float
    u: np.ndarray
    slopes: np.ndarray

    def stage(self, number: int) -> np.ndarray:
        """u at which a slope was evaluated; the last of the seven is the end of the step."""
        weights = RK45.A[number] if number < len(RK45.A) else RK45.B
        return self.u + self.length * np.tensordot(weights[:number], self.slopes[:number], 1)

    def weights(self, times: np.ndarray) -> np.ndarray:
        """What each slope counts for in the interpolated states (times, 7)."""
        powers = ((times - self.begin) / self.length)[:, None] ** np.arange(1, RK45.P.shape[1] + 1)
        return self.length * powers @ RK45.P.T


def points(step: Step, dt: float, steps: int) -> slice:
    """The points of the grid that a step passes over, and reaches; the last step reaches the end whatever the rounding."""
    first, last = (int(np.floor(t / dt * (1.0 + 1e-12))) for t in (step.begin, step.begin + step.length))
    return slice(first, min(last, steps))


def integrate(params: dict[str, np.ndarray], u0: np.ndarray, steps: int, dt: float) -> tuple[np.ndarray, list[Step], int]:
    """States (B, T, 8) at dt ... T dt, the steps that led there, and how often f was evaluated."""
    solver = RK45(lambda t, u: field(params, u.reshape(u0.shape))[0].ravel(), 0.0, u0.ravel(), steps * dt,
                  rtol=TOLERANCE, atol=TOLERANCE)
    states, taken = np.empty((len(u0), steps, SIZE)), []
    while solver.status == "running":
        before = solver.y.reshape(u0.shape)
        message = solver.step()
        if solver.status == "failed":
            raise RuntimeError(f"RK45 did not reach the end: {message}")
        taken.append(Step(solver.t_old, solver.t - solver.t_old, before, solver.K.reshape(-1, *u0.shape).copy()))
        passed = points(taken[-1], dt, steps)
        weights = taken[-1].weights(dt * np.arange(passed.start + 1, passed.stop + 1))
        states[:, passed] = before[:, None] + np.tensordot(weights, taken[-1].slopes, 1).transpose(1, 0, 2)
    return states, taken, solver.nfev


def unroll(params: dict[str, np.ndarray], taken: list[Step], dstates: np.ndarray, dt: float):
    """dL/dtheta by parameter from dL/du at every point, and the pullbacks of f that it took."""
    totals = {name: np.zeros_like(array) for name, array in params.items()}
    carried, pullbacks = np.zeros_like(taken[-1].u), 0
    for step in reversed(taken):
        passed = points(step, dt, dstates.shape[1])
        arriving, times = dstates[:, passed], dt * np.arange(passed.start + 1, passed.stop + 1)
        dslopes = np.tensordot(step.weights(times), arriving, (0, 1))
        dslopes[:-1] += step.length * RK45.B[:, None, None] * carried
        carried = carried + arriving.sum(axis=1)
        for number in reversed(range(len(dslopes))):
            u = step.stage(number)
            du, dtheta = pullback(params, u, field(params, u)[1], dslopes[number])
            carried += du
            weights = RK45.A[number] if number < len(RK45.A) else RK45.B
            dslopes[:number] += step.length * weights[:number, None, None] * du
            for name, array in dtheta.items():
                totals[name] += array
            pullbacks += 1
    return totals, pullbacks


def adjoint(params: dict[str, np.ndarray], states: np.ndarray, dstates: np.ndarray, dt: float):
    """dL/dtheta by parameter from dL/du at every step, and the evaluations of the adjoint equation that it took."""
    batch, steps, count = states.shape[0], states.shape[1], states.shape[0] * SIZE
    names, evaluations, ahead = list(params), 0, dt

    def backward(s: float, z: np.ndarray) -> np.ndarray:
        u, carried = z[:count].reshape(batch, SIZE), z[count:2 * count].reshape(batch, SIZE)
        f, layers = field(params, u)
        du, dtheta = pullback(params, u, layers, carried)
        return np.concatenate([-f.ravel(), du.ravel(), *(dtheta[name].ravel() for name in names)])

    z = np.zeros(2 * count + sum(array.size for array in params.values()))
    for t in reversed(range(steps)):
        z[:count] = states[:, t].ravel()
        z[count:2 * count] += dstates[:, t].ravel()
        solver = RK45(backward, 0.0, z, dt, rtol=TOLERANCE, atol=TOLERANCE, first_step=min(ahead, dt))
        while solver.status == "running":
            message = solver.step()
        if solver.status == "failed":
            raise RuntimeError(f"RK45 did not reach step {t}: {message}")
        z, ahead, evaluations = solver.y, solver.h_abs, evaluations + solver.nfev
    parts = np.split(z[2 * count:], np.cumsum([params[name].size for name in names])[:-1])
    return {name: part.reshape(params[name].shape) for name, part in zip(names, parts)}, evaluations
