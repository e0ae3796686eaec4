"""Make ``tests/pymgrit_histories.py``: residual histories of PyMGRIT, stored so that tests need no PyMGRIT.

Run once, where pymgrit and mpi4py with an MPI library are installed::

    python tests/data/make_pymgrit_histories.py

PyMGRIT 1.0.6 calls ``np.in1d``, which NumPy has no more. Grids of level l + 1 are every m_l-th point of level l, by index.
The steps of the GRU take their index and ratio from the times, which are the integers 0 ... N.
"""

import logging
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
np.in1d = np.isin

import reference_multigrid as twin  # noqa: E402
from pymgrit.core.application import Application  # noqa: E402
from pymgrit.core.mgrit import Mgrit  # noqa: E402
from pymgrit.core.vector import Vector  # noqa: E402
from pymgrit.dahlquist.dahlquist import Dahlquist  # noqa: E402
from pymgrit_histories import Setting, gru_problem  # noqa: E402

MODULE = TESTS / "pymgrit_histories.py"


class State(Vector):
    """One state of the GRU."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def __add__(self, other):
        return State(self.value + other.value)

    def __sub__(self, other):
        return State(self.value - other.value)

    def __mul__(self, other):
        return State(self.value * other)

    def norm(self):
        return np.linalg.norm(self.value)

    def clone(self):
        return State(self.value.copy())

    def clone_zero(self):
        return State(np.zeros_like(self.value))

    def clone_rand(self):
        return State(np.random.rand(*self.value.shape))

    def set_values(self, value):
        self.value = value

    def get_values(self):
        return self.value

    def pack(self):
        return self.value

    def unpack(self, value):
        self.value = value


class Network(Application):
    """A GRU whose times are the integers."""

    def __init__(self, step, params, x, h0, **options):
        super().__init__(**options)
        self.cell, self.params, self.x = step, params, x
        self.vector_template, self.vector_t_start = State(np.zeros_like(h0)), State(h0)

    def step(self, u_start, t_start, t_stop):
        return State(self.cell(self.params, self.x[round(t_start)], u_start.value, round(t_stop - t_start)))


def application(setting, times):
    """The problem of a setting on the given times."""
    if setting.problem == "dahlquist":
        return Dahlquist(t_interval=times)
    step = {"implicit": twin.implicit_gru, "power": twin.power_gru}[setting.problem]
    return Network(step, *gru_problem(setting.steps), t_interval=times)


def history(setting):
    """What PyMGRIT reports after each cycle."""
    times = np.linspace(0, setting.end, setting.steps + 1)
    levels = [application(setting, times[::stride]) for stride in twin.strides(setting.coarsening)]
    solver = Mgrit(levels, weight_c=setting.weight, max_iter=setting.cycles, tol=setting.tol,
                   nested_iteration=setting.nested, cf_iter=setting.relaxations, cycle_type=setting.cycle,
                   logging_lvl=logging.ERROR)
    return solver.solve()["conv"]


def settings():
    """Every setting, once."""
    yield Setting("dahlquist", 100, 5.0, (2,))  # the example of PyMGRIT's README
    for levels in (2, 3, 4, 5):
        for relaxations in (0, 1):
            for cycle in ("V", "F") if levels > 2 else ("V",):
                for nested in (True, False):
                    for weight in (1.0, 1.3) if relaxations else (1.0,):
                        yield Setting("dahlquist", 1024, 10.0, (4,) * (levels - 1), relaxations, cycle, nested, weight)
    yield Setting("dahlquist", 1024, 10.0, (4, 4), 2)
    yield Setting("dahlquist", 1000, 10.0, (3, 5, 2))
    for problem in ("implicit", "power"):
        for steps, coarsening in ((64, (4, 4)), (71, (4, 3)), (50, (3, 2, 2))):
            for relaxations in (0, 1):
                for cycle, nested in (("V", True), ("F", False)):
                    yield Setting(problem, steps, float(steps), coarsening, relaxations, cycle, nested)


def main():
    """Write the dictionary behind the head of the module."""
    lines = []
    for setting in settings():
        fields = ", ".join(repr(value) for value in setting).replace("'", '"')
        numbers = [repr(float(value)) for value in history(setting)]
        rows = [", ".join(numbers[i:i + 4]) for i in range(0, len(numbers), 4)]
        lines.append(f"    Setting({fields}): (\n" + "".join(f"        {row},\n" for row in rows) + "    ),\n")
    head = MODULE.read_text().split("\nHISTORIES = ")[0]
    MODULE.write_text(head + "\nHISTORIES = {\n" + "".join(lines) + "}\n")


if __name__ == "__main__":
    main()
