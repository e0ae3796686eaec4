"""The sequence of the demo: a generated signal, or an array from the user's file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

_CHANNELS = 6
_SEED = 20417


class UserError(Exception):
    """What the user asked for cannot be done; the message is one sentence."""


def signal(steps: int) -> np.ndarray:
    """Sums of eight sines a channel, with periods of 20 to 2,000 steps, (T, 6)."""
    random = np.random.default_rng(_SEED)
    periods = 20.0 * 100.0 ** random.uniform(size=(8, _CHANNELS))
    phases = random.uniform(0.0, 2.0 * np.pi, (8, _CHANNELS))
    x = np.zeros((steps, _CHANNELS))
    for period, phase in zip(periods, phases, strict=True):
        x += 0.5 * np.sin(2.0 * np.pi * np.arange(steps)[:, None] / period + phase)
    return x.astype(np.float32)


def read(path: Path, key: str | None) -> tuple[np.ndarray, str]:
    """The array in a file and its name."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                if key is not None:
                    raise UserError(f"--key is for .npz files; {path} holds a single array")
                return loaded, str(path)
            listed = ", ".join(loaded.files) or "no array"
            if key is None and len(loaded.files) != 1:
                raise UserError(f"{path} holds {listed}; choose one with --key")
            key = loaded.files[0] if key is None else key
            if key not in loaded.files:
                raise UserError(f"{path} has no array {key!r}; it holds {listed}")
            return loaded[key], f"{key} of {path}"
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = "a folder" if path.is_dir() else " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a NumPy file (.npz or .npy): {reason}") from None


def sequence(array: np.ndarray, name: str, steps: int | None) -> np.ndarray:
    """One sequence (T, m) in float32, or a UserError that says what is wrong with the array."""
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in (2, 3):
        raise UserError(f"{name} must have shape (T, m) or (N, T, m), got {array.shape}")
    if array.size == 0:
        raise UserError(f"{name} is empty, its shape is {array.shape}")
    if array.ndim == 3:
        print(f"note: {name} holds {array.shape[0]} sequences; this is the first one")
        array = array[0]
    if steps is not None and steps > len(array):
        raise UserError(f"--steps {steps} is more than the {len(array)} steps of {name}")
    array = array[:steps]
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype != np.float32:
        print(f"note: converted from {array.dtype} to float32")
    bad = np.argwhere(~np.isfinite(x))
    if bad.size:
        t, i = (int(k) for k in bad[0])
        raise UserError(f"{name} must be finite in float32, got {array[t, i]} at step {t}, channel {i}")
    return x
