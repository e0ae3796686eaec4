"""Tests of the CUDA backend: in the simulator (tests/test_cuda_simulator.py starts them there), or on a card."""

import sys

from pitsolve.backends.cuda.launch import SIMULATED

if SIMULATED:
    sys.setswitchinterval(1e-5)  # a barrier of the simulator waits for every thread of a block to get its turn
