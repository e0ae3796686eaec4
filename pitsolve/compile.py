"""Compilation of kernels: the one place with compiler flags and disk-cache keys.

A kernel is written as a plain module-level function. Names that differ from one compilation to the next (the number of
SIMD lanes, the pointwise mathematics of a cell) stand in its module as placeholders, ``LANES = constant("LANES")``, and
:func:`specialise` returns a compiled copy in which they are bound. Numba sees them as global constants, so intrinsics
receive them as literals and the optimiser removes what a given cell does not use.

Numba keys its disk cache by the file of the kernel only. :func:`specialise` therefore puts a hash of the bound values and
of all the source that the kernel can reach into the name of the kernel: an edited cell is recompiled, an unedited one is
found again by the next process.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import pathlib
import types
from collections.abc import Callable

import numba
import numpy as np

# error_model="numpy": without it every division carries a branch that stops vectorisation (12 times slower gates).
# "contract" fuses a*b + c and nothing else; "reassoc" would break isfinite, so only pure product kernels may ask for it.
_FLAGS = {"error_model": "numpy", "nogil": True}
_CONTRACT = {"contract"}
_REASSOCIATE = {"contract", "reassoc"}
_LIBRARIES = {"math", "cmath", "numpy", "numba"}  # what functions take from these does not change while a version is installed
_PROCESS = os.urandom(8).hex()  # marks what only this process can identify


class Placeholder:
    """A name in a kernel module that :func:`specialise` binds."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<compile-time constant {self.name}>"


def constant(name: str) -> Placeholder:
    """Declare a compile-time constant of the kernels in a module."""
    return Placeholder(name)


def inline(function: Callable) -> Callable:
    """Mark a serial helper that kernels call; it is compiled into each kernel that names it."""
    function.__pitsolve__ = {"parallel": False, "fastmath": _CONTRACT, "forceinline": True}
    return function


def kernel(function: Callable | None = None, *, parallel: bool = False, reassociate: bool = False) -> Callable:
    """Mark a function as a kernel: an entry point (``parallel``), or a serial routine too long to be inlined."""

    def mark(function: Callable) -> Callable:
        function.__pitsolve__ = {"parallel": parallel, "fastmath": _REASSOCIATE if reassociate else _CONTRACT}
        return function

    return mark if function is None else mark(function)


@functools.cache
def _package_source() -> str:
    """Hash of the sources that any kernel may reach, and of the compiler that translates them."""
    digest = hashlib.sha256(f"numba {numba.__version__} numpy {np.__version__}".encode())
    root = pathlib.Path(__file__).parent
    for path in sorted([pathlib.Path(__file__), *root.glob("cells/*.py"), *root.glob("backends/**/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _describe(value: object, within: tuple = ()) -> str:
    """A text that changes whenever the meaning of a bound value changes, from this process to the next."""
    value = getattr(value, "py_func", value)
    if isinstance(value, types.FunctionType):
        return value.__qualname__ if value in within else _describe_function(value, (*within, value))
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, tuple):
        return f"({','.join(_describe(item, within) for item in value)})"
    if isinstance(value, types.ModuleType):
        return value.__name__
    text = repr(value)
    return text + _PROCESS if " at 0x" in text else text


def _describe_function(function: types.FunctionType, within: tuple) -> str:
    """Its bytecode (the source may have been edited since, or not exist) and everything that the bytecode reaches by name."""
    names = names_in(function.__code__)
    reached = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for module in [value for value in reached.values() if isinstance(value, types.ModuleType)]:
        if module.__name__.partition(".")[0] not in _LIBRARIES:
            reached |= {f"{module.__name__}.{name}": getattr(module, name) for name in names if hasattr(module, name)}
    reached |= zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()))
    reached |= {"__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__}
    described = (f"{name}={_describe(reached[name], within)};" for name in sorted(reached))
    # Compiled code that is loaded again imports the module of each function, so one without a module stays in its process.
    module = inspect.getmodule(function)
    return (module.__name__ if module else _PROCESS) + _describe_code(function.__code__) + "".join(described)


def _describe_code(code: types.CodeType) -> str:
    constants = (_describe_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return f"{code.co_code.hex()}{code.co_names}{code.co_varnames}{code.co_freevars}{','.join(constants)}"


def user_function(function: Callable, name: str) -> Callable:
    """The plain Python function behind what a user passed (a function or an ``njit`` dispatcher)."""
    plain = getattr(function, "py_func", function)
    if not isinstance(plain, types.FunctionType):
        raise TypeError(f"{name} must be a plain Python function (or an njit of one), got {type(function).__name__}")
    return plain


_specialised: dict[tuple, Callable] = {}


def specialise(function: Callable, **constants: object) -> Callable:
    """Compile ``function`` with the given names bound.

    Functions of the package that ``function`` calls by a global name and that are marked by :func:`inline` or
    :func:`kernel` are compiled with the same bindings. Plain functions among the constants (a cell's gates, a user's
    step) are inlined as they are. Calls with equal arguments return the same compiled object.
    """
    identity = (function, *constants.items())
    if identity not in _specialised:
        _specialised[identity] = _compile(function, _inlined(constants), fingerprint(constants), {}, cache=True)
    return _specialised[identity]


def fingerprint(constants: dict[str, object]) -> str:
    """A hash of the bound values and of all the source that a kernel can reach, for the name of the kernel."""
    described = ";".join(f"{name}={_describe(constants[name])}" for name in sorted(constants))
    return hashlib.sha256((_package_source() + described).encode()).hexdigest()[:16]


def bound(*functions: Callable, **constants: object) -> tuple[types.FunctionType, ...]:
    """Copies of marked functions with the given names bound, fit to be constants themselves, such as the step of a cell."""
    names, done = _inlined(constants), {}
    return tuple(_compile(function, names, "bound", done).py_func for function in functions)


def _inlined(constants: dict[str, object]) -> dict[str, object]:
    return {name: numba.njit(copy_with(value, {}, value.__name__), **_FLAGS, fastmath=_CONTRACT, forceinline=True)
            if isinstance(value, types.FunctionType) else value for name, value in constants.items()}


def copy_with(function: types.FunctionType, names: dict, qualname: str) -> types.FunctionType:
    """A copy of ``function`` for which ``names`` are globals."""
    copy = types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__,
                              function.__defaults__, function.__closure__)
    copy.__qualname__ = qualname
    copy.__module__ = function.__module__
    return copy


def _compile(function: types.FunctionType, constants: dict, key: str, done: dict, cache: bool = False) -> Callable:
    if function not in done:
        options = function.__pitsolve__
        callees = {}
        for name in names_in(function.__code__):
            value = function.__globals__.get(name)
            if hasattr(value, "__pitsolve__") and value is not function:
                callees[name] = _compile(value, constants, key, done)
        copy = copy_with(function, {**callees, **constants}, f"{function.__name__}_{key}")
        done[function] = numba.njit(copy, **_FLAGS, **options, cache=cache)
    return done[function]


def names_in(code: types.CodeType) -> set[str]:
    """Global names that a function mentions, its comprehensions and inner functions included."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(names_in, inner))
