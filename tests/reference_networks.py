"""Naive NumPy twins of the layers on images, straight from their definitions."""

import numpy as np


def convolution(x, weight, stride=1):
    size = weight.shape[0]
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    batch, height, width, _ = x.shape
    y = np.zeros((batch, -(-height // stride), -(-width // stride), weight.shape[3]), x.dtype)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            patch = padded[:, i * stride:i * stride + size, j * stride:j * stride + size]
            y[:, i, j] = np.einsum("nabd,abdc->nc", patch, weight)
    return y


def batch_norm(x, p, training, centred=True):
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    if not centred:
        mean, variance = 0.0, (x**2).mean(axis=(0, 1, 2))
    if not training:
        mean, variance = p.get("running_mean", 0.0), p["running_var"]
    return p["scale"] * (x - mean) / np.sqrt(variance + 1e-5) + p.get("shift", 0.0)


def bottleneck(x, p, stride, training, centred=True):
    y = x
    for number in (1, 2, 3):
        own = {name.partition(".")[2]: value for name, value in p.items() if name.startswith(f"norm{number}.")}
        y = np.maximum(0.0, batch_norm(y, own, training, centred))
        y = convolution(y, p[f"conv{number}.weight"], stride if number == 2 else 1)
    return y + (convolution(x, p["shortcut.weight"], stride) if "shortcut.weight" in p else x)
