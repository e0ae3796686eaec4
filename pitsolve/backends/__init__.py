"""The backends, each a folder with the same file names and the same verbs; one is imported when a call first needs it."""

from __future__ import annotations

import importlib
from types import ModuleType


def select(name: str) -> ModuleType:
    """The backend of that name; what it offers is in its ``__all__``."""
    return importlib.import_module(f"pitsolve.backends.{name}")
