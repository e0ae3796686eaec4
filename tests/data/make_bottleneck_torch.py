"""One bottleneck unit, forward and backward, in PyTorch: writes bottleneck_torch.npz beside this file.

Computed in float64 from numbers that float32 holds exactly, stored in float32: NHWC, weights (kh, kw, C, K).
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

WIDTH, BATCH, SIDE = 8, 3, 6


class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        channels = (4 * WIDTH, WIDTH, WIDTH, 4 * WIDTH)
        for k in (1, 2, 3):
            size = 3 if k == 2 else 1
            self.add_module(f"norm{k}", nn.BatchNorm2d(channels[k - 1]))
            self.add_module(f"conv{k}", nn.Conv2d(channels[k - 1], channels[k], size, padding=size // 2, bias=False))

    def forward(self, x):
        y = x
        for k in (1, 2, 3):
            y = self.get_submodule(f"conv{k}")(torch.relu(self.get_submodule(f"norm{k}")(y)))
        return x + y


def stored(name, tensor):
    order = {"weight": (2, 3, 1, 0)}.get(name.rpartition(".")[2], (0, 2, 3, 1))
    array = tensor.detach().numpy()
    return np.ascontiguousarray(array.transpose(order) if array.ndim == 4 else array, np.float32)


NAMES = {"weight": "scale", "bias": "shift"}  # of batch normalisation


def ours(name):
    layer, _, last = name.rpartition(".")
    return f"{layer}.{NAMES.get(last, last) if layer.startswith('norm') else last}"


def main():
    torch.manual_seed(5)
    unit = Unit()
    for name, value in unit.named_parameters():
        if name.startswith("norm"):
            nn.init.uniform_(value, 0.5, 1.5) if name.endswith("weight") else nn.init.normal_(value)
    unit = unit.double()
    x = torch.randn(BATCH, 4 * WIDTH, SIDE, SIDE).double().requires_grad_()
    dy = torch.randn(BATCH, 4 * WIDTH, SIDE, SIDE).double()
    before = {name: value.clone() for name, value in unit.state_dict().items()}
    y = unit(x)
    y.backward(dy)
    arrays = {"x": stored("x", x), "dy": stored("dy", dy), "y": stored("y", y), "dx": stored("dx", x.grad)}
    for name, value in before.items():
        if not name.endswith("num_batches_tracked"):
            arrays[f"p.{ours(name)}"] = stored(name, value)
    for name, value in unit.named_parameters():
        arrays[f"grads.{ours(name)}"] = stored(name, value.grad)
    for name, value in unit.state_dict().items():
        if "running" in name:
            arrays[f"updated.{name}"] = stored(name, value)
    with torch.no_grad():
        arrays["y_inference"] = stored("y", unit.eval()(x))
    np.savez_compressed(Path(__file__).with_name("bottleneck_torch.npz"), **arrays)


if __name__ == "__main__":
    main()
