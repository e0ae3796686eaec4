"""A bottleneck unit, forward and backward, against PyTorch on the CPU: the same unit, batch and threads."""

import sys
from typing import Any

import numba
import numpy as np

import pitsolve as ps
from bench import machine, peers

SEED, BATCH, TARGET = 20931, 128, 1 / 1.5  # target: PyTorch's time over ours
SIZES = ((16, 32), (32, 16), (64, 8))  # width w and side of the images: the three stages of the paper's networks
DOUBLE, SINGLE = 1e-11, 1e-4  # largest relative differences from PyTorch


class Case:
    """One unit and a batch, for us and for PyTorch, in either of its layouts."""

    def __init__(self, width: int, side: int, batch: int, dtype: type = np.float32):
        self.unit = ps.networks.Bottleneck(4 * width, width)
        self.params = self.unit.init(SEED, dtype)
        random = np.random.default_rng(SEED)
        self.x, self.dy = (random.standard_normal((batch, side, side, 4 * width), dtype) for _ in range(2))

    def ours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """y, dL/dx, dL/dW2."""
        y, saved = self.unit.forward(self.params, self.x, training=True)
        dx, grads = self.unit.backward(self.params, saved, self.dy)
        return y, dx, grads["conv2.weight"]

    def torch(self, channels_last: bool):
        """A function that does the same in PyTorch, on as many threads as Numba has now."""
        torch = peers.torch
        memory = torch.channels_last if channels_last else torch.contiguous_format
        layers = {}
        for name, layer in self.unit.parts:
            if name.startswith("norm"):
                layers[name] = torch.nn.BatchNorm2d(layer.channels, dtype=getattr(torch, self.x.dtype.name))
                continue
            layers[name] = torch.nn.Conv2d(layer.inputs, layer.outputs, layer.size, padding=layer.size // 2, bias=False)
            weight = torch.from_numpy(self.params[f"{name}.weight"].transpose(3, 2, 0, 1).copy())
            layers[name].weight.data = weight.contiguous(memory_format=memory)
        x, dy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=memory) for a in (self.x, self.dy))
        x.requires_grad_()
        weights = [weight for layer in layers.values() for weight in layer.parameters()]
        torch.set_num_threads(numba.get_num_threads())

        def call() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            y = x
            for k in (1, 2, 3):
                y = layers[f"conv{k}"](torch.relu(layers[f"norm{k}"](y)))
            y = x + y
            dx, *dweights = torch.autograd.grad(y, [x, *weights], dy)
            dweight = next(d for d, w in zip(dweights, weights, strict=True) if w is layers["conv2"].weight)
            return (y.detach().permute(0, 2, 3, 1).numpy(), dx.permute(0, 2, 3, 1).numpy(),
                    dweight.permute(2, 3, 1, 0).numpy())

        return call


def _agrees(case: Case, theirs, tolerance: float) -> None:
    """Refuse to time what PyTorch does not confirm.

    In float64 everything has to agree. In float32 it is y and dL/dx of the median image: of a large batch some images have a
    value within rounding of zero that passes the rectifier in one and not in the other, and one of them changes a gradient by
    1e-3.
    """
    names = ("y", "dL/dx", "dL/dW2") if case.x.dtype == np.float64 else ("y", "dL/dx")
    for name, a, b in zip(names, case.ours(), theirs()):
        each = np.linalg.norm((a - b).reshape(len(a), -1), axis=1) / np.linalg.norm(b.reshape(len(b), -1), axis=1)
        difference = each.max() if a.dtype == np.float64 else np.median(each)
        if not difference < tolerance:
            raise AssertionError(f"PyTorch disagrees on {name} by {difference:.1e} with {case.unit} in {a.dtype}")


def rows(quick: bool) -> list[dict[str, Any]]:
    """PyTorch's time over ours, for both of its layouts."""
    lines = []
    for width, side in SIZES[-1:] if quick else SIZES:
        case = Case(width, side, 4 if quick else BATCH)
        for layout, channels_last in (("default", False), ("channels_last", True)):
            theirs = case.torch(channels_last) if peers.torch is not None else None
            if theirs is not None:
                exact = Case(width, side, 4, np.float64)
                _agrees(exact, exact.torch(channels_last), DOUBLE)
                _agrees(case, theirs, SINGLE)
            lines.append(machine.versus(f"w = {width}, {side} x {side}, {layout}", case.ours, theirs, "x torch",
                                        2 if quick else 9, target=TARGET, reason="no PyTorch"))
    return lines


def run(quick: bool) -> dict[str, Any]:
    """The table."""
    table = rows(quick)
    machine.print_table(f"bottleneck unit, forward and backward, batch {4 if quick else BATCH}", table)
    return {"unit": table}


if __name__ == "__main__":
    run("--quick" in sys.argv)
