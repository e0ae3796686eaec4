"""Operations on whole arrays on the device against the same ones of the CPU."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench import gpu_check
from bench.gpu_settings import Settings
from pitsolve.backends.cpu import arrays as host
from pitsolve.backends.cuda import arrays, launch, pointwise
from pitsolve.backends.cuda.launch import Kernel, device

RANDOM = np.random.default_rng(3)
VALUES = RANDOM.normal(size=(3, 7, 5))
ROW, AT = np.array([2, 0, 1, 1]), np.array([6, 0, 3, -1])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(arrays, "_THREADS", 32)


def same(verb, *arguments):
    """The result of a verb on the device and on the host, given NumPy arrays (copied where they are changed)."""
    there = [device().upload(a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments]
    here = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    results = getattr(arrays, verb)(*there), getattr(host, verb)(*here)
    if results[0] is None:  # it changes its first argument
        results = there[0], here[0]
    got, expected = (result if isinstance(result, tuple) else (result,) for result in results)
    for one, other in zip(got, expected, strict=True):
        one = device().download(one) if hasattr(one, "copy_to_host") else one
        np.testing.assert_allclose(one, other, rtol=1e-6 if np.asarray(one).dtype == np.float32 else 1e-14, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 31, 257])
def test_magnitude_is_the_largest_absolute_value(dtype, size):
    values = np.random.default_rng(3).normal(size=size).astype(dtype)
    assert pointwise.magnitude(device().upload(values)) == np.abs(values).max()


def test_magnitude_of_nan_is_nan():
    assert np.isnan(pointwise.magnitude(device().upload(np.array([1.0, -np.nan, np.inf]))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_verbs_that_read(dtype):
    values, rows = VALUES.astype(dtype), VALUES[:, 0].astype(dtype)
    same("copy", values)
    same("at_step", values, 4)
    same("take", values, ROW[:3], AT[:3])
    same("take", values, ROW, AT, rows)
    same("rows", values, ROW)
    same("combine", 0.5, values, -2.0, values[::-1].copy())
    same("squares", rows)
    same("squares", rows, rows[::-1].copy())
    same("largest", rows)
    same("finite", values)
    assert arrays.dot(device().upload(values), device().upload(values)) == pytest.approx(float((values**2).sum()), rel=1e-6)


def test_verbs_that_write():
    rows = VALUES[:, 0].copy()
    same("put", VALUES, ROW[:3], AT[:3], -rows)
    same("put", VALUES, ROW[:3], AT[:3], -rows, np.array([2, 2, 0]))
    same("put", VALUES, ROW[:2], AT[:2], rows, np.array([1, 2]), 0.25 * rows[:2])
    same("put_rows", VALUES, np.array([2, 0]), VALUES[:2])
    same("spread", VALUES, rows)
    for begin in (-2, 0, 3, 9):
        same("copy_steps", VALUES, VALUES[::-1].copy(), begin)
        same("add_steps", VALUES[:, :4].copy(), VALUES, begin)
    same("clear_after", VALUES, np.array([7, 0, 3]))
    same("scale", VALUES, 0.25)


def test_zeros_and_empty_arrays():
    assert not device().download(arrays.zeros((3, 40), np.float32)).any()
    none = device().upload(np.zeros((0, 5)))
    assert arrays.squares(none).shape == arrays.largest(none).shape == arrays.mismatch(none, none)[0].shape == (0,)
    assert arrays.take(device().upload(VALUES), ROW[:0], AT[:0]).shape == (0, 5)


def test_places_beyond_32_bits_are_found(monkeypatch):
    launched = []
    monkeypatch.setattr(Kernel, "__call__", lambda kernel, blocks, threads, *arguments: launched.append(arguments))
    size = 1 << 31
    values = SimpleNamespace(shape=(1, size, 8), size=8 * size, dtype=np.dtype(np.float32), reshape=lambda *shape: None)
    arrays.clear_after(values, np.array([size - 5]))
    _, first, _, numbers, width = launched[0]
    assert int(device().download(first)[0]) * width == 8 * size - 40 and numbers == 8 * size


def test_memory_that_runs_out_says_what_was_asked_for(monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    memory = SimpleNamespace(get_memory_info=lambda: SimpleNamespace(free=3 << 20))
    monkeypatch.setattr(launch.cuda, "device_array", refuse)
    monkeypatch.setattr(launch.cuda, "current_context", lambda: memory)
    for verb in (lambda: arrays.empty((1024, 1024), np.float32), lambda: arrays.from_host(np.zeros((1024, 1024), np.float32))):
        with pytest.raises(MemoryError, match=r"3 MiB free.*\(1024, 1024\) and dtype float32 takes 4 MiB"):
            verb()


def test_the_check_of_memory_in_the_benchmark_passes_where_memory_runs_out(monkeypatch):
    empty = arrays.empty

    def limited(shape, dtype):
        if shape == (1 << 41,):
            raise MemoryError
        return empty(shape, dtype)

    monkeypatch.setattr(arrays, "empty", limited)
    assert [row["verdict"] for row in gpu_check._memory(Settings(quick=True, once=False, simulated=False))] == ["met"]


def test_mismatch_tells_nan_that_was_there_from_nan_that_is_new():
    old = np.array([[1.0, 2.0], [np.nan, 1.0], [np.nan, 1.0], [0.0, 1.0], [3.0, np.inf]])
    new = np.array([[1.0, 2.5], [np.nan, 1.0], [np.nan, 2.0], [np.nan, 1.0], [3.0, 1.0]])
    same("mismatch", old, new)
