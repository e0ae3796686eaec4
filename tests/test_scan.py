"""The affine scan and its operator, against naive loops and by their algebra."""

import doctest

import numba
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import pitsolve.scan
from pitsolve.backends.cpu.scan import scan
from pitsolve.scan import affine_scan, compose

dtypes = st.sampled_from([np.float32, np.float64])
kinds = st.sampled_from(["diagonal", "dense", "blocks"])
seeds = st.integers(0, 2**32 - 1)
SIZES = {"diagonal": [1, 20], "dense": [1, 5], "blocks": [6]}  # few: each is compiled for both dtypes and directions


def matrices(generator, shape, kind, dtype):
    """Random matrices for vectors of the given shape, with norms around 0.7."""
    n = shape[-1]
    size = {"diagonal": 1, "dense": n, "blocks": 2}[kind]
    form = {"diagonal": (n,), "dense": (n, n), "blocks": (n // 2, 2, 2)}[kind]
    return (generator.standard_normal(shape[:-1] + form) * 0.5 / np.sqrt(size)).astype(dtype)


def problem(seed, shape, kind, dtype):
    generator = np.random.default_rng(seed)
    b = generator.standard_normal(shape).astype(dtype)
    y0 = generator.standard_normal(shape[:-2] + shape[-1:]).astype(dtype)
    return matrices(generator, shape, kind, dtype), b, y0


def close(actual, expected):
    tolerance = 2e-5 if actual.dtype == np.float32 else 1e-12
    assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def draw_size(data, kind):
    return data.draw(st.sampled_from(SIZES[kind]))


@given(st.data(), kinds, dtypes, seeds, st.booleans(), st.sampled_from([1, 2, 31, 32, 33, 257]),
       st.sampled_from([(), (3,), (2, 2)]))
def test_scan_equals_the_naive_loop(data, kind, dtype, seed, reverse, steps, batch):
    A, b, y0 = problem(seed, (*batch, steps, draw_size(data, kind)), kind, dtype)
    y = affine_scan(A, b, y0, reverse=reverse)
    assert y.dtype == dtype
    close(y, reference.affine_scan_batch(A, b, y0, reverse))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("kind", "n", "steps"), [
    ("diagonal", 1, 70001), ("diagonal", 20, 4099), ("blocks", 6, 10007)])
def test_scan_over_several_chunks_equals_the_naive_loop(kind, n, steps, reverse):
    A, b, y0 = problem(7, (steps, n), kind, np.float64)
    close(affine_scan(A, b, y0, reverse=reverse), reference.affine_scan(A, b, y0, reverse))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 5, 3), (4, 0)])
def test_scan_of_nothing_is_empty(shape):
    for kind in ("diagonal", "dense"):
        A, b, y0 = problem(5, shape, kind, np.float32)
        assert affine_scan(A, b, y0).shape == shape


@given(st.data(), kinds, dtypes, seeds, st.booleans())
def test_initial_state_is_zero_by_default(data, kind, dtype, seed, reverse):
    A, b, y0 = problem(seed, (2, 9, draw_size(data, kind)), kind, dtype)
    assert_array_equal(affine_scan(A, b, reverse=reverse), affine_scan(A, b, 0 * y0, reverse=reverse))


@given(st.data(), kinds, dtypes, seeds, st.integers(0, 40))
def test_scan_of_a_whole_is_the_scan_of_its_parts(data, kind, dtype, seed, cut):
    A, b, y0 = problem(seed, (40, draw_size(data, kind)), kind, dtype)
    first = affine_scan(A[:cut], b[:cut], y0)
    second = affine_scan(A[cut:], b[cut:], first[-1] if cut else y0)
    close(affine_scan(A, b, y0), np.concatenate([first, second]))


@given(st.data(), kinds, dtypes, seeds)
def test_reverse_is_forward_on_flipped_time(data, kind, dtype, seed):
    A, b, y0 = problem(seed, (37, draw_size(data, kind)), kind, dtype)
    close(affine_scan(A, b, y0, reverse=True), affine_scan(A[::-1], b[::-1], y0)[::-1])


@given(st.data(), kinds, dtypes, seeds)
def test_scan_is_a_fold_of_compose(data, kind, dtype, seed):
    A, b, y0 = problem(seed, (12, draw_size(data, kind)), kind, dtype)
    total = A[0], b[0]
    for t in range(1, 12):
        total = compose(total, (A[t], b[t]))
    last_state = reference.dense_matrix(total[0], b.shape[-1]) @ y0 + total[1]
    close(affine_scan(A, b, y0)[-1], last_state)


@given(st.data(), kinds, dtypes, seeds)
def test_compose_equals_the_naive_product(data, kind, dtype, seed):
    A, b, _ = problem(seed, (2, draw_size(data, kind)), kind, dtype)
    n = b.shape[-1]
    composed = compose((A[0], b[0]), (A[1], b[1]))
    expected = reference.compose(*((reference.dense_matrix(A[t].astype(float), n), b[t]) for t in range(2)))
    close(reference.dense_matrix(composed[0], n), expected[0])
    close(composed[1], expected[1])


@given(st.data(), kinds, dtypes, seeds)
def test_compose_is_associative(data, kind, dtype, seed):
    A, b, _ = problem(seed, (3, 5, draw_size(data, kind)), kind, dtype)
    first, second, third = ((A[k], b[k]) for k in range(3))
    left = compose(compose(first, second), third)
    right = compose(first, compose(second, third))
    for x, y in zip(left, right, strict=True):
        close(x, y)


@given(kinds, dtypes, seeds)
def test_compose_with_the_identity_changes_nothing(kind, dtype, seed):
    A, b, _ = problem(seed, (6, 4), kind, dtype)
    one = {"diagonal": np.ones(4), "dense": np.eye(4), "blocks": np.array([np.eye(2)] * 2)}[kind]
    identity = np.broadcast_to(one, A.shape).astype(dtype), np.zeros_like(b)
    for pair in (compose(identity, (A, b)), compose((A, b), identity)):
        close(pair[0], A)
        close(pair[1], b)


@given(st.data(), st.sampled_from([(20, 1), (3, 2), (17, 3), (1, 5)]),
       seeds, st.booleans(), st.booleans())
def test_verb_runs_each_row_in_its_own_range(data, form, seed, reverse, transpose):
    K, M = form
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((3, 50, K, M, M)) * 0.5 / np.sqrt(M)
    b = generator.standard_normal((3, 50, K * M))
    y0 = generator.standard_normal((3, K * M))
    bounds = np.sort(data.draw(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=3, max_size=3)), 1)
    start, stop = bounds[:, 0].copy(), bounds[:, 1].copy()
    out = np.full_like(b, 7.0)
    scan(A, b, y0, out, start, stop, reverse, transpose)
    in_place = b.copy()
    scan(A, in_place, y0, in_place, start, stop, reverse, transpose)
    for r in range(3):
        inside = slice(start[r], stop[r])
        expected = reference.affine_scan(A[r], b[r], y0[r], reverse, transpose, start[r], stop[r])
        close(out[r, inside], expected[inside])
        assert_array_equal(in_place[r, inside], out[r, inside])
        outside = np.ones(50, bool)
        outside[inside] = False
        assert (out[r, outside] == 7.0).all()
        assert_array_equal(in_place[r, outside], b[r, outside])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("K", "M", "steps"), [(3, 2, 8000), (17, 3, 900)])
def test_verb_ranges_and_transposes_across_chunks(K, M, steps, reverse):
    generator = np.random.default_rng(11)
    A = generator.standard_normal((1, steps, K, M, M)) * 0.5 / np.sqrt(M)
    b = generator.standard_normal((1, steps, K * M))
    y0 = generator.standard_normal((1, K * M))
    start, stop = steps // 7, steps - steps // 5
    expected = reference.affine_scan(A[0], b[0], y0[0], reverse, True, start, stop)
    scan(A, b, y0, b, np.array([start]), np.array([stop]), reverse, True)
    close(b[0, start:stop], expected[start:stop])


@pytest.mark.parametrize(("kind", "n", "steps"), [
    ("diagonal", 1, 300_000), ("diagonal", 20, 20_000), ("blocks", 6, 30_000), ("dense", 5, 500)])
def test_number_of_threads_changes_no_bit(kind, n, steps):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    A, b, y0 = problem(13, (steps, n), kind, np.float32)
    threads = numba.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(affine_scan(A, b, y0))
    finally:
        numba.set_num_threads(threads)
    assert_array_equal(*results)


@pytest.mark.parametrize(("n", "steps"), [(1, 64), (1, 80_000), (20, 6000)])
@pytest.mark.parametrize("reverse", [False, True])
def test_products_that_overflow_do_not_spoil_finite_states(n, steps, reverse):
    A = np.full((steps, n), 1e30, np.float32)
    b = np.zeros((steps, n), np.float32)
    middle = steps // 2
    A[middle] = 0.0
    b[middle, :] = 3.0
    after = slice(0, middle) if reverse else slice(middle + 1, steps)
    A[after] = 0.5
    y = affine_scan(A, b, reverse=reverse)
    close(y, reference.affine_scan(A, b, reverse=reverse))


def test_overflow_of_the_states_is_not_finite_and_not_an_error():
    y = affine_scan(np.full((50, 1), 1e10, np.float32), np.ones((50, 1), np.float32))
    assert np.isfinite(y[:3]).all() and not np.isfinite(y[4:]).any()


@given(st.data(), kinds, dtypes, seeds)
def test_strided_and_read_only_input_is_accepted(data, kind, dtype, seed):
    A, b, y0 = problem(seed, (3, 20, draw_size(data, kind)), kind, dtype)
    expected = affine_scan(A, b, y0)
    strided = np.asfortranarray(A), np.repeat(b, 2, axis=1)[:, ::2], np.repeat(y0, 2, axis=0)[::2]
    for array in strided:
        array.setflags(write=False)
    assert_array_equal(affine_scan(*strided), expected)


def good(**changes):
    arguments = {"A": np.zeros((5, 2)), "b": np.zeros((5, 2)), "y0": np.zeros(2)} | changes
    return lambda: affine_scan(arguments.pop("A"), arguments.pop("b"), arguments.pop("y0"), **arguments)


@pytest.mark.parametrize(("call", "error", "message"), [
    (good(A=np.zeros((5, 2), int)), TypeError, "A must be an array of float32 or float64, got .*int64"),
    (good(b=np.zeros((5, 2), complex)), TypeError, "b must be .*complex128"),
    (good(y0=[None, 1.0]), TypeError, "y0 must be .*object"),
    (good(b=[[1.0], [1.0, 2.0]]), TypeError, "b must be .* got list"),
    (good(b=None), TypeError, "b must be .*NoneType"),
    (good(A=np.zeros((5, 2), np.float32)), TypeError, "mixes float32 and float64.*A"),
    (good(b=np.zeros(5)), ValueError, r"b must have at least 2 axes .* got shape \(5,\)"),
    (good(A=np.zeros(5)), ValueError, "A must have as many axes as b"),
    (good(A=np.zeros((4, 2))), ValueError, r"A must have shape \(5, 2\).*got \(4, 2\)"),
    (good(A=np.zeros((5, 2, 3))), ValueError, r"A must have shape \(5, 2, 2\).*got \(5, 2, 3\)"),
    (good(A=np.zeros((5, 3, 1, 1))), ValueError, r"A must have shape .*k m = 2.*got \(5, 3, 1, 1\)"),
    (good(y0=np.zeros(3)), ValueError, r"y0 must have shape \(2,\).*got \(3,\)"),
    (good(reverse=1), TypeError, "reverse must be True or False, got 1"),
    (good(backend="gpu"), ValueError, "backend must be one of .*got 'gpu'"),
    (good(b=np.array([[0.0, 1.0], [np.nan, 0.0]]), A=np.zeros((2, 2))), ValueError,
     r"b must be finite, got nan at index \(1, 0\)"),
    (good(A=np.full((5, 2), np.inf)), ValueError, r"A must be finite, got inf at index \(0, 0\)"),
    (good(y0=np.array([0.0, np.nan])), ValueError, "y0 must be finite, got nan at index 1"),
    (lambda: compose(np.zeros(2), (np.zeros(2), np.zeros(2))), TypeError, "earlier must be a pair"),
    (lambda: compose((np.zeros(2), np.zeros(2)), (np.zeros(3), np.zeros(3))), ValueError, r"later\[1\] must have"),
    (lambda: compose((np.zeros(2), np.zeros(2)), (np.zeros((2, 2)), np.zeros(2))), ValueError, r"later\[0\] must have"),
    (lambda: compose((np.zeros(2), np.zeros(2)), (np.zeros(2), np.zeros(2, np.float32))), TypeError, "mixes"),
])
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(pitsolve.scan).failed == 0
