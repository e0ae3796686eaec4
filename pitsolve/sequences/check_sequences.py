"""Checks of models on sequences, their layers, inputs and labels, before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.networks import check_layers
from pitsolve.networks.layer import Composite, Layer
from pitsolve.sequences.recurrent import Recurrent
from pitsolve.sequences.solver import Solver


def model(value: Composite, cells: dict, readouts: dict) -> None:
    """The fields of a model."""
    for name in ("input_size", "hidden", "layers", "heads", "strides"):
        check.count(name, getattr(value, name))
    check.count("classes" if hasattr(value, "classes") else "targets", value.outputs)
    for name in ("bidirectional", "residual", "norm"):
        check.flag(name, getattr(value, name))
    for name, words in (("mixing", ("none", "mlp", "glu")), ("encoder", ("none", "linear", "mlp")),
                        ("head", ("linear", "mlp")), ("readout", readouts)):
        check.choice(name, getattr(value, name), words)
    if not callable(value.cell):
        check.choice("cell", value.cell, cells)
    if check.fraction("dropout", value.dropout) == 1.0:
        raise ValueError("dropout must be below 1, got 1")
    if value.heads > 1 and value.cell != "gru":
        raise ValueError(f"heads are those of a GRU; cell must be 'gru' with heads = {value.heads}, got {value.cell!r}")
    for name, count in (("heads", value.heads), ("strides", value.strides)):
        if value.hidden % count:
            raise ValueError(f"{name} must divide hidden = {value.hidden}, got {count}")
    if value.heads > 1 and value.heads % value.strides:
        raise ValueError(f"strides must divide heads = {value.heads}, got {value.strides}")
    if value.residual and value.encoder == "none" and value.input_size != value.hidden:
        raise ValueError(f"encoder must not be 'none' with residual blocks of width {value.hidden} on inputs of width "
                         f"{value.input_size}")
    if not value.residual and value.mixing != "none":
        raise ValueError(f"mixing is part of residual blocks; with residual=False it must be 'none', got {value.mixing!r}")


def recurrent(layer: Recurrent, inputs: int, width: int) -> Recurrent:
    """A cell of the user's that fits its place."""
    if layer.cell.input_size != inputs or layer.width != width:
        raise ValueError(f"cell({inputs}, {width}) must give a cell with inputs of width {inputs} and outputs of width "
                         f"{width}, got {layer.cell}")
    return layer


def inputs(value: Composite, params: Parameters, x: object, lengths: object, name: str = "x"):
    """Inputs (N, T, m) of the dtype of the parameters, and lengths (N,) of at least one step or None."""
    dtype = next(iter(params.values())).dtype
    array = np.asarray(x)
    if array.dtype != dtype:
        raise TypeError(f"{name} must have the dtype of the parameters, {dtype}, got {check.describe(array)}")
    if array.ndim != 3 or array.shape[2] != value.input_size or 0 in array.shape:
        raise ValueError(f"{name} must have shape (N, T, {value.input_size}) with N and T of at least one, got {array.shape}")
    stop = check.lengths(lengths, len(array), array.shape[1], True)
    for b in np.flatnonzero(stop < 1):
        raise ValueError(f"lengths must be at least 1, got {stop[b]} at index {b}")
    check.finite_to(name, array, stop)
    if lengths is None:
        return np.ascontiguousarray(array), None
    return np.where((np.arange(array.shape[1]) < stop[:, None])[..., None], array, array.dtype.type(0)), stop


def data(value: Composite, params: Parameters, given: object, name: str):
    """(x, y) or (x, y, lengths): what fits the model; labels past the end of a sequence become -1."""
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise TypeError(f"{name} must be a pair (x, y), or (x, y, lengths) for sequences of several lengths, got "
                        f"{check.describe(given)}")
    x, lengths = inputs(value, params, given[0], given[2] if len(given) == 3 else None, f"{name} inputs")
    y, shape = np.asarray(given[1]), (len(x), *value.output_shape(x.shape[1:]))
    if not hasattr(value, "classes"):
        check.shape(f"{name} targets", y, shape, "as the outputs of the model")
        if y.dtype.kind not in "fiu":
            raise TypeError(f"{name} targets must be numbers, got dtype {y.dtype}")
        if lengths is not None and y.ndim == 3:
            y = np.where((np.arange(y.shape[1]) < lengths[:, None])[..., None], y, 0)
        check.all_finite(f"{name} targets", y := y.astype(x.dtype))
        return x, y, lengths
    if y.dtype.kind not in "iu":
        raise TypeError(f"{name} labels must be integers, got {check.describe(y)}; for other targets take a SequenceRegressor")
    check.shape(f"{name} labels", y, shape[:-1], "for the inputs and the readout")
    y = y.astype(np.int64)
    if lengths is not None and y.ndim == 2:
        y[np.arange(y.shape[1]) >= lengths[:, None]] = -1
    if (y >= shape[-1]).any() or (y < -1).any():
        bad = y[(y >= shape[-1]) | (y < -1)][0]
        raise ValueError(f"{name} labels must be from 0 to {shape[-1] - 1}, or -1 for what does not count, got {bad}")
    return x, y, lengths


def loss(function: Callable, *given: object) -> None:
    """A user's loss that can be told which steps count, where targets for each step are ragged."""
    for part in given:
        if part is None or part[2] is None or part[1].ndim < 3:
            continue
        try:
            inspect.signature(function).bind(None, None, None)
        except TypeError:
            raise TypeError("loss must take (outputs, targets, counted) with targets for each step of sequences of several "
                            f"lengths, so that it knows which steps count, got {function!r}") from None
        except ValueError:  # no signature to be had
            return


def warmed(solver: Solver) -> None:
    """A solver that can start from given states."""
    if solver.method == "parareal" or any(solver.options.get(name) is True for name in ("nested", "skip_first")):
        raise ValueError(f"warm_start must be False with {solver}, which starts from its coarsest grid")


def augmented(x: object, before: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What a user's augmentation made of a batch, contiguous: of the same shape, zero past the end of each sequence."""
    if not isinstance(x, np.ndarray) or x.dtype != before.dtype or x.shape != before.shape:
        raise ValueError(f"augment must give inputs like those it receives, {check.describe(before)}, got {check.describe(x)}")
    if lengths is not None:
        x = np.where((np.arange(x.shape[1]) < lengths[:, None])[..., None], x, x.dtype.type(0))
    check.all_finite("inputs from augment", x)
    return np.ascontiguousarray(x)


def steps(layer: Layer, p: Parameters, x: object, width: int | None = None) -> np.ndarray:
    """x (..., C), contiguous, that fits a layer of single steps and its parameters."""
    if isinstance(x, np.ndarray):
        step_shape(layer, x.shape, width)
        if x.size:
            return check_layers.batch(layer, p, x.reshape(-1, x.shape[-1]), (width,)).reshape(x.shape)
    return check_layers.batch(layer, p, x, (width,))


def step_shape(layer: Layer, shape: tuple[int, ...], width: int | None) -> tuple[int, ...]:
    """The shape of an input, with or without the batch axis."""
    if not shape or width not in (None, shape[-1]):
        raise ValueError(f"{layer} takes inputs of shape (..., {width or 'C'}), got {shape}")
    return shape


def dropout_seed(layer: Layer, training: object) -> int:
    """The next seed from what a training loop hands to its layers."""
    if not hasattr(training, "dropout_seed"):
        raise TypeError(f"training must be an object with a method dropout_seed() -> int for {layer}, which draws random "
                        f"numbers, got {training!r}; pass False outside of training")
    return int(training.dropout_seed())
