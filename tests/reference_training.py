"""Naive NumPy twins of training in windows: rollouts with a readout, and their Jacobian by complex steps, entry by entry."""

import numpy as np
import reference


def parts(theta, cell, outputs, read):
    """The flat parameters as named arrays: the cell's, weight_hy, bias_hy."""
    params, offset = {}, 0
    for name, shape in {**cell.shapes, "weight_hy": (outputs, read), "bias_hy": (outputs,)}.items():
        size = int(np.prod(shape))
        params[name] = theta[offset:offset + size].reshape(shape)
        offset += size
    return params


def rollout(step, cell, theta, start, x, outputs, read):
    """States (T, n) and outputs (T, m1)."""
    params = parts(theta, cell, outputs, read)
    inner = {name: params[name] for name in cell.shapes}
    states = reference.loop(step, inner, x.astype(theta.dtype), start.astype(theta.dtype))
    return states, states[:, :read] @ params["weight_hy"].T + params["bias_hy"]


def residuals(step, cell, theta, start, x, y, weight, penalties, anchors, read):
    """sqrt(w) (outputs - y) of one window, then sqrt(penalty) (h - anchor) on its left and right overlap."""
    states, outputs = rollout(step, cell, theta, start, x, y.shape[1], read)
    overlap = anchors.shape[1]
    ends = states[:overlap], states[len(x) - overlap:]
    apart = [np.sqrt(penalty) * (end - anchor).ravel() for penalty, end, anchor in zip(penalties, ends, anchors)]
    return np.concatenate([(np.sqrt(weight)[:, None] * (outputs - y)).ravel(), *apart])


def jacobian(step, cell, theta, start, *rest):
    """d residuals / d(start, theta), column by column."""
    tiny, point = 1e-150, np.concatenate([start, theta]).astype(complex)
    columns = []
    for k in range(point.size):
        moved = point.copy()
        moved[k] += 1j * tiny
        columns.append(residuals(step, cell, moved[start.size:], moved[:start.size], *rest).imag / tiny)
    return np.array(columns).T


def damping_matrix(diagonal):
    """Geometric means of every entry and the largest."""
    return np.diag(np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max()) * diagonal.max()))


def levenberg_marquardt(step, cell, theta, start, x, y, read, steps, damping=1e-3):
    """Losses after each step with Nielsen's damping."""
    rest = (x, y, np.ones(len(x)), (0.0, 0.0), np.zeros((2, 0, start.size)), read)
    growth, losses = 2.0, []
    for _ in range(steps):
        r = residuals(step, cell, theta, start, *rest)
        J = jacobian(step, cell, theta, start, *rest)[:, start.size:]
        H, g, value = J.T @ J, J.T @ r, 0.5 * r @ r
        while True:
            move = -np.linalg.solve(H + damping * damping_matrix(H.diagonal()), g)
            tried = 0.5 * np.sum(residuals(step, cell, theta + move, start, *rest)**2)
            if tried < value:
                break
            damping, growth = damping * growth, 2 * growth
        gain = (value - tried) / -(g @ move + 0.5 * move @ H @ move)
        damping, growth, theta = damping * max(1 / 3, 1 - (2 * min(gain, 1.0) - 1)**3), 2.0, theta + move
        losses.append(tried)
    return np.array(losses)


def adam(theta, gradients, lr, betas=(0.9, 0.999), eps=1e-8, decay=0.0, decoupled=False, clip=None, factors=None):
    """Parameters, one flat vector, after each of the steps of Adam or AdamW, from the equations."""
    m, v, history = np.zeros_like(theta), np.zeros_like(theta), []
    for k, g in enumerate(gradients, 1):
        rate = lr * (factors[k - 1] if factors else 1.0)
        if clip is not None:
            g = g * min(1.0, clip / (np.sqrt(np.sum(g * g)) + 1e-6))
        if decoupled:
            theta = theta - rate * decay * theta
        else:
            g = g + decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        theta = theta - rate * (m / (1 - betas[0]**k)) / (np.sqrt(v / (1 - betas[1]**k)) + eps)
        history.append(theta)
    return np.array(history)


def layer_norm(x, weight=1.0, bias=0.0, eps=1e-5):
    """Every row less its mean, over its standard deviation."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean)**2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def glu(x):
    """The first half of every row times the sigmoid of the second."""
    half = x.shape[-1] // 2
    return x[..., :half] / (1 + np.exp(-x[..., half:]))


def splitmix(seed, count):
    """The first ``count`` numbers of SplitMix64, one after the other, as Python integers."""
    numbers, state, bits = [], seed % 2**64, 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & bits
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & bits
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & bits
        numbers.append(z ^ (z >> 31))
    return numbers


def dropout(x, rate, seed):
    """x / (1 - rate) where the number of the position, between 0 and 1, is not below the rate."""
    kept = [number >= rate * 2**64 for number in splitmix(seed, x.size)]
    return np.where(np.reshape(kept, x.shape), x / (1 - rate), 0.0)
