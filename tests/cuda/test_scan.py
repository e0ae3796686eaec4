"""The affine scan on the device against the naive loop."""

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal

from pitsolve.backends.cuda import scan as verb
from pitsolve.backends.cuda.launch import device

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One warp a block, so that a few hundred steps are several tiles and groups of tiles."""
    monkeypatch.setattr(verb, "_THREADS", 32)
    monkeypatch.setattr(verb, "_WALK_THREADS", 32)
    monkeypatch.setattr(verb, "_WALK_STEPS", 0)


def draw(shape, dtype, blocks=None):
    """Random contractions, vectors and first states; ``blocks`` is (K, M)."""
    random = np.random.default_rng(sum(shape))
    K, M = blocks or (shape[-1], 1)
    A = random.normal(size=(*shape[:2], K, M, M)) * 0.6 / np.sqrt(M)
    A = A if blocks else A.reshape(shape)
    return [array.astype(dtype) for array in (A, random.normal(size=shape), random.normal(size=(shape[0], shape[2])))]


def on_device(A, b, y0, start=None, stop=None, in_place=False, **options):
    """``out``, which was 7 everywhere or ``b`` itself."""
    batch, steps = b.shape[:2]
    start = np.zeros(batch, np.int64) if start is None else np.array(start)
    stop = np.full(batch, steps) if stop is None else np.array(stop)
    A, b, y0, out = map(device().upload, (A, b, y0, np.full_like(b, 7.0)))
    out = b if in_place else out
    verb.scan(A, b, y0, out, start, stop, **options)
    return device().download(out)


def check(A, b, y0, start=None, stop=None, reverse=False, transpose=False, in_place=False):
    batch, steps = b.shape[:2]
    start, stop = start or [0] * batch, stop or [steps] * batch
    out = on_device(A, b, y0, start, stop, in_place, reverse=reverse, transpose=transpose)
    for r in range(batch):
        expected = b[r].copy() if in_place else np.full_like(b[r], 7.0)
        inside = slice(start[r], stop[r])
        expected[inside] = reference.affine_scan(A[r], b[r], y0[r], reverse, transpose, start[r], stop[r])[inside]
        tolerance = TOLERANCE[b.dtype.type]
        assert_allclose(out[r], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 257, 8), (1, 600, 16), (1, 130, 3), (3, 31, 5), (1, 1, 4), (2, 33, 20), (1, 32, 17)])
def test_tiles_of_channels_equal_the_naive_loop(shape, reverse, dtype):
    check(*draw(shape, dtype), reverse=reverse)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1, 1700, 1), (3, 515, 1), (4, 1, 1), (5, 31, 1)])
def test_tiles_of_time_equal_the_naive_loop(shape, reverse, dtype):
    check(*draw(shape, dtype), reverse=reverse)
