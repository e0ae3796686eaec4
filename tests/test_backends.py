"""Both backends offer the same verbs with the same parameters."""

import inspect

import pytest

from pitsolve.backends import cpu, cuda
from pitsolve.backends.cpu import gated_model, gated_windows, general_model, general_windows, workspace
from pitsolve.backends.cuda import gated_model as cuda_gated_model
from pitsolve.backends.cuda import gated_windows as cuda_gated_windows
from pitsolve.backends.cuda import general_model as cuda_general_model
from pitsolve.backends.cuda import general_windows as cuda_general_windows
from pitsolve.backends.cuda import workspace as cuda_workspace

CLASSES = [(cpu.TridiagonalWindows, cuda.TridiagonalWindows), (gated_model.GatedModel, cuda_gated_model.GatedModel),
           (gated_windows.GatedWindows, cuda_gated_windows.GatedWindows),
           (general_model.GeneralModel, cuda_general_model.GeneralModel),
           (general_windows.GeneralWindows, cuda_general_windows.GeneralWindows),
           (workspace.Workspace, cuda_workspace.Workspace)]
MODULES = [(cpu.arrays, cuda.arrays), (cpu.transfer, cuda.transfer)]
ONLY_INSIDE_CUDA = {"project", "advance"}  # verbs of a gated model and its windows that the verbs of others are made of


def parameters(function):
    return [(name, value.default, value.kind) for name, value in inspect.signature(function).parameters.items()]


def functions(owner):
    """The public functions that are written in a module, or the methods of a class."""
    return {name: value for name, value in vars(owner).items() if inspect.isfunction(value) and not name.startswith("_")
            and (inspect.isclass(owner) or value.__module__ == owner.__name__) and not hasattr(value, "__pitsolve__")}


def same(ours, theirs):
    assert set(ours) == set(theirs) - ONLY_INSIDE_CUDA
    for name, function in ours.items():
        assert parameters(function) == parameters(theirs[name]), name


def test_the_lists_of_verbs_are_the_same():
    assert cpu.__all__ == cuda.__all__
    for name in cpu.__all__:
        if inspect.isfunction(getattr(cpu, name)):
            assert parameters(getattr(cpu, name)) == parameters(getattr(cuda, name)), name


@pytest.mark.parametrize(("ours", "theirs"), CLASSES + MODULES, ids=lambda owner: owner.__name__.rpartition(".")[2])
def test_verbs_take_the_same_parameters(ours, theirs):
    same(functions(ours), functions(theirs))
