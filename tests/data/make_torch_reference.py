"""Make ``torch_reference.npz``: states and gradients of PyTorch's recurrent layers, stored so that tests need no torch.

Run once, where torch is installed::

    python tests/data/make_torch_reference.py

For each layer the file holds, under ``rnn/``, ``gru/`` and ``lstm/``: ``weight_ih``, ``weight_hh``, ``bias_ih`` and
``bias_hh`` (layer 0 of torch, same shapes and gate order), ``x`` (B, T, m), ``h0`` (B, n), ``states`` (B, T, n),
``dstates`` (the shape of the states) and, under ``grad/``, the gradient of sum(states * dstates) with respect to each
weight, ``x`` and ``h0``. The state of the LSTM is (h, c) concatenated along the last axis. All numbers are float64.
"""

from pathlib import Path

import numpy as np
import torch

SEED = 20931
BATCH, STEPS, INPUT, HIDDEN = 2, 7, 3, 5
LAYERS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run_states(layer: torch.nn.Module, x: torch.Tensor, h0: torch.Tensor) -> torch.Tensor:
    """All states, one step at a time because torch returns the cell state of an LSTM only after the last step."""
    parts = tuple(part[None] for part in h0.split(HIDDEN, dim=-1))
    states = []
    for t in range(x.shape[1]):
        _, last = layer(x[:, t:t + 1], parts if len(parts) > 1 else parts[0])
        parts = last if len(parts) > 1 else (last,)
        states.append(torch.cat([part[0] for part in parts], dim=-1))
    return torch.stack(states, dim=1)


def make_reference(name: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Every array of one layer, keyed ``name/...``."""
    layer = LAYERS[name](INPUT, HIDDEN, batch_first=True, dtype=torch.float64)
    for weight in WEIGHTS:
        parameter = getattr(layer, f"{weight}_l0")
        parameter.data = torch.from_numpy(rng.normal(scale=0.6, size=tuple(parameter.shape)))
    width = 2 * HIDDEN if name == "lstm" else HIDDEN
    x = torch.from_numpy(rng.normal(size=(BATCH, STEPS, INPUT))).requires_grad_()
    h0 = torch.from_numpy(rng.normal(scale=0.5, size=(BATCH, width))).requires_grad_()
    dstates = torch.from_numpy(rng.normal(size=(BATCH, STEPS, width)))

    states = run_states(layer, x, h0)
    whole, _ = layer(x, tuple(p[None].contiguous() for p in h0.split(HIDDEN, -1)) if name == "lstm" else h0[None])
    torch.testing.assert_close(states[..., :HIDDEN], whole, rtol=0, atol=1e-14)
    (states * dstates).sum().backward()

    tensors = {"x": x, "h0": h0, **{weight: getattr(layer, f"{weight}_l0") for weight in WEIGHTS}}
    arrays = {f"{name}/{key}": tensor.detach().numpy() for key, tensor in tensors.items()}
    arrays |= {f"{name}/grad/{key}": tensor.grad.numpy() for key, tensor in tensors.items()}
    return arrays | {f"{name}/states": states.detach().numpy(), f"{name}/dstates": dstates.numpy()}


def main() -> None:
    """Write the file beside this script."""
    rng = np.random.default_rng(SEED)
    arrays = {}
    for name in LAYERS:
        arrays |= make_reference(name, rng)
    np.savez_compressed(Path(__file__).with_name("torch_reference.npz"), **arrays)


if __name__ == "__main__":
    main()
