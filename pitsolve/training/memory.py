"""Memory that stays with the process, so that the arrays of the next step need not be asked from the system."""

from __future__ import annotations

import ctypes
import platform

_SETTINGS = ((-1, -1), (-4, 0))  # in malloc.h: M_TRIM_THRESHOLD, never; M_MMAP_MAX, no array in a mapping of its own


def keep_memory() -> bool:
    """Let this process keep the memory of arrays that are gone, for those to come.

    The C library gives large arrays back to the system as soon as they are gone, and for the next ones the system hands out
    pages of zeros, one fault each. A step of training makes dozens of arrays of some megabytes, the same in every step: in
    sequential MNIST (docs/experiments.md) faults were a quarter to a third of the processor time. This is a setting of the
    whole process and of every package in it, so no function of pitsolve makes it by itself; call this before
    :func:`pitsolve.training.fit`. From then on the process holds what it has needed at its peak until it ends.

    Returns
    -------
    bool
        Whether the C library could be told; only glibc, that is, most of Linux, can.

    References
    ----------
    mallopt(3).

    Examples
    --------
    >>> import pitsolve as ps
    >>> ps.training.keep_memory() in (True, False)
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in _SETTINGS)
