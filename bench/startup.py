"""What a user waits for: import, and the first call in a new process with an empty and with a filled disk cache."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import machine

IMPORT_TARGET = 0.5
FIRST_SOLVE_TARGET = 1.5

_IMPORT = """
import json, time
start = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - start]))
"""
_FIRST = """
import json, time
import numpy as np
import pitsolve as ps
cell = ps.cells.GRU(input_size=32, hidden_size=32)
params = cell.init(seed=20931, dtype=np.float32)
x = np.sin(np.arange(32000, dtype=np.float32)).reshape(1000, 32)
times = [time.perf_counter()]
solution = ps.solve(cell, params, x, method="{method}")
times.append(time.perf_counter())
ps.gradient(cell, params, x, solution, solution.states)
times.append(time.perf_counter())
print(json.dumps([times[1] - times[0], times[2] - times[1]]))
"""


def _process(script: str, cache: str) -> list[float]:
    """Run a script in a new process, with the repository as its working directory, and read the seconds it prints."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=Path(__file__).parent.parent,
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _import_rows(cache: str, repeats: int) -> list[dict[str, Any]]:
    """The whole of pitsolve, and the part of it that is numba and NumPy."""
    rows = []
    for module, target in (("pitsolve", IMPORT_TARGET), ("numba", None)):
        times = [_process(_IMPORT.format(module=module), cache)[0] for _ in range(repeats)]
        rows.append(machine.row(f"import {module}", statistics.median(times), "s", target, smaller=True,
                                minimum=min(times)))
    return rows


def _first_rows(method: str, repeats: int) -> list[dict[str, Any]]:
    """The first ``solve`` and ``gradient`` of a process: cold in an empty cache folder, then warm."""
    with tempfile.TemporaryDirectory() as cache:
        cold = _process(_FIRST.format(method=method), cache)
        warm = [_process(_FIRST.format(method=method), cache) for _ in range(repeats)]
    rows = []
    for i, call in enumerate(("solve", "gradient")):
        times = [seconds[i] for seconds in warm]
        target = FIRST_SOLVE_TARGET if call == "solve" else None
        rows.append(machine.row(f"first {call}, {method}, cold", cold[i], "s"))
        rows.append(machine.row(f"first {call}, {method}, warm cache", statistics.median(times), "s", target,
                                smaller=True, minimum=min(times)))
    return rows


def run(quick: bool) -> dict[str, Any]:
    """Import time and first calls."""
    repeats = 1 if quick else 5
    with tempfile.TemporaryDirectory() as cache:
        rows = _import_rows(cache, repeats)
    for method in ("sequential",) if quick else ("sequential", "deer", "quasi-deer", "elk", "quasi-elk", "picard"):
        rows += _first_rows(method, repeats)
    machine.print_table("seconds a user waits", rows)
    return {"rows": rows}
