"""Memory that a process keeps."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
import pitsolve as ps

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        arrays = [np.ones(size) for size in (3 << 20, 5 << 20)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
if ps.training.keep_memory():
    faults()
    print(returned, faults())
"""


def test_arrays_of_the_same_sizes_fault_once():
    output = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    if not output:
        pytest.skip("not glibc")
    returned, kept = map(int, output.split())
    assert kept < max(10, returned / 20)
