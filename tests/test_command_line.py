"""The command line, in this process: what it prints, what it writes and how it refuses."""

import builtins
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pitsolve import Status, demo
from pitsolve import info as info_module
from pitsolve.__main__ import main
from pitsolve.solve import METHODS

ROWS = [method for method in METHODS if method != "auto"]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch, tmp_path):
    """One repeat is enough, and what is written by default goes to an empty folder."""
    monkeypatch.setattr(demo, "_REPEATS", 1)
    monkeypatch.setattr(demo, "_FEWEST", 1)
    monkeypatch.chdir(tmp_path)


def small(*more):
    return ["demo", "--steps", "300", "--hidden", "4", *more]


def refusal(capsys, arguments):
    """What stands on stderr after a call that must end with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    sentences = [line for line in captured.err.splitlines() if not line.startswith("... ")]  # progress
    assert len(sentences) == 1
    assert "Traceback" not in captured.err + captured.out
    return sentences[0]


@pytest.fixture
def without(monkeypatch):
    """Makes the import of a package fail."""

    def hide(package):
        original = builtins.__import__

        def refuse(name, *rest, **named):
            if name.split(".")[0] == package:
                raise ImportError(name)
            return original(name, *rest, **named)

        monkeypatch.setattr(builtins, "__import__", refuse)

    return hide


def first_words(text):
    return [line.split()[0] for line in text.splitlines() if line.split()]


def test_info(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["versions", "machine", "threads", "vectors", "cache", "cuda", "products"]
    assert not any("unknown" in line for line in lines)
    assert re.search(r"threading layer (omp|tbb|workqueue)", lines[2])
    assert "numba-cuda" in lines[5]


def test_info_survives_what_is_broken(monkeypatch):
    def broken():
        raise RuntimeError("no\nlocator")

    monkeypatch.setattr(info_module, "_cache", broken)
    assert "cache     unknown, RuntimeError: no locator" in info_module.info()


@pytest.mark.parametrize("platform, words", [("plan9", "no CUDA driver for plan9"), ("linux", "is not installed")])
def test_info_says_why_there_is_no_device(monkeypatch, platform, words):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(info_module, "_DRIVERS", {"linux": "libnothing.so.0"})
    assert words in info_module.info()


class Driver:
    """A CUDA driver of two devices, or one that refuses with an error code."""

    def __init__(self, code, devices):
        self.code, self.devices = code, devices

    def cuInit(self, flags):
        return self.code

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.devices)
        return self.code

    def cuGetErrorString(self, code, text):
        text._obj.value = b"no CUDA-capable device is detected"

    def cuDeviceGet(self, device, number):
        device._obj.value = number

    def cuDeviceGetName(self, text, size, device):
        text.value = self.devices[device.value].encode()


@pytest.mark.parametrize("driver, words", [
    (Driver(0, ["Alpha", "Beta"]), "Alpha, Beta; numba-cuda"),
    (Driver(0, []), "no device: the NVIDIA driver sees no device"),
    (Driver(100, []), "no device: the NVIDIA driver reports: no CUDA-capable device is detected (code 100)"),
])
def test_info_asks_the_driver(monkeypatch, driver, words):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(info_module.ctypes, "CDLL", lambda name: driver)
    assert words in info_module.info()


def test_demo(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "histories.png"
    assert main(small("--plot", str(figure))) == 0
    captured = capsys.readouterr()
    words = first_words(captured.out)
    assert words[words.index("sequential"):][:len(ROWS)] == ROWS
    assert captured.err.count("compiles") == len(ROWS)
    assert "Fastest forward here" in captured.out
    assert str(figure) in captured.out
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_demo_without_matplotlib(capsys, tmp_path, without):
    without("matplotlib")
    assert main(small("--plot", str(tmp_path / "x.png"))) == 0
    assert 'pip install "pitsolve[plot]"' in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_demo_with_progress_bar(capsys, monkeypatch, tmp_path, without):
    without("matplotlib")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(small("--plot", str(tmp_path / "x.png"))) == 0
    captured = capsys.readouterr()
    assert set(ROWS) <= set(first_words(captured.out))
    assert "(compiling)" in captured.err and "call/s" in captured.err + "call/s" * ("s/call" in captured.err)


def test_demo_without_tqdm(capsys, tmp_path, without):
    without("tqdm")
    assert main(small("--plot", str(tmp_path / "x.png"))) == 0
    assert "... sequential: the first call compiles" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [1e6, 1e38])
def test_demo_on_huge_values(capsys, tmp_path, without, scale):
    """Huge inputs saturate the gates and may make gradients infinite; every row is there all the same."""
    without("matplotlib")
    np.save(tmp_path / "x.npy", scale * np.random.default_rng(8).uniform(-3.0, 3.0, (200, 3)))
    assert main(["demo", "--input", str(tmp_path / "x.npy"), "--hidden", "4"]) == 0
    assert set(ROWS) <= set(first_words(capsys.readouterr().out))


def changed(monkeypatch, method, **fields):
    """Let the solver of the demo return other values in the solutions of one method."""
    original = demo.solve

    def solve(cell, params, x, *, method, only=method):
        solution = original(cell, params, x, method=method)
        return dataclasses.replace(solution, **fields) if method == only else solution

    monkeypatch.setattr(demo, "solve", solve)


def test_demo_says_where_a_method_gave_up(capsys, monkeypatch, without):
    without("matplotlib")
    changed(monkeypatch, "deer", status=Status.FALLBACK, resumed_at=57)
    assert main(small()) == 0
    assert capsys.readouterr().out.count("did not converge; sequential from step 57 on") == 1


def test_demo_refuses_a_model_that_overflows(capsys, monkeypatch):
    changed(monkeypatch, "sequential", status=Status.OVERFLOW)
    assert "overflows on this sequence" in refusal(capsys, small())


def test_demo_on_arrays_of_the_user(capsys, tmp_path, without):
    without("matplotlib")
    file, plot = tmp_path / "mine.npz", ["--plot", str(tmp_path / "x.png")]
    x = np.random.default_rng(5).integers(-3, 4, (2, 90, 3))
    np.savez(file, counts=x, other=np.zeros(3))
    assert main(["demo", "--input", str(file), "--key", "counts", "--hidden", "4", *plot]) == 0
    out = capsys.readouterr().out
    assert "counts of" in out and "2 sequences; this is the first one" in out and "converted from int64 to float32" in out
    assert "4 units on 90 steps of 3 channels" in out

    np.save(tmp_path / "plain.npy", x[0].astype(np.float32))
    assert main(["demo", "--input", str(tmp_path / "plain.npy"), "--steps", "50", "--hidden", "4", *plot]) == 0
    out = capsys.readouterr().out
    assert "note" not in out and "4 units on 50 steps of 3 channels" in out

    np.savez(tmp_path / "single.npz", only=x[0])
    assert main(["demo", "--input", str(tmp_path / "single.npz"), "--hidden", "4", *plot]) == 0
    assert "only of" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, words", [
    ([], "required"),
    (["dance"], "invalid choice: 'dance'"),
    (["demo", "--steps", "0"], "at least 1, got '0'"),
    (["demo", "--steps", "many"], "at least 1, got 'many'"),
    (["demo", "--hidden", "-2"], "at least 1, got '-2'"),
    (["demo", "--key", "X"], "--key needs --input"),
    (["demo", "--plot", "figure.doc"], ".png, .pdf, .svg, got 'figure.doc'"),
    (["demo", "--plot", "no/such/folder/figure.png"], "there is no folder"),
    (["demo", "--input", "no-such-file.npz"], "there is no file no-such-file.npz"),
    (["demo", "--steps", "99999999999999"], "not enough memory"),
])
def test_refused_arguments(capsys, arguments, words):
    assert words in refusal(capsys, arguments)


@pytest.mark.parametrize("array, more, words", [
    (np.zeros(5), [], "must have shape (T, m) or (N, T, m), got (5,)"),
    (np.zeros((0, 3)), [], "is empty, its shape is (0, 3)"),
    (np.zeros((5, 3), complex), [], "must hold real numbers, got dtype complex128"),
    (np.array([["a"]]), [], "must hold real numbers"),
    (np.array([[1.0, 2.0], [3.0, np.nan]]), [], "got nan at step 1, channel 1"),
    (np.array([[1.0, 1e300]]), [], "finite in float32, got 1e+300 at step 0, channel 1"),
    (np.array([[None]]), [], "cannot be read as a NumPy file"),
    (np.zeros((5, 3)), ["--steps", "6"], "--steps 6 is more than the 5 steps"),
    (np.zeros((5, 3)), ["--key", "X"], "--key is for .npz files"),
])
def test_refused_arrays(capsys, tmp_path, array, more, words):
    np.save(tmp_path / "x.npy", array)
    assert words in refusal(capsys, ["demo", "--hidden", "4", "--input", str(tmp_path / "x.npy"), *more])


def test_refused_files(capsys, tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((5, 3)), b=np.zeros((5, 3)))
    assert "holds a, b; choose one with --key" in refusal(capsys, ["demo", "--input", str(tmp_path / "two.npz")])
    assert "has no array 'c'; it holds a, b" in refusal(capsys, ["demo", "--input", str(tmp_path / "two.npz"), "--key", "c"])
    for name, content in {"text.npz": b"1,2\n3,4\n", "empty.npz": b"", "cut.npz": b"PK\x03\x04..."}.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as a NumPy file" in refusal(capsys, ["demo", "--input", str(tmp_path / name)])
    assert "a folder" in refusal(capsys, ["demo", "--input", str(tmp_path)])


def test_as_a_program():
    done = subprocess.run([sys.executable, "-m", "pitsolve", "demo", "--key", "X"], cwd=Path(__file__).parent.parent,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "python -m pitsolve demo: --key needs --input\n")
