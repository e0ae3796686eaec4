"""Two bodies of mass one that attract each other with force 1 / r^2 (G = 1), in the plane of their orbit."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

TOLERANCE = 1e-9


class Data(NamedTuple):
    """States (rows, points + 1, 8) at t = 0, dt, ..., points dt: positions of both bodies, then velocities."""

    states: np.ndarray
    dt: float


def attraction(t: float, u: np.ndarray) -> np.ndarray:
    """du/dt."""
    apart = u[2:4] - u[0:2]
    pull = apart / math.hypot(*apart) ** 3
    return np.concatenate([u[4:8], pull, -pull])


def energy(u: np.ndarray) -> np.ndarray:
    """Kinetic and potential energy of states (..., 8)."""
    return 0.5 * (u[..., 4:] ** 2).sum(axis=-1) - 1.0 / np.hypot(u[..., 2] - u[..., 0], u[..., 3] - u[..., 1])


def initial_states(rows: int, seed: int) -> np.ndarray:
    """As in the paper: bodies opposite each other, slower than on a circle by a factor of 0.7 to 1."""
    random = np.random.default_rng(seed)
    radius, angle = random.uniform(0.5, 1.5, rows), random.uniform(-math.pi, math.pi, rows)
    speed = random.uniform(0.7, 1.0, rows) * 0.5 / np.sqrt(radius)
    outward = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    position, velocity = radius[:, None] * outward, speed[:, None] * outward[:, ::-1] * np.array([-1.0, 1.0])
    return np.concatenate([position, -position, velocity, -velocity], axis=1)


def generate(rows: int, points: int, horizon: float, seed: int) -> Data:
    """Orbits by scipy's RK45 with both tolerances 1e-9."""
    times = np.linspace(0.0, horizon, points + 1)
    orbits = [solve_ivp(attraction, (0.0, horizon), u0, t_eval=times, rtol=TOLERANCE, atol=TOLERANCE).y.T
              for u0 in initial_states(rows, seed)]
    return Data(np.stack(orbits), horizon / points)


def load(path: Path | None, rows: int, points: int, horizon: float, seed: int) -> Data:
    """The orbits in a file, if it holds these; otherwise they are generated, and written there if there is a path."""
    wanted = {"rows": rows, "points": points, "horizon": horizon, "seed": seed}
    if path is not None and path.exists():
        with np.load(path) as file:
            found = {name: file[name].item() for name in wanted}
            if found != wanted:
                raise ValueError(f"{path} holds orbits of {found}, expected {wanted}; delete it or name another file")
            return Data(file["states"], horizon / points)
    data = generate(**wanted)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, states=data.states, **wanted)
    return data
