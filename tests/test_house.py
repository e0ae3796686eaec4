"""The rules of the house, checked on the source: documented names, small files, one place for compiler flags."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pitsolve as ps

ROOT = Path(ps.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = ps, ps.cells, ps.leastsquares, ps.networks, ps.sequences, ps.training
PUBLIC = [value for module in MODULES for name, value in vars(module).items()
          if not name.startswith("_") and not inspect.ismodule(value)]
FUNCTIONS = [value for value in PUBLIC if inspect.isfunction(value)]
CELLS = [getattr(ps.cells, name) for name in ("Elman", "GRU", "ImplicitGRU", "LSTM", "LEM", "Linear", "ODE")]


def documented_parameters(docstring):
    """Names in the numpydoc section Parameters."""
    section = re.search(r"\n *Parameters\n *-+\n(.*?)(?=\n *\w[\w ]*\n *---|\Z)", docstring, re.DOTALL)
    if section is None:
        return []
    names = re.findall(r"^(\*{0,2}\w+(?:, \w+)*)(?: :.*)?$", inspect.cleandoc(section[1]), re.MULTILINE)
    return [name.lstrip("*") for group in names for name in group.split(", ")]


@pytest.mark.parametrize("function", [*FUNCTIONS, *CELLS, ps.cells.GRU.init], ids=lambda f: f.__qualname__)
def test_documented_parameters_are_those_of_the_signature(function):
    signature = [name for name in inspect.signature(function).parameters if name != "self"]
    assert sorted(documented_parameters(function.__doc__)) == sorted(signature)


@pytest.mark.parametrize("function", [*FUNCTIONS, *CELLS], ids=lambda f: f.__qualname__)
def test_public_names_have_a_docstring_with_an_example(function):
    assert "Examples\n" in function.__doc__ and ">>>" in function.__doc__
    assert "Parameters\n" in function.__doc__ or not inspect.signature(function).parameters


@pytest.mark.parametrize("value", PUBLIC, ids=lambda value: value.__qualname__)
def test_public_classes_have_a_docstring_of_their_own(value):
    assert value.__doc__ and not value.__doc__.startswith(f"{value.__name__}(")


def test_files_have_fewer_than_300_lines():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count >= 300} == {}


def test_files_begin_with_a_docstring():
    assert [path.name for path in FILES if path.read_text() and not path.read_text().startswith('"""')] == []


def test_compiler_flags_are_in_one_file_a_backend():
    pattern = re.compile(r"fastmath|\b(njit|jit)\(|@(numba\.)?n?jit\b")
    allowed = ROOT / "compile.py", ROOT / "backends/cuda/launch.py"
    outside = [path for path in FILES if path not in allowed and pattern.search(path.read_text())]
    assert outside == []


def test_methods_know_no_compiler_and_kernels_no_methods():
    def importers(folder, pattern):
        return [path.name for path in (ROOT / folder).rglob("*.py") if re.search(pattern, path.read_text(), re.MULTILINE)]

    assert importers("methods", r"^\s*(import|from) numba") == []
    assert importers("leastsquares", r"^\s*(import|from) numba") == []
    assert importers("backends", r"^\s*(import|from) pitsolve\.(methods|solve|gradient|check)") == []
    assert importers("cells", r"^\s*(import|from) pitsolve\.(methods|solve|gradient)") == []


def test_import_brings_neither_cuda_nor_optional_packages():
    code = ("import sys, pitsolve; print([name for name in ('numba.cuda', 'torch', 'jax', 'matplotlib', 'tqdm', 'mpi4py') "
            "if name in sys.modules])")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert run.stdout.strip() == "[]"
