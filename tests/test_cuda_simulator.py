"""The tests of the CUDA backend, each file in a process of its own in which Numba simulates CUDA."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "cuda"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_in_the_simulator(name):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1"}
    for inherited in [key for key in environment if key.startswith("PYTEST")]:
        del environment[inherited]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", str(FOLDER / name)]
    done = subprocess.run(command, cwd=FOLDER.parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
