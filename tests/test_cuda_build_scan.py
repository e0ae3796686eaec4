"""Kernels of the scan and of the correction that it makes, built offline."""

import numpy as np
import offline
import pytest

from pitsolve.backends.cuda import filter, pointwise
from pitsolve.backends.cuda.scan import scan

both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
architectures = pytest.mark.parametrize("capability", offline.ARCHITECTURES)
START, STOP = np.zeros(2, np.int64), np.full(2, 300)


def run(shape, dtype, blocks=None, reverse=False, transpose=False):
    A, b = np.zeros((*shape[:2], *blocks, blocks[1]) if blocks else shape, dtype), np.zeros(shape, dtype)
    scan(A, b, np.zeros((shape[0], shape[2]), dtype), b, START[:shape[0]], STOP[:shape[0]], reverse, transpose)


@both
@architectures
@pytest.mark.parametrize(("n", "reverse"), [(1, False), (1, True), (3, False), (4, True), (8, False), (16, True)])
def test_tiles_need_no_stack(n, reverse, dtype, capability):
    offline.check(lambda: run((2, 300, n), dtype, reverse=reverse), capability)


@both
@architectures
@pytest.mark.parametrize("n", [16_000, 16_001])
def test_walks_need_no_stack(n, dtype, capability):
    offline.check(lambda: run((2, 10, n), dtype, reverse=True), capability)


@both
@architectures
@pytest.mark.parametrize(("M", "transpose"), [(2, False), (3, True), (4, True), (7, False), (8, False), (12, True), (16, False),
                                              (17, True), (32, False), (40, True), (64, False), (128, True)])
def test_scans_of_blocks_need_no_stack(M, transpose, dtype, capability):
    offline.check(lambda: run((2, 300, M), dtype, (1, M), transpose=transpose), capability)


@both
@architectures
def test_corrections_need_few_registers(dtype, capability):
    def verbs():
        states, slab = np.zeros((2, 50, 6), dtype), np.zeros((2, 30, 6), dtype)
        pointwise.measure(slab, states, 1e-6, 5, START, STOP)
        pointwise.update(states, slab, 5, START, STOP)
        filter.gains(slab, slab, np.zeros((2, 6), dtype), np.ones(2), START, STOP)
        for m in (3, 100):
            jacobian, covariance = np.zeros((2, 30, 1, m, m), dtype), np.zeros((2, 1, m, m), dtype)
            filter.gains(jacobian, np.zeros((2, 30, m), dtype), covariance, np.ones(2), START, STOP)

    offline.check(verbs, capability)
