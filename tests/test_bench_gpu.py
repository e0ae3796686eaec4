"""``python -m bench gpu`` has to work on the first card that it meets: it runs in the simulator, and is broken on purpose."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bench import gpu, gpu_peers
from bench.gpu_settings import Settings

ROOT = Path(__file__).parents[1]
TINY = Settings(True, False, False)


def row(name):
    return {"name": name, "measured": 1.0, "unit": "error", "target": None, "verdict": "-"}


def test_every_part_runs_in_the_simulator(tmp_path):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "bench", "gpu", "--quick", "--output", str(tmp_path)], cwd=ROOT,
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    result = json.loads((tmp_path / "gpu-simulator.json").read_text())
    parts = result["parts"]
    assert set(gpu.PARTS) < set(parts) and "first runs" not in parts
    assert {"check:LSTM", "check:scans", "check:schwarz", "check:others"} < set(parts)
    for name, part in parts.items():
        assert part["rows"], name
        for line in part["rows"]:
            assert "failed" not in line and line["verdict"] != "missed", (name, line, part.get("log"))


def test_a_case_that_fails_is_a_row_and_the_next_ones_run(tmp_path, monkeypatch):
    def fails():
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    cases = [("first", lambda: [row("first")]), ("second", fails), ("third", lambda: [row("third")])]
    monkeypatch.setattr(gpu, "_cases", lambda part, settings: cases)
    gpu._measure("scans", tmp_path / "rows", TINY, 60.0, None)
    found = gpu._read(tmp_path / "rows")
    assert [line["name"] for line in found] == ["first", "second", "third"]
    assert "ILLEGAL_ADDRESS" in found[1]["failed"]
    gpu._measure("scans", tmp_path / "rows", TINY, -1.0, 2)
    assert [line["failed"] for line in gpu._read(tmp_path / "rows")] == ["not begun within -1 s"]


@pytest.mark.skipif(os.name != "posix", reason="the program that stands for Python is a shell script")
@pytest.mark.parametrize(("end", "failure"), [("exec sleep 600", "no end within 3 s"), ("exit 3", "the process ended with 3")])
def test_what_a_process_measured_outlives_it(tmp_path, monkeypatch, end, failure):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho '[{json.dumps(row('measured'))}]' > $4\nprintf '[{{\"na' >> $4\n{end}\n")
    script.chmod(0o755)
    monkeypatch.setattr(gpu, "sys", types.SimpleNamespace(executable=str(script)))
    monkeypatch.setattr(gpu, "GRACE", 2)
    found = gpu._in_a_process("scans", TINY, tmp_path, 1.0)
    assert [line["name"] for line in found["rows"]] == ["measured", "scans"]
    assert found["rows"][1]["failed"] == failure


def test_the_sums_of_cupy_run_along_time_and_say_why_they_cannot(monkeypatch):
    b, synchronised = np.arange(12.0).reshape(2, 3, 2), []
    monkeypatch.setattr(gpu_peers, "cupy", None)
    assert [peer.reason for peer in gpu_peers.cupy_sums(b)] == ["not installed"] * 2
    card = types.SimpleNamespace(is_available=lambda: False,
                                 Device=lambda: types.SimpleNamespace(synchronize=lambda: synchronised.append(1)))
    monkeypatch.setattr(gpu_peers, "cupy", types.SimpleNamespace(asarray=np.asarray, cumsum=np.cumsum, cuda=card))
    assert [peer.reason for peer in gpu_peers.cupy_sums(b)] == ["installed without CUDA"] * 2
    card.is_available = lambda: True
    sums, copy = gpu_peers.cupy_sums(b)
    np.testing.assert_array_equal(sums.call()[:, 2], b.sum(axis=1))
    np.testing.assert_array_equal(copy.call(), b)
    assert len(synchronised) == 2
