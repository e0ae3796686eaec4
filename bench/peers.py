"""The peers: what someone would run instead of pitsolve, each written as its own authors would, and plain loops.

A peer that is not installed is ``Peer(None, "not installed")``. Every peer takes and gives float32 NumPy arrays, has
converted its inputs before the call that is timed, and returns when its result is there. The loops are float64 oracles.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = jnp = None
try:
    import torch
except ImportError:
    torch = None

Parameters = dict[str, np.ndarray]
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Peer(NamedTuple):
    """``call()`` does the work and returns NumPy arrays or plain numbers; None with a ``reason`` where it cannot."""

    call: Callable[[], Any] | None
    reason: str = ""


MISSING = Peer(None, "not installed")


def affine_loop(A: np.ndarray, b: np.ndarray, y0: np.ndarray) -> np.ndarray:
    """y_t = A_t y_{t-1} + b_t in float64; A is (T, n) or (T, n, n), b is (T, n)."""
    y, out = y0.astype(np.float64), np.empty(b.shape)
    for t in range(len(b)):
        y = (A[t] * y if A.ndim == 2 else A[t] @ y) + b[t]
        out[t] = y
    return out


def gru_loop(params: Parameters, x: np.ndarray, h0: np.ndarray) -> np.ndarray:
    """States (B, T, n) of a GRU with PyTorch's equations and gate order (r, z, c), in float64."""
    weight_ih, weight_hh, bias_ih, bias_hh = (params[name].astype(np.float64) for name in WEIGHTS)
    h, states = h0.astype(np.float64), np.empty((*x.shape[:2], h0.shape[-1]))
    for t in range(x.shape[1]):
        from_x = np.split(x[:, t] @ weight_ih.T + bias_ih, 3, axis=-1)
        from_h = np.split(h @ weight_hh.T + bias_hh, 3, axis=-1)
        reset, update = (1 / (1 + np.exp(-from_x[i] - from_h[i])) for i in range(2))
        h = (1 - update) * np.tanh(from_x[2] + reset * from_h[2]) + update * h
        states[:, t] = h
    return states


def jax_affine_scan(A: np.ndarray, b: np.ndarray, y0: np.ndarray) -> Peer:
    """``jax.lax.associative_scan`` of (A_t, b_t), jitted; y0 goes into b_1, which spares it a longer array."""
    if jax is None:
        return MISSING
    diagonal = A.ndim == b.ndim

    @jax.jit
    def scan(A, b, y0):
        first = A[0] * y0 if diagonal else A[0] @ y0
        return jax.lax.associative_scan(compose_diagonal if diagonal else compose, (A, b.at[0].add(first)))[1]

    arrays = jax.device_put((A, b, y0))
    return Peer(lambda: np.asarray(scan(*arrays).block_until_ready()))


def compose_diagonal(earlier, later):
    return later[0] * earlier[0], later[0] * earlier[1] + later[1]


def compose(earlier, later):
    return later[0] @ earlier[0], jnp.einsum("...ij,...j->...i", later[0], earlier[1]) + later[1]


def _gru_step(params, h, x):
    """One GRU step in JAX for a single h (n,) and x (m,)."""
    from_x = jnp.split(params["weight_ih"] @ x + params["bias_ih"], 3)
    from_h = jnp.split(params["weight_hh"] @ h + params["bias_hh"], 3)
    reset, update = (jax.nn.sigmoid(from_x[i] + from_h[i]) for i in range(2))
    return (1 - update) * jnp.tanh(from_x[2] + reset * from_h[2]) + update * h


def _linearise(params, previous, x):
    """f(h_{t-1}, x_t) and its dense Jacobian at every t."""
    f = jax.vmap(_gru_step, (None, 0, 0))(params, previous, x)
    return f, jax.vmap(jax.jacfwd(_gru_step, argnums=1), (None, 0, 0))(params, previous, x)


def _shift(states, h0):
    return jnp.concatenate([h0[None], states[:-1]])


def deer_states(criterion, tol, max_iter, params, x, h0):
    """DEER (Lim, Zhu, Selfridge and Kasim, ICLR 2024) as its authors' repository runs it: states, iterations."""
    identity = jnp.eye(len(h0), dtype=h0.dtype)[None]

    def iterate(carry):
        states, _, k = carry
        previous = _shift(states, h0)
        f, J = _linearise(params, previous, x)
        z = f - jnp.einsum("tij,tj->ti", J, previous)
        elements = jnp.concatenate([identity, J]), jnp.concatenate([h0[None], z])
        new = jax.lax.associative_scan(compose, elements)[1][1:]
        new = jnp.clip(new, -1e8, 1e8)
        new = jnp.where(jnp.isnan(new), 0.0, new)
        if criterion == "step":
            done = jnp.all(jnp.abs(new - states) <= tol[0] + tol[1] * jnp.abs(new))
        else:
            residual = new - jax.vmap(_gru_step, (None, 0, 0))(params, _shift(new, h0), x)
            done = jnp.max(jnp.abs(residual)) <= tol
        return new, done, k + 1

    start = jnp.broadcast_to(h0, (len(x), len(h0))), jnp.array(False), 0
    states, _, iterations = jax.lax.while_loop(lambda c: ~c[1] & (c[2] < max_iter), iterate, start)
    return states, iterations


def implicit_deer(criterion, tol, max_iter):
    """The same with the gradient of the solution: one reverse associative scan with J^T, then products with df/dp.

    J is evaluated once more at the solution, where the authors keep the one before it: that costs a per cent or two.
    """

    @jax.custom_vjp
    def states(params, x, h0):
        return deer_states(criterion, tol, max_iter, params, x, h0)[0]

    def forward(params, x, h0):
        solution = states(params, x, h0)
        return solution, (params, x, h0, solution)

    def backward(saved, dstates):
        params, x, h0, solution = saved
        previous = _shift(solution, h0)
        _, J = _linearise(params, previous, x)
        transposed = jnp.concatenate([jnp.swapaxes(J[1:], 1, 2), jnp.zeros_like(J[:1])])
        adjoint = jax.lax.associative_scan(compose, (transposed, dstates), reverse=True)[1]
        _, pull = jax.vjp(lambda p, h, u: jax.vmap(_gru_step, (None, 0, 0))(p, h, u), params, previous, x)
        dparams, dprevious, dx = pull(adjoint)
        return dparams, dx, dprevious[0]

    states.defvjp(forward, backward)
    return states


def jax_deer(params: Parameters, x: np.ndarray, h0: np.ndarray, *, criterion: str = "residual",
             tol: float | tuple[float, float] = 1e-5, max_iter: int = 100) -> Peer:
    """DEER in JAX for a GRU; ``call()`` gives (states, iterations).

    Parameters
    ----------
    params : dict
        ``torch.nn.GRU``'s names, shapes and gate order.
    x, h0 : ndarray
        (T, m) and (n,), one sequence.
    criterion : {"residual", "step"}
        Stop when max |r| <= tol, or as the paper does when |new - old| <= tol[0] + tol[1] |new| everywhere.
    tol : float or pair of floats
        The paper's pair for float32 is (1e-4, 1e-3).
    max_iter : int
        Most iterations.
    """
    if jax is None:
        return MISSING
    solve = jax.jit(functools.partial(deer_states, criterion, tol, max_iter))
    arrays = jax.device_put((params, x, h0))

    def call():
        states, iterations = jax.block_until_ready(solve(*arrays))
        return np.asarray(states), int(iterations)

    return Peer(call)


def jax_deer_gradient(params: Parameters, x: np.ndarray, h0: np.ndarray, dstates: np.ndarray, *,
                      criterion: str = "residual", tol: float | tuple[float, float] = 1e-5,
                      max_iter: int = 100) -> Peer:
    """Forward and gradient of sum(states * dstates) by DEER in JAX; ``call()`` gives (states, dparams, dx, dh0)."""
    if jax is None:
        return MISSING
    states_of = implicit_deer(criterion, tol, max_iter)

    @jax.jit
    def solve(params, x, h0, dstates):
        states, pull = jax.vjp(states_of, params, x, h0)
        return states, *pull(dstates)

    arrays = jax.device_put((params, x, h0, dstates))
    return Peer(lambda: jax.tree.map(np.asarray, jax.block_until_ready(solve(*arrays))))


def _torch_layer(params: Parameters) -> "torch.nn.GRU":
    hidden, width = params["weight_hh"].shape[1], params["weight_ih"].shape[1]
    layer = torch.nn.GRU(width, hidden, batch_first=True)
    layer.load_state_dict({f"{name}_l0": torch.from_numpy(params[name]) for name in WEIGHTS})
    return layer


def torch_gru(params: Parameters, x: np.ndarray, h0: np.ndarray, threads: int) -> Peer:
    """``torch.nn.GRU`` forward without a graph; x (B, T, m), h0 (B, n); ``call()`` gives the states (B, T, n)."""
    if torch is None:
        return MISSING
    layer, inputs, start = _torch_layer(params), torch.from_numpy(x), torch.from_numpy(h0)[None]

    def call():
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return layer(inputs, start)[0].numpy()

    return Peer(call)


def torch_gru_gradient(params: Parameters, x: np.ndarray, h0: np.ndarray, dstates: np.ndarray, threads: int) -> Peer:
    """Forward and gradient of sum(states * dstates) by ``torch.nn.GRU``; as :func:`jax_deer_gradient`, batched."""
    if torch is None:
        return MISSING
    layer, seed = _torch_layer(params), torch.from_numpy(dstates)
    inputs, start = torch.from_numpy(x).requires_grad_(), torch.from_numpy(h0)[None].requires_grad_()
    weights = [getattr(layer, f"{name}_l0") for name in WEIGHTS]

    def call():
        torch.set_num_threads(threads)
        states = layer(inputs, start)[0]
        *dweights, dx, dh0 = (g.numpy() for g in torch.autograd.grad(states, [*weights, inputs, start], seed))
        return states.detach().numpy(), dict(zip(WEIGHTS, dweights, strict=True)), dx, dh0[0]

    return Peer(call)
