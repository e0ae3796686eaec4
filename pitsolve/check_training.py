"""Checks of networks, their batches and everything that training takes, before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pitsolve import check, check_networks
from pitsolve.cells.base import Parameters
from pitsolve.networks.layer import Layer
from pitsolve.networks.network import Network


def a_layer(name: str, value: object) -> Layer:
    """A layer, not something else."""
    if not isinstance(value, Layer):
        raise TypeError(f"{name} must be a layer, got {type(value).__name__}")
    return value


def network(net: object) -> Network:
    """A chain or what parareal made of one."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Chain, or what pitsolve.networks.parareal made of one, got {type(net).__name__}")
    return net


def chain_parts(pre: object, blocks: object, post: object) -> None:
    """What a chain is made of."""
    a_layer("pre", pre)
    a_layer("post", post)
    if not isinstance(blocks, tuple) or not blocks:
        raise TypeError(f"blocks must be a tuple of at least one layer, got {check.describe(blocks)}")
    for k, block in enumerate(blocks):
        a_layer(f"blocks[{k}]", block)


def tearing(chain: object, subnetworks: object, coarse_blocks: object, surrogates: object, coarse: object) -> tuple[int, int]:
    """N and N_c."""
    if not isinstance(chain, Network) or not hasattr(chain, "surrogate"):
        raise TypeError(f"chain must be a pitsolve.networks.Chain, got {type(chain).__name__}")
    count = check.count("subnetworks", subnetworks)
    if count > len(chain.blocks):
        raise ValueError(f"subnetworks must be at most the number of blocks, {len(chain.blocks)}, got {count}")
    for name, given in (("surrogates", surrogates), ("coarse", coarse)):
        if given is not None:
            if not isinstance(given, tuple) or len(given) != count - 1:
                raise ValueError(f"{name} must be a tuple of subnetworks - 1 = {count - 1} layers")
            for j, layer in enumerate(given):
                a_layer(f"{name}[{j}]", layer)
    if coarse is not None and coarse_blocks is not None:
        raise ValueError("coarse_blocks and coarse are two ways to state the coarse networks; choose one")
    return count, -(-12 // count) if coarse_blocks is None else check.count("coarse_blocks", coarse_blocks)


def network_parameters(net: Network, params: object) -> Parameters:
    """Parameters with the names and shapes of the network and one dtype, contiguous and finite."""
    if not network(net).shapes:
        raise ValueError(f"net has no parameters, got {net!r}")
    return check.parameters(net, params)


def batch(net: Network, params: Parameters, x: object, y: object, labelled: bool, names: tuple[str, str] = ("x", "y")):
    """Inputs and labels or targets that fit the network and each other."""
    dtype = next(iter(params.values())).dtype
    array = np.asarray(x)
    if array.dtype != dtype:
        raise TypeError(f"{names[0]} must have the dtype of the parameters, {dtype}, got {check.describe(array)}")
    if array.ndim < 2 or array.shape[0] < 1:
        raise ValueError(f"{names[0]} must be a batch (B, ...) of at least one sample, got shape {array.shape}")
    check.all_finite(names[0], array)
    try:
        outputs = net.output_shape(array.shape[1:])
    except ValueError as error:
        raise ValueError(f"{names[0]} of shape {array.shape} does not fit the network: {error}") from None
    return np.ascontiguousarray(array), _targets(names, np.asarray(y), array.shape[0], outputs, labelled)


def _targets(names: tuple[str, str], y: np.ndarray, count: int, outputs: tuple[int, ...], labelled: bool) -> np.ndarray:
    if y.shape[:1] != (count,):
        raise ValueError(f"{names[1]} must have one entry for each of the {count} samples of {names[0]}, got shape {y.shape}")
    if not labelled:
        if y.dtype.kind == "f":
            check.all_finite(names[1], y)
        return y
    if len(outputs) != 1:
        raise ValueError(f"{names[1]} need a network with outputs (B, K), but those of {names[0]} have the shape "
                         f"{(count, *outputs)}; for other targets give loss=")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise TypeError(f"{names[1]} must be labels, integers (B,), got {check.describe(y)}; for other targets give loss=")
    for b in np.flatnonzero((y < 0) | (y >= outputs[-1])):
        raise ValueError(f"{names[1]} must be labels from 0 to {outputs[-1] - 1}, got {y[b]} at index {b}")
    return y.astype(np.int64)


def augmented(net: Network, x: object, before: np.ndarray) -> np.ndarray:
    """What a user's augmentation made of a batch, contiguous: as many samples of the same dtype, which fit the network."""
    if not isinstance(x, np.ndarray) or x.dtype != before.dtype or x.shape[:1] != before.shape[:1]:
        raise ValueError(f"augment must give as many samples of the same dtype as it receives, {check.describe(before)}, got "
                         f"{check.describe(x)}")
    if x.shape != before.shape:
        net.output_shape(x.shape[1:])
    return np.ascontiguousarray(x)


def loss_gradient(doutputs: object, outputs: np.ndarray) -> None:
    """dL/dy from a user's loss."""
    if not isinstance(doutputs, np.ndarray) or doutputs.shape != outputs.shape or doutputs.dtype != outputs.dtype:
        raise ValueError(f"loss must give a value and doutputs like the outputs, {check.describe(outputs)}, got "
                         f"{check.describe(doutputs)}")


def blocks_recomputed(value: object) -> int:
    """Blocks that share a stored input; 0 if everything is stored."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return check.count("recompute", value)


def workers(value: object) -> int | None:
    """Subnetworks at once."""
    return None if value is None else check.count("workers", value)


def momentum(name: str, value: object) -> float:
    """A number from 0 up to 1, without 1."""
    if check.fraction(name, value) == 1.0:
        raise ValueError(f"{name} must be below 1, got {value!r}")
    return float(value)


def not_negative(name: str, value: object) -> float:
    """A finite number of at least zero."""
    return 0.0 if check.is_number(value) and value == 0 else check.positive(name, value)


def milestones(value: object) -> tuple[int, ...]:
    """Epochs in ascending order."""
    if not isinstance(value, Iterable):
        raise TypeError(f"milestones must be a tuple of epochs, got {value!r}")
    epochs = tuple(check.count(f"milestones[{i}]", epoch) for i, epoch in enumerate(value))
    if list(epochs) != sorted(set(epochs)):
        raise ValueError(f"milestones must ascend, got {epochs}")
    return epochs


def function(name: str, value: object, optional: bool = True) -> Callable | None:
    """Something to call."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function, got {check.describe(value)}")
    return value


def pair(name: str, value: object) -> tuple[object, object]:
    """(inputs, labels or targets)."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (inputs, labels), got {check.describe(value)}")
    return value[0], value[1]


def groups_of_arrays(arrays: dict[str, dict[str, np.ndarray]]) -> None:
    """What a checkpoint can hold."""
    for group, members in arrays.items():
        if "/" in group:
            raise ValueError(f"the name of a group must not have '/', got {group!r}")
        for name, array in members.items():
            if np.asarray(array).dtype.hasobject:
                raise TypeError(f"arrays[{group!r}][{name!r}] must be numbers, got Python objects")


def file_to_write(name: str, value: object) -> Path | None:
    """A path in a folder that exists."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {type(value).__name__}")
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {str(path)!r}")
    return path


def labels(value: object, outputs: tuple[int, ...]) -> np.ndarray:
    """Labels (...) for outputs (..., K): integers below K; those below 0 stand for no label."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {check.describe(array)}")
    check.shape("labels", array, outputs[:-1], f"for outputs of shape {outputs}")
    if array.size and array.max() >= outputs[-1]:
        raise ValueError(f"labels must be below the {outputs[-1]} classes of the outputs, got {array.max()}")
    return array


def counted(value: object, outputs: tuple[int, ...]) -> None:
    """A mask of the leading axes of the outputs."""
    if not isinstance(value, np.ndarray) or value.dtype != bool:
        raise TypeError(f"counted must be an array of bool, got {check.describe(value)}")
    check.shape("counted", value, outputs[:value.ndim], f"for outputs of shape {outputs}")


def betas(value: object) -> tuple[float, float]:
    """The rates at which the two averages of Adam forget."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {value!r}")
    return momentum("betas[0]", value[0]), momentum("betas[1]", value[1])


def beyond(name: str, value: object, other: str, least: float) -> float:
    """A finite number above another argument."""
    if check.positive(name, value) <= least:
        raise ValueError(f"{name} must be above {other} = {least}, got {value!r}")
    return float(value)


def optimizer(value: object) -> None:
    """One of ours."""
    from pitsolve.training.optimizers import Optimizer  # optimisers know their checks, so not at import

    if not isinstance(value, Optimizer):
        raise TypeError(f"optimizer must be an optimiser of pitsolve.training, got {type(value).__name__}")


def steps(layer: Layer, p: Parameters, x: object, width: int | None = None) -> np.ndarray:
    """x (..., C), contiguous, that fits a layer of single steps and its parameters."""
    if isinstance(x, np.ndarray):
        step_shape(layer, x.shape, width)
        if x.size:
            return check_networks.batch(layer, p, x.reshape(-1, x.shape[-1]), (width,)).reshape(x.shape)
    return check_networks.batch(layer, p, x, (width,))


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
