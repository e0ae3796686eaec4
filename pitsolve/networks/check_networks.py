"""Checks of networks and their batches, before anything runs."""

from __future__ import annotations

import numpy as np

from pitsolve import check
from pitsolve.cells.base import Parameters
from pitsolve.networks.check_layers import a_layer
from pitsolve.networks.network import Network


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


def blocks_recomputed(value: object) -> int:
    """Blocks that share a stored input; 0 if everything is stored."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return check.count("recompute", value)


def workers(value: object) -> int | None:
    """Subnetworks at once."""
    return None if value is None else check.count("workers", value)
