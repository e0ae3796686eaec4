"""Naive NumPy twins for differential equations: phi functions from scipy's expm, the loop of steps, DEER's own iteration."""

import numpy as np
from scipy.linalg import expm


def phi(A, order):
    """phi_1 or phi_2 of a matrix, as a block of the exponential of a larger one."""
    n = len(A)
    large = np.zeros((n * (order + 1),) * 2, np.result_type(A, float))
    large[:n, :n] = A
    for k in range(order):
        large[k * n:(k + 1) * n, (k + 1) * n:(k + 2) * n] = np.eye(n)
    return expm(large)[:n, -n:]


def step(f, jacobian, p, x, x_next, dt, u):
    """One exponential Rosenbrock-Euler step."""
    A = dt * jacobian(p, x, u)
    rise = f(p, x_next, u) - f(p, x, u)
    return u + dt * phi(A, 1) @ f(p, x, u) + dt * phi(A, 2) @ rise


def loop(f, jacobian, p, x, t, u0):
    """u at t_1 ... t_T; complex arguments take complex steps."""
    u, states = u0, []
    for i, dt in enumerate(np.diff(t)):
        u = step(f, jacobian, p, x[i], x[i + 1], dt, u)
        states.append(u)
    return np.array(states)


def deer_package(f, jacobian, p, x, t, u0, iterations, truncated=True):
    """The iteration of the authors' package: G and z averaged over a step, e^A by its Taylor polynomial of degree 4."""
    points, n = len(t), u0.size
    u = np.tile(u0, (points, 1))
    for _ in range(iterations):
        G = np.array([jacobian(p, x[i], u[i]) for i in range(points)])
        z = np.array([f(p, x[i], u[i]) - G[i] @ u[i] for i in range(points)])
        new = [u0]
        for i, dt in enumerate(np.diff(t)):
            A = 0.5 * dt * (G[i] + G[i + 1])
            H = np.eye(n) + A / 2 + A @ A / 6 + A @ A @ A / 24 if truncated else phi(A, 1)
            new.append(new[-1] + H @ (A @ new[-1] + 0.5 * dt * (z[i] + z[i + 1])))
        u = np.array(new)
    return u[1:]
