"""The calls of the CUDA backend on the arrays that Numba has on a card: their methods are fewer than those of NumPy's arrays.

The simulator has NumPy arrays in their place. Here the arrays are the real ones, around memory that is not there; nothing runs.
"""

import contextlib
import gc
import threading
import time
import types
import weakref

import numpy as np
import pytest
from numba.cuda import api, dispatcher
from numba.cuda.cudadrv import devicearray, devices
from offline import Recorder

import pitsolve as ps
from pitsolve.backends import cpu, cuda
from pitsolve.backends.cuda import foreign, launch

CELLS = {"gru": ps.cells.GRU(3, 8), "one unit": ps.cells.GRU(1, 1), "heads": ps.cells.GRU(3, 8, heads=8),
         "lstm": ps.cells.LSTM(3, 40), "wide": ps.cells.GRU(3, 160), "lem": ps.cells.LEM(2, 3)}
METHODS = ("sequential", "picard", "deer", "quasi-deer", "elk", "quasi-elk", "shooting", "mgrit", "parareal")


class Memory:
    """So many bytes, which are nowhere."""

    device_ctypes_pointer = types.SimpleNamespace(value=1 << 20)

    def view(self, start, stop=None):
        return self


class Bare(Recorder):
    """A device whose arrays are Numba's; what is read from it is zero, or -1 where that says that nothing was found."""

    nothing = (np.int64,)

    def empty(self, shape, dtype):
        strides = np.cumprod([np.dtype(dtype).itemsize, *reversed(shape[1:])])[::-1].tolist() if shape else ()
        return devicearray.DeviceNDArray(shape, strides, dtype, gpu_data=Memory())

    def preset(self, array):
        assert array.nbytes == array.size * array.dtype.itemsize

    def upload(self, host):
        return self.empty(host.shape, host.dtype)

    def download(self, array):
        assert isinstance(array, devicearray.DeviceNDArray)
        return np.full(array.shape, -1 if array.dtype in self.nothing else 0, array.dtype)

    def launch(self, kernel, blocks, threads, arguments):
        assert all(count > 0 for count in (blocks if isinstance(blocks, tuple) else (blocks,)))
        for argument in arguments:
            assert isinstance(argument, np.number | devicearray.DeviceNDArray), argument
            if isinstance(argument, devicearray.DeviceNDArray):
                assert argument._numba_type_.layout == "C"
        self.launches[kernel.name] = None


@pytest.fixture
def card(monkeypatch):
    context = types.SimpleNamespace()
    monkeypatch.setattr(devices, "get_context", lambda *number: context)
    monkeypatch.setattr(devices._runtime, "ensure_context", lambda: contextlib.nullcontext(context))
    bare = Bare()
    monkeypatch.setattr(foreign, "device_for", lambda value: bare)
    return bare


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "steps"), [("gru", 0), ("gru", 1), *((name, 200) for name in CELLS)])
def test_every_method(card, name, steps):
    cell, params = CELLS[name], CELLS[name].init(seed=1, dtype=np.float32)
    x = np.zeros((2, steps, cell.input_size), np.float32)
    for method in METHODS[:-2] if name in ("lem", "lstm") else METHODS:
        for given in (x, card.upload(x)) if method == "deer" else (x,):
            solution = ps.solve(cell, params, given, method=method, backend="cuda", lengths=np.array([steps, steps // 2]),
                                max_iter=2)
            assert isinstance(solution.states, type(given))
    for given, dstates in ((x, np.zeros_like(solution.states)), (card.upload(x), card.upload(solution.states))):
        for adjoint in ("sequential", "scan", "shooting"):
            gradient = ps.gradient(cell, params, given, solution, dstates, method=adjoint, backend="cuda")
            assert isinstance(gradient.x, type(given))
    assert card.launches or steps == 0


@pytest.mark.parametrize("n", [1, 4, 40])
def test_windows_of_least_squares(card, n):
    problem = ps.leastsquares.BlockTridiagonal(np.tile(np.eye(n), (40, 1, 1)), np.zeros((39, n, n)), np.zeros((40, n)))
    card.nothing = np.int32, np.int64
    ps.schwarz_lstsq(problem, 4, backend="cuda", max_iter=2)
    assert card.launches


def test_a_launch_of_few_blocks_does_not_warn():
    dispatcher._LaunchConfiguration(None, (1, 1, 1), (32, 1, 1), 0, 0)


def test_arrays_that_run_backwards_are_read_forwards(card, monkeypatch):
    base, seen = Memory.device_ctypes_pointer.value, []

    def download(array):
        seen.append((array.__cuda_array_interface__["data"][0], array.strides))
        return np.arange(24.0).reshape(2, 4, 3)

    monkeypatch.setattr(card, "download", download)
    monkeypatch.setattr(card, "upload", lambda host: host)
    monkeypatch.setattr(api, "current_context", lambda: None)
    array = devicearray.DeviceNDArray((2, 4, 3), (96, -24, 8), np.float64, gpu_data=Memory())
    with launch.on(card):
        np.testing.assert_array_equal(foreign.wrap(array), np.arange(24.0).reshape(2, 4, 3)[:, ::-1])
    assert seen == [(base - 72, (96, 24, 8))]


@pytest.mark.parametrize(("own", "named", "waits"), [
    (0, 0, 0), (0, 1, 0), (0, 7, 1), (7, 7, 0), (7, 0, 0), (7, 1, 1), (7, 8, 1)])
def test_streams_that_other_arrays_name_are_waited_for(card, own, named, waits):
    class Stream(int):
        def synchronize(self):
            waited.append(self)

    waited, card.stream = [], Stream(own)
    array = card.empty((2, 3), np.float32).bind(Stream(named))
    with launch.on(card):
        assert foreign.wrap(array) is array
    assert waited == [named] * waits


def test_threads_launch_one_after_the_other():
    class Compiled(list):
        def __getitem__(self, configuration):
            return self.run

        def run(self):
            self.append("in")
            time.sleep(0.01)
            self.append("out")

    kernel = types.SimpleNamespace(compiled=Compiled())
    threads = [threading.Thread(target=launch.Device().launch, args=(kernel, 1, 32, ())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(kernel.compiled) == ["in", "out"] * 4


def test_memory_that_only_cycles_hold_is_found_before_it_runs_out(monkeypatch):
    def allocate(shape, dtype, stream):
        if held() is not None:
            raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        return "memory"

    monkeypatch.setattr(launch.cuda, "device_array", allocate)
    cycle = Memory()
    cycle.itself, held = cycle, weakref.ref(cycle)
    del cycle
    assert launch.Device().empty((2,), np.float32) == "memory"


@pytest.mark.parametrize("backend", [cpu, cuda], ids=lambda backend: backend.__name__.rpartition(".")[2])
@pytest.mark.parametrize("name", ["gru", "lem"])
def test_windows_go_with_their_model_without_a_search_for_cycles(card, name, backend):
    with launch.on(card):
        model = backend.bind(CELLS[name], CELLS[name].init(seed=1, dtype=np.float32), np.float32)
        windows = weakref.ref(model.windows)
    gc.disable()
    try:
        assert windows() is model.windows
        del model
        assert windows() is None
    finally:
        gc.enable()
