"""The CUDA backend on this card: every verb checked, then timed against the memory bandwidth, predictions and peers.

Work is done in processes of their own with a time limit, which write every row as soon as they have it: a kernel that never
ends or a card that gives up costs what comes after it in that process, and nothing else. Checks run side by side, and so do
all timed parts once without a clock, because most of a first run is compilation; then they are timed, one after the other.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import machine
from bench.gpu_settings import Settings

WHOLE = 460  # seconds after which nothing more is begun or waited for
TOGETHER = 160  # seconds for checks and first runs, and how many processes at once
PROCESSES = 16
# seconds after which a part begins nothing more; it is ended GRACE later
PARTS = {"limits": 25, "progress": 45, "sequential": 25, "scans": 60, "newton": 80, "windows": 35, "gradients": 40}
GRACE = 15


def _cases(part: str, settings: Settings) -> list[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """What a part measures: names, and functions that give rows. ``check:NAME`` is a group of checks."""
    from bench import gpu_check, gpu_parts

    kind, _, group = part.partition(":")
    return gpu_check.groups(settings)[group] if kind == "check" else getattr(gpu_parts, kind)(settings)


def _measure(part: str, path: Path, settings: Settings, seconds: float, only: int | None) -> None:
    """The cases of a part, or one of them, into a file, a line each; what goes wrong is a row too."""
    if settings.simulated:
        from pitsolve.backends.cuda.small_blocks import use_small_blocks

        use_small_blocks(setattr)
    end = time.monotonic() + seconds
    with path.open("w") as file:
        for name, call in _cases(part, settings)[slice(only, None if only is None else only + 1)]:
            if time.monotonic() > end:
                rows = [machine.row(name, None, "-", failed=f"not begun within {seconds:.0f} s")]
            else:
                try:
                    rows = call()
                except Exception as error:
                    traceback.print_exc()
                    rows = [machine.row(name, None, "-", failed=f"{type(error).__name__}: {error}"[:300])]
            file.write(json.dumps(rows, default=float) + "\n")
            file.flush()


def _in_a_process(part: str, settings: Settings, folder: Path, seconds: float, only: int | None = None) -> dict[str, Any]:
    """Run a part under its time limit and collect its rows, as far as it came."""
    path = folder / f"{part.replace(':', '-')}-{only}-{settings.once}.jsonl"
    command = [sys.executable, "-m", "bench.gpu", part, str(path), "--seconds", str(seconds),
               *(["--quick"] if settings.quick else []), *(["--once"] if settings.once else []),
               *([] if only is None else ["--only", str(only)])]
    # JAX would take three quarters of the memory, and compile again what another process has compiled.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1"}
    if settings.once:
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.4"
    began, log = time.monotonic(), path.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        try:
            code = process.wait(seconds + GRACE)
            failure = None if code == 0 else f"the process ended with {code}"
        except subprocess.TimeoutExpired:
            failure = f"no end within {seconds + GRACE:.0f} s"
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold on to a process whose kernel does not end
                process.wait(5)
    rows = _read(path)
    if failure:
        rows.append(machine.row(part, None, "-", failed=failure))
    said = {"log": log.read_text()[-4000:]} if any("failed" in row for row in rows) else {}
    return {"rows": rows, "seconds": time.monotonic() - began, **said}


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of all whole lines of a file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows += json.loads(line)
        except json.JSONDecodeError:  # the process ended while it wrote
            break
    return rows


def _first_runs(settings: Settings, folder: Path, left: float) -> dict[str, dict[str, Any]]:
    """All checks and, once each, all cases to be timed, many processes at a time; what the checks found."""
    from bench import gpu_check

    checks = [(f"check:{group}", settings, None) for group in gpu_check.groups(settings)]
    once = settings._replace(once=True)
    later = [(part, once, only) for part in list(PARTS)[2:] for only in range(len(_cases(part, once)))]
    end = time.monotonic() + min(left, TOGETHER if not settings.simulated else left)

    def start(job):
        part, how, only = job
        seconds = end - time.monotonic()
        return _in_a_process(part, how, folder, seconds, only) if seconds > 0 else {
            "rows": [machine.row(part, None, "-", failed="no time was left")]}

    with ThreadPoolExecutor(1 if settings.simulated else min(PROCESSES, os.cpu_count() or 1)) as pool:
        found = list(pool.map(start, checks + (later[:1] if settings.simulated else later)))
    parts = {job[0]: result for job, result in zip(checks, found)}
    if failed := [row for result in found[len(checks):] for row in result["rows"] if "failed" in row]:
        parts["first runs"] = {"rows": failed}
    return parts


def run(quick: bool, save: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """All parts, and the rows that have a target or failed once more at the end; ``save`` gets what there is after each."""
    from pitsolve.backends.cuda.launch import SIMULATED, unavailable

    if reason := unavailable():
        raise SystemExit(f"python -m bench gpu: {reason}")
    settings = Settings(quick or SIMULATED, False, SIMULATED)
    started, parts = time.monotonic(), {}
    whole = WHOLE if not SIMULATED else 3600

    def result() -> dict[str, Any]:
        device = next((row["device"] for row in parts.get("limits", {"rows": []})["rows"] if "device" in row), "unknown")
        name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
        return {"file": f"gpu-{name}", "seconds": time.monotonic() - started, "parts": parts}

    def keep(found: dict[str, dict[str, Any]]) -> None:
        for part, measured in found.items():
            machine.print_table(part, measured["rows"])
        parts.update(found)
        print(f"  [{time.monotonic() - started:.0f} s]", flush=True)
        save(result())

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for number, (part, seconds) in enumerate(PARTS.items()):
            if number == 2:
                keep(_first_runs(settings, Path(name), whole - (time.monotonic() - started)))
            left = whole - (time.monotonic() - started) - GRACE
            if left > 0:
                keep({part: _in_a_process(part, settings, Path(name), min(seconds if not SIMULATED else left, left))})
            else:
                keep({part: {"rows": [machine.row(part, None, "-", failed="no time was left")]}})
    targets = [row for part in parts.values() for row in part["rows"] if row["verdict"] == "missed" or "failed" in row
               or (row["target"] is not None and row["unit"] not in ("error", "same bits"))]
    machine.print_table("targets, and whatever missed or failed", targets)
    return result()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("path", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--only", type=int)
    parser.add_argument("--seconds", type=float, default=600.0)
    chosen = parser.parse_args()
    from pitsolve.backends.cuda.launch import SIMULATED

    _measure(chosen.part, chosen.path, Settings(chosen.quick or SIMULATED, chosen.once, SIMULATED), chosen.seconds, chosen.only)
