"""The CUDA backend on this card: every verb checked, then timed against the memory bandwidth, predictions and peers.

Each part runs in a process of its own with a time limit, so that a kernel that never ends costs its part and nothing else.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine

SEED = 20931
# seconds of each part; together below eight minutes
PARTS = {"limits": 30, "check": 90, "progress": 25, "sequential": 40, "scans": 70, "newton": 110, "windows": 70,
         "gradients": 40}


def _rows(part: str, quick: bool) -> dict[str, Any]:
    """What one part measured."""
    import importlib

    return getattr(importlib.import_module("bench.gpu_parts"), part)(quick)


def _in_a_process(part: str, quick: bool, limit: float) -> dict[str, Any]:
    """Run a part under its time limit; what went wrong is a row too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.json"
        command = [sys.executable, "-m", "bench.gpu", part, str(path), *(["--quick"] if quick else [])]
        try:
            done = subprocess.run(command, timeout=limit, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return {"rows": [machine.row(part, None, "-", failed=f"no end within {limit:.0f} s")]}
        print(done.stdout, end="", flush=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"rows": [machine.row(part, None, "-", failed=reason)], "log": done.stderr[-4000:]}
        return json.loads(path.read_text())


def run(quick: bool) -> dict[str, Any]:
    """All parts, and the rows that have a target once more at the end."""
    from pitsolve.backends.cuda.launch import unavailable

    reason = unavailable()
    if reason:
        raise SystemExit(f"python -m bench gpu: {reason}")
    started, parts = time.monotonic(), {}
    for part, limit in PARTS.items():
        parts[part] = _in_a_process(part, quick, limit if not quick else 600)
        print(f"  [{time.monotonic() - started:.0f} s]", flush=True)
    targets = [row for part in parts.values() for row in part["rows"] if row["target"] is not None or "failed" in row]
    machine.print_table("targets", targets)
    name = re.sub(r"[^a-z0-9]+", "-", parts["limits"].get("device", "unknown").lower()).strip("-")
    return {"file": f"gpu-{name}", "seconds": time.monotonic() - started, "parts": parts}


def timed(call, repeats: int) -> tuple[float, Any]:
    """Median seconds until the card is done, after one call that compiles, and the last result."""
    from pitsolve.backends.cuda.launch import cuda

    result = call()
    cuda.synchronize()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("path", type=Path)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    chosen.path.write_text(json.dumps(_rows(chosen.part, chosen.quick)))
