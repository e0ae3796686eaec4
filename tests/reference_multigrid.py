"""Naive NumPy twins of multigrid in time (MGRIT, FAS form), parareal and the adjoint of both: obvious loops over points.

A level is a list of N_l + 1 states u_0 ... u_N; one of its steps spans S_l = m_0 ... m_{l-1} steps of level 0. The steps are
given as a list ``steps``, one function ``phi(u, i)`` a level, where ``i`` is always the index on level 0 at which the step
starts: ``phi`` sees the input x[i] (0-based), the one that takes state i to state i + 1 on level 0.
"""

from math import comb, factorial

import numpy as np
import reference

# ------------------------------------------------------------------------------------------------------------------ steps


def gru_gates(p, x, h):
    """r, z and n of the classic GRU at (x, h)."""
    a_r, a_z, a_n = np.split(p["weight_ih"] @ x + p["bias_ih"], 3)
    u_r, u_z, u_n = np.split(p["weight_hh"] @ h + p["bias_hh"], 3)
    r, z = reference.sigmoid(a_r + u_r), reference.sigmoid(a_z + u_z)
    return r, z, np.tanh(a_n + r * u_n)


def implicit_gru(p, x, h, ratio=1):
    """h' = (h + a n) / (1 + a), a = ratio (1 - z): linearly implicit, gates lagged (Moon and Cyr 2022)."""
    _, z, n = gru_gates(p, x, h)
    a = ratio * (1 - z)
    return (h + a * n) / (1 + a)


def power_gru(p, x, h, ratio=1):
    """h' = z^ratio h + (1 - z^ratio) n: ``ratio`` steps of the classic GRU with its gates frozen."""
    _, z, n = gru_gates(p, x, h)
    return z**ratio * h + (1 - z**ratio) * n


def cell_steps(step, params, x, coarsening):
    """phi of every level for a cell ``step(params, x_t, h, ratio)`` and one sequence x (T, m)."""
    return [lambda u, i, ratio=ratio: step(params, x[i], u, ratio) for ratio in strides(coarsening)]


def backward_euler(rate, dt, coarsening):
    """phi of every level for u' = rate u by backward Euler."""
    return [lambda u, i, ratio=ratio: u / (1 - ratio * dt * rate) for ratio in strides(coarsening)]


def jacobian(step, u):
    """d step(u) / du, column by column, by complex steps."""
    tiny = 1e-150
    matrix = np.zeros((u.size, u.size))
    for j in range(u.size):
        moved = u.astype(complex)
        moved[j] += 1j * tiny
        matrix[:, j] = step(moved).imag / tiny
    return matrix


# -------------------------------------------------------------------------------------------------------------- multigrid


def strides(coarsening):
    """S_l of every level: (4, 2) gives [1, 4, 8]."""
    result = [1]
    for m in coarsening:
        result.append(result[-1] * m)
    return result


def serial(phi, u0, length):
    """u_0 ... u_N of level 0."""
    u = [u0]
    for i in range(length):
        u.append(phi(u[i], i))
    return np.array(u)


def mgrit(steps, coarsening, u0, length, *, cycle="V", relaxations=1, weight=1.0, nested=True, skip=False, cycles=10,
          tol=0.0, guess=None, source=None):
    """States u_0 ... u_N (N = ``length``) and the residual norm after each cycle.

    ``relaxations`` is the k of (FC)^k F: 0 for F, 1 for FCF. ``cycle`` is "V" or "F", ``weight`` that of the C-relaxation.
    ``source`` holds g^0_0 ... g^0_N of A(u) = g. ``guess`` are starting values at all points, zeros by default.
    As in PyMGRIT, level 0 is not F-relaxed first from cycle 2 on, because cycle 1 ended with that.
    ``nested`` is PyMGRIT's nested iteration: solve on the coarsest level with g = 0, inject upwards, one V-cycle a level.
    ``skip`` is XBraid's skip_downcycle: cycle 1 solves on the coarsest level with g = 0 and walks upwards from there, by
    injection and F-relaxation; the guess does not matter then.
    The residual norm is the 2-norm over the C-points of level 0 of phi(u_{i-1}) + g_i - u_i; stop when it is below ``tol``.
    """
    spans = strides(coarsening)
    coarsest = len(coarsening)
    last = [length]
    for m in coarsening:
        last.append(last[-1] // m)
    u = [np.zeros((stop + 1, *np.shape(u0))) for stop in last]
    g = [np.zeros_like(level) for level in u]
    if guess is not None:
        u[0][:] = guess
    if source is not None:
        g[0][:] = source
    for level in u:
        level[0] = u0

    def step(level, i):
        """phi(u_{i-1}) + g_i on a level."""
        return g[level][i] + steps[level](u[level][i - 1], (i - 1) * spans[level])

    def is_c_point(level, i):
        return level == coarsest or i % coarsening[level] == 0

    def f_relax(level):
        for i in range(1, last[level] + 1):
            if not is_c_point(level, i):
                u[level][i] = step(level, i)

    def c_relax(level):
        new = u[level].copy()
        for i in range(1, last[level] + 1):
            if is_c_point(level, i):
                new[i] = weight * step(level, i) + (1 - weight) * u[level][i]
        u[level] = new

    def solve_coarsest():
        for i in range(1, last[coarsest] + 1):
            u[coarsest][i] = step(coarsest, i)

    def restrict(level):
        """Injection, and the FAS right-hand side; returns what was injected."""
        m = coarsening[level]
        v = np.array([u[level][k * m] for k in range(last[level + 1] + 1)])
        for k in range(1, last[level + 1] + 1):
            r = step(level, k * m) - u[level][k * m]
            g[level + 1][k] = r + v[k] - steps[level + 1](v[k - 1], (k - 1) * spans[level + 1])
        u[level + 1] = v.copy()
        return v

    def visit(level, kind, first_f):
        if level == coarsest:
            solve_coarsest()
            return
        if first_f:
            f_relax(level)
        for _ in range(relaxations):
            c_relax(level)
            f_relax(level)
        v = restrict(level)
        visit(level + 1, kind, True)
        for k in range(1, last[level + 1] + 1):
            u[level][k * coarsening[level]] += u[level + 1][k] - v[k]
        f_relax(level)
        if kind == "F" and level != 0:
            visit(level, "V", False)

    def inject_upwards(level):
        for k in range(1, last[level + 1] + 1):
            u[level][k * coarsening[level]] = u[level + 1][k]

    def residual_norm():
        total = 0.0
        for i in range(1, length + 1):
            if is_c_point(0, i):
                total += np.sum((step(0, i) - u[0][i]) ** 2)
        return np.sqrt(total)

    if nested and coarsest > 0:
        solve_coarsest()
        for level in reversed(range(coarsest)):
            inject_upwards(level)
            if level > 0:
                visit(level, "V", True)
    history = []
    for k in range(cycles):
        if skip and k == 0:
            for level in range(1, coarsest + 1):
                g[level][:] = 0
            solve_coarsest()
            for level in reversed(range(coarsest)):
                inject_upwards(level)
                f_relax(level)
        else:
            visit(0, cycle, k == 0)
        history.append(residual_norm())
        if history[-1] < tol:
            break
    return u[0], history


def adjoint_steps(steps, coarsening, states):
    """phi of every level for the adjoint equation in reversed time s = N - n.

    A level-l step from s to s + S is the transposed Jacobian of the level-l step that starts at n = N - s - S, taken at the
    level-0 state u_n, whatever the level: lambda_n = (d phi_l(u_n, n) / du)^T lambda_{n+S}.
    """
    length = len(states) - 1

    def transposed(level, span):
        def phi(adjoint, s):
            n = length - s - span
            return jacobian(lambda u: steps[level](u, n), states[n]).T @ adjoint

        return phi

    return [transposed(level, span) for level, span in enumerate(strides(coarsening))]


def adjoint_mgrit(steps, coarsening, states, dstates, **options):
    """lambda_0 ... lambda_N, lambda_n = dL/dh_n + J_n^T lambda_{n+1}, by :func:`mgrit` in reversed time.

    ``states`` are u_0 ... u_N and ``dstates`` the direct derivatives of the loss by each of them. C-points are counted from
    the end: they are n = N, N - m, N - 2m, ...
    """
    reverse = adjoint_steps(steps, coarsening, states)
    length = len(states) - 1
    adjoint, history = mgrit(reverse, coarsening, dstates[-1], length, source=dstates[::-1], **options)
    return adjoint[::-1], history


def parameter_gradient(step, params, x, states, adjoint):
    """sum_n (d step(params, x_n, u_n) / d params)^T lambda_{n+1}, entry by entry, by complex steps."""
    tiny = 1e-150
    result = {name: np.zeros(value.shape) for name, value in params.items()}
    for name, value in params.items():
        for index in np.ndindex(value.shape):
            moved = params | {name: value.astype(complex)}
            moved[name][index] += 1j * tiny
            for n in range(len(x)):
                result[name][index] += step(moved, x[n], states[n]).imag / tiny @ adjoint[n + 1]
    return result


# --------------------------------------------------------------------------------------------------------------- parareal


def parareal(fine, coarse, u0, windows, iterations):
    """U^0, U^1, ...: each the boundaries 0 ... windows after that many iterations (Algorithm 1 of Lee, Park and Lee)."""
    u = [u0]
    for n in range(windows):
        u.append(coarse(u[n], n))
    result = [np.array(u)]
    for _ in range(iterations):
        old, u = result[-1], [u0]
        for n in range(windows):
            u.append(coarse(u[n], n) + fine(old[n], n) - coarse(old[n], n))
        result.append(np.array(u))
    return result


# ----------------------------------------------------------------------------------- errors of scalar linear problems


def parareal_error(f, R, e0, k):
    """e^k_n, n = 0 ... N, for fine factor f, coarse factor R and the errors e0 of the start; k >= 1 (oracle O3)."""
    error = np.zeros(len(e0))
    for n in range(k + 1, len(e0)):
        for j in range(1, n - k + 1):
            error[n] += (f - R)**k * comb(n - j - 1, k - 1) * R**(n - j - k) * e0[j]
    return error


def superlinear_bound(f, R, windows, k):
    """Factor on max |e^0| that bounds max |e^k| on ``windows`` windows for |R| <= 1 (oracle O4)."""
    product = 1.0
    for j in range(1, k + 1):
        product *= windows - j
    return abs(f - R)**k / factorial(k) * product


def linear_bound(f, R, k):
    """Factor on sup |e^0| that bounds sup |e^k| for |R| < 1 and any number of windows (oracle O4)."""
    return (abs(f - R) / (1 - abs(R)))**k


def error_matrix(lam, mu, m, intervals, relaxation):
    """E with e^{k+1} = E e^k at the C-points 1 ... ``intervals``: two levels, factors lam and mu; "F" or "FCF" (oracle O5)."""
    matrix = np.zeros((intervals, intervals))
    for i in range(intervals):
        for j in range(i):
            if relaxation == "F":
                matrix[i, j] = (lam**m - mu) * mu**(i - j - 1)
            elif i >= j + 2:
                matrix[i, j] = (lam**m - mu) * lam**m * mu**(i - j - 2)
    return matrix


def error_norm_bound(lam, mu, m, intervals, relaxation):
    """Bound of the 2-norm of :func:`error_matrix` (oracle O5)."""
    if relaxation == "F":
        return abs(lam**m - mu) * (1 - abs(mu)**intervals) / (1 - abs(mu))
    return abs(lam**m - mu) * (1 - abs(mu)**(intervals - 1)) / (1 - abs(mu)) * abs(lam)**m
