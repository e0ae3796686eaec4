"""The affine scan on the device against the naive loop."""

import importlib

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose

from pitsolve.backends.cuda import dense_reduce, dense_scan, tiled_reduce
from pitsolve.backends.cuda.launch import device

verb = importlib.import_module("pitsolve.backends.cuda.scan")  # the package has a function of that name
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One warp a block and short chunks, so that few steps are several tiles and groups of tiles, or levels of chunks."""
    monkeypatch.setattr(verb, "_THREADS", {4: 32, 8: 32})
    monkeypatch.setattr(verb, "_WALK_THREADS", 32)
    monkeypatch.setattr(verb, "_WALK_STEPS", 0)
    monkeypatch.setattr(dense_reduce, "_THREADS", 32)
    for name, value in (("_THREADS", 32), ("_LARGE_THREADS", 64), ("_LENGTH", 4)):
        monkeypatch.setattr(dense_scan, name, value)


@pytest.fixture
def large(monkeypatch):
    """Blocks of four rows and more are large."""
    monkeypatch.setattr(dense_scan, "_OF_A_WARP", 3)
    monkeypatch.setattr(dense_scan, "UNROLLED", ())


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
@pytest.mark.parametrize("shape", [(1, 257, 16), (2, 130, 3), (1, 1, 4), (2, 33, 20)])
def test_tiles_of_channels_equal_the_naive_loop(shape, reverse, dtype):
    check(*draw(shape, dtype), reverse=reverse)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1, 1700, 1), (3, 515, 1), (4, 1, 1), (5, 31, 1)])
def test_tiles_of_time_equal_the_naive_loop(shape, reverse, dtype):
    check(*draw(shape, dtype), reverse=reverse)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 21, 8), (2, 21, 5), (1, 1, 1)])
def test_walks_of_many_channels_equal_the_naive_loop(shape, reverse, dtype, monkeypatch):
    monkeypatch.setattr(verb, "_WALK_CHANNELS", 0)
    check(*draw(shape, dtype), [3] * shape[0] if shape[1] > 3 else None, reverse=reverse)


@pytest.mark.parametrize(("reverse", "transpose", "dtype"), [
    (False, False, np.float32), (True, True, np.float32), (False, True, np.float64), (True, False, np.float64)])
@pytest.mark.parametrize(("K", "M", "steps"), [
    (1, 2, 33), (2, 3, 32), (1, 4, 61), (3, 5, 9), (1, 8, 12), (1, 16, 1), (1, 17, 9)])
def test_blocks_equal_the_naive_loop(K, M, steps, reverse, transpose, dtype):
    check(*draw((2, steps, K * M), dtype, (K, M)), reverse=reverse, transpose=transpose)


@pytest.mark.parametrize("most", [0, 1000])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_large_blocks_equal_the_naive_loop(reverse, transpose, most, large, monkeypatch):
    monkeypatch.setattr(dense_scan, "_SIDE_BY_SIDE", most)
    check(*draw((2, 14, 10), np.float32, (2, 5)), [0, 6], [13, 11], reverse=reverse, transpose=transpose)


@pytest.mark.parametrize("transpose", [False, True])
def test_groups_of_columns_equal_the_naive_loop(transpose, large, monkeypatch):
    monkeypatch.setattr(tiled_reduce, "_SHARED_BYTES", 3000)
    assert tiled_reduce.layout(9, 8)["WIDTH"] == 8
    check(*draw((1, 10, 9), np.float64, (1, 9)), transpose=transpose)


@pytest.mark.parametrize("itemsize", [4, 8])
def test_tiles_fit_shared_memory_and_a_block_of_threads(itemsize):
    for block in range(2, 129):
        found = tiled_reduce.layout(block, itemsize)
        assert (found["PANELS"] + found["OF_COLUMNS"] + found["LINES"]) * itemsize <= 48 << 10
        assert block <= found["THREADS"] <= 544 and found["TILES"] * 16 >= block * found["WIDTH"]


@pytest.mark.parametrize(("reverse", "in_place"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize(("shape", "blocks"), [
    ((4, 150, 4), None), ((4, 310, 1), None), ((4, 70, 6), (2, 3))])
def test_each_row_runs_in_its_own_range(shape, blocks, reverse, in_place):
    steps = shape[1]
    check(*draw(shape, np.float64, blocks), [0, 31, 40, 9], [steps, steps - 2, 40, 65], reverse, in_place=in_place)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_is_launched_for_nothing(shape):
    assert on_device(*draw(shape, np.float32)).shape == shape


def overflowing(shape, reverse):
    """Products that overflow where the states, all of them moderate, do not; the last third is a scan of its own."""
    A, b = np.full(shape, 1e30, np.float32), np.zeros(shape, np.float32)
    middle = shape[1] * 2 // 3
    A[:, middle:] = 0.5
    A[:, middle], b[:, middle] = 0.0, 3.0
    b[:, 7::50] = 1.0
    A[:, 8::50] = 0.0
    return (A[:, ::-1].copy(), b[:, ::-1].copy()) if reverse else (A, b)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1, 400, 4), (1, 700, 1)])
def test_products_that_overflow_do_not_spoil_finite_states(shape, reverse):
    A, b = overflowing(shape, reverse)
    check(A, b, np.zeros((shape[0], shape[2]), np.float32), reverse=reverse, in_place=True)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("K", "M"), [(1, 2), (2, 3)])
def test_products_of_blocks_that_overflow_do_not_spoil_finite_states(K, M, reverse):
    a, b = overflowing((1, 60, K * M), reverse)
    A = a.reshape(1, 60, K, M, 1) * np.eye(M, dtype=np.float32)
    check(A, b, np.zeros((1, K * M), np.float32), [3], [51], reverse=reverse, in_place=True)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("reverse", [False, True])
def test_products_of_large_blocks_that_overflow_do_not_spoil_finite_states(reverse, large):
    test_products_of_blocks_that_overflow_do_not_spoil_finite_states(1, 4, reverse)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("n", [1, 4])
def test_states_that_overflow_are_not_finite(n):
    y = on_device(np.full((1, 300, n), 1e10, np.float32), np.ones((1, 300, n), np.float32), np.zeros((1, n), np.float32))
    assert np.isfinite(y[:, :4]).all() and not np.isfinite(y[:, 4:]).any()


def test_a_state_of_all_ones_bits_does_not_stop_later_tiles():
    """The unwritten word is a NaN, which an input may hold."""
    for dtype, integer in ((np.float32, np.int32), (np.float64, np.int64)):
        A, b, y0 = draw((1, 1500, 1), dtype)
        A[0, 3] = b[0, 3] = np.array(-1, integer).view(dtype)
        assert np.isnan(on_device(A, b, y0)[0, 3:]).all()
