"""The ways to train a Hamiltonian network that are compared: what each makes of one batch."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import pitsolve as ps
from bench.experiments import hamiltonian, neural_ode

TOLERANCE = 1e-10  # of deer: a thousandth of what the midpoint rule neglects in a step
METHODS = {"deer": "pitsolve, deer", "sequential": "pitsolve, the loop",
           "rk45 adjoint": "RK45, adjoint equation", "rk45 unrolled": "RK45, its steps differentiated"}


class Batch(NamedTuple):
    """Initial states (B, 8), the orbits to follow (B, T, 8) and the time between two points."""

    u0: np.ndarray
    target: np.ndarray
    dt: float

    @property
    def inputs(self) -> np.ndarray:
        """The time steps, as the cell takes them."""
        return np.full((*self.target.shape[:2], 1), self.dt)


class Result(NamedTuple):
    """Loss, gradient by parameter, states, and what it took."""

    loss: float
    gradient: dict[str, np.ndarray]
    states: np.ndarray
    facts: dict[str, Any]


class Network(NamedTuple):
    """Sizes of the perceptron H."""

    width: int
    layers: int

    def solve(self, params: dict[str, np.ndarray], batch: Batch, method: str, guess: np.ndarray | None = None) -> ps.Solution:
        """The states of a batch by one of pitsolve's methods."""
        options = {"tol": TOLERANCE, "guess": guess} if method == "deer" else {}
        return ps.solve(hamiltonian.cell(*self), params, batch.inputs, batch.u0, method=method, **options)

    def evaluate(self, method: str, params: dict[str, np.ndarray], batch: Batch, guess: np.ndarray | None = None) -> Result:
        """Mean squared error over a batch, and its gradient."""
        start, worked = time.perf_counter(), time.process_time()
        if method.startswith("rk45"):
            states, taken, evaluations = neural_ode.integrate(params, batch.u0, batch.target.shape[1], batch.dt)
            facts = {"evaluations": evaluations}
        else:
            solution = self.solve(params, batch, method, guess)
            states = solution.states
            facts = {"iterations": float(np.mean(solution.iterations)), "most iterations": int(np.max(solution.iterations)),
                     "fallbacks": int(np.sum(solution.resumed_at < states.shape[1]))} if method == "deer" else {}
        error = states - batch.target
        loss, dstates = float(np.mean(error**2)), 2.0 * error / error.size
        between = time.perf_counter()
        if method == "rk45 adjoint":
            gradient, facts["pullbacks"] = neural_ode.adjoint(params, states, dstates, batch.dt)
        elif method == "rk45 unrolled":
            gradient, facts["pullbacks"] = neural_ode.unroll(params, taken, dstates, batch.dt)
        else:
            adjoint = "scan" if method == "deer" else "sequential"
            gradient = ps.gradient(hamiltonian.cell(*self), params, batch.inputs, solution, dstates, batch.u0,
                                   method=adjoint).params
        end, processor = time.perf_counter(), time.process_time() - worked
        return Result(loss, gradient, states,
                      {"forward": between - start, "backward": end - between, "processor": processor, **facts})


@dataclass
class Trainee:
    """One of the trainings that run side by side."""

    method: str
    network: Network
    params: dict[str, np.ndarray]
    optimizer: Any
    warm: np.ndarray | None = None  # (rows, points, 8): the last states of every row, a guess for the next
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.optimizer.init(self.params)

    def learn(self, batch: Batch, rows: np.ndarray) -> None:
        """One step of the optimiser on a batch made of these rows of the data."""
        length, start = batch.target.shape[1], time.perf_counter()
        guess = None if self.warm is None else self.warm[rows, :length]
        result = self.network.evaluate(self.method, self.params, batch, guess)
        self.params, self.state = self.optimizer.update(self.params, result.gradient, self.state)
        if self.warm is not None:
            self.warm[rows, :length], self.warm[rows, length:] = result.states, result.states[:, -1:]
        self.steps.append({"points": length, "loss": result.loss, "seconds": time.perf_counter() - start, **result.facts})
