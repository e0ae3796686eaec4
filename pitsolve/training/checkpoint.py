"""Checkpoints: one file of named arrays and facts, which is either whole or refused.

A file is a first line that names the format, the SHA-256 of the rest, its length (8 bytes), and the rest: an .npz archive.
It is written under another name in the same folder, flushed to the disk, read back and only then renamed. So a process that
is killed, or a disk that is full, leaves the file that was there before.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pitsolve.training import check_training

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_MAGIC = b"pitsolve checkpoint 1\n"
_HEADER = len(_MAGIC) + 32 + 8
_FACTS = "facts"


class CheckpointError(ValueError):
    """A file that is not a whole checkpoint, or not one of this run; the message says which and what to do."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of dict of ndarray
        Groups of named arrays.
    facts : dict
        Numbers, strings, lists and dicts.
    """

    arrays: dict[str, dict[str, np.ndarray]] = field(repr=False)
    facts: dict


def save_checkpoint(path: str | os.PathLike, arrays: dict[str, dict[str, np.ndarray]], facts: dict) -> None:
    """Write a checkpoint in the place of the one before, at one stroke.

    Parameters
    ----------
    path : str or path
        The file.
    arrays : dict of dict of ndarray
        Groups of named arrays, such as parameters and momentum; no "/" in the name of a group.
    facts : dict
        What goes into JSON.

    Raises
    ------
    TypeError, ValueError
        Arrays of Python objects, or a name that cannot be stored.
    OSError
        The file cannot be written; the one before is still there.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, pitsolve as ps
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "run.checkpoint"
    ...     ps.training.save_checkpoint(path, {"params": {"w": np.ones(2)}}, {"epoch": 3})
    ...     found = ps.training.load_checkpoint(path)
    >>> found.facts["epoch"], found.arrays["params"]["w"]
    (3, array([1., 1.]))
    """
    path = check_training.file_to_write("path", path)
    check_training.groups_of_arrays(arrays)
    memory = io.BytesIO()
    named = {f"{group}/{name}": array for group, members in arrays.items() for name, array in members.items()}
    text = json.dumps({"groups": list(arrays), "facts": facts})
    np.savez(memory, **{_FACTS: np.frombuffer(text.encode(), np.uint8)}, **named)
    payload = memory.getvalue()
    content = _MAGIC + hashlib.sha256(payload).digest() + len(payload).to_bytes(8, "little") + payload
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if partial.read_bytes() != content:
            raise OSError(f"{partial} does not hold what was written to it; {path} was left as it is")
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the new name durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def one_run(path: Path | None) -> Iterator[None]:
    """Hold a checkpoint, with the files beside it, for one run; another one that asks for it meanwhile gets a CheckpointError.

    The system lets go of the lock when a process ends, however it does. Where it has no locks, nobody is refused.
    """
    if path is None or fcntl is None:
        yield
        return
    lock = path.with_name(path.name + ".lock")
    handle = _locked(path, lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path, lock: Path) -> int:
    """An open file that only one run has locked."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise CheckpointError(f"{path} is in use by another run; wait for its end, or give another file as "
                                  "checkpoint") from None
        except OSError:  # a file system without locks
            return handle
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # a run that ended meanwhile has removed this file


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : str or path
        A file that :func:`save_checkpoint` wrote.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        The file is something else, was cut off or has changed.
    FileNotFoundError
        There is none.

    Examples
    --------
    See :func:`save_checkpoint`.

    >>> import pitsolve as ps
    >>> ps.training.load_checkpoint("no such file")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'no such file'
    """
    content = Path(path).read_bytes()
    if content[:len(_MAGIC)] != _MAGIC[:len(content)] or not content:
        raise CheckpointError(f"{path} is not a checkpoint of pitsolve: it begins with {content[:16]!r}")
    length = int.from_bytes(content[_HEADER - 8:_HEADER], "little")
    if len(content) < _HEADER or len(content) < _HEADER + length:
        expected = f"{_HEADER + length} bytes" if len(content) >= _HEADER else f"more than {_HEADER} bytes"
        raise CheckpointError(f"{path} is cut off: {len(content)} of {expected}; start from an older copy")
    payload = content[_HEADER:]
    if hashlib.sha256(payload).digest() != content[len(_MAGIC):len(_MAGIC) + 32]:
        raise CheckpointError(f"{path} has changed since it was written; start from an older copy")
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        described = json.loads(archive[_FACTS].tobytes())
        arrays: dict[str, dict[str, np.ndarray]] = {group: {} for group in described["groups"]}
        for full in archive.files:
            if full != _FACTS:
                group, name = full.split("/", 1)
                arrays[group][name] = archive[full]
    return Checkpoint(arrays, described["facts"])
