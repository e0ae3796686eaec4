"""The peers on the same card: arrays are there before the call that is timed, and a call ends when the card is done.

They compute in float32 as we do, not in its shortened form TF32. In Numba's simulator they run on the CPU, so that they run.
"""

import numpy as np

from bench import peers
from bench.peers import MISSING, WEIGHTS, Parameters, Peer, jax, jnp, torch
from pitsolve.backends.cuda.launch import SIMULATED

try:
    import cupy
except ImportError:
    cupy = None

NO_CARD = Peer(None, "installed without CUDA")


def _jax() -> Peer | None:
    """Why JAX cannot be compared with, or None."""
    if jax is None:
        return MISSING
    jax.config.update("jax_default_matmul_precision", "highest")
    return None if SIMULATED or any(device.platform == "gpu" for device in jax.devices()) else NO_CARD


def jax_affine_scan(A: np.ndarray, b: np.ndarray) -> Peer:
    """``jax.lax.associative_scan`` along the second axis of a batch, jitted; dense A (B, T, n, n)."""
    if reason := _jax():
        return reason
    scan = jax.jit(jax.vmap(lambda A, b: jax.lax.associative_scan(peers.compose, (A, b))[1]))
    arrays = jax.device_put((A, b))
    return Peer(lambda: scan(*arrays).block_until_ready())


def jax_deer(params: Parameters, x: np.ndarray, h0: np.ndarray, tol: float) -> Peer:
    """DEER in JAX for a batch (B, T, m), as its authors vectorise it; ``call()`` gives states and iterations."""
    if reason := _jax():
        return reason
    solve = jax.jit(jax.vmap(lambda params, x, h0: peers.deer_states("residual", tol, 100, params, x, h0), (None, 0, 0)))
    arrays = jax.device_put((params, x, h0))
    return Peer(lambda: jax.block_until_ready(solve(*arrays)))


def jax_deer_gradient(params: Parameters, x: np.ndarray, h0: np.ndarray, dstates: np.ndarray, tol: float) -> Peer:
    """Forward and gradient of sum(states * dstates) by DEER in JAX for a batch."""
    if reason := _jax():
        return reason
    states_of = peers.implicit_deer("residual", tol, 100)

    @jax.jit
    def gradient(params, x, h0, dstates):
        def loss(params, x, h0):
            return jnp.sum(jax.vmap(states_of, (None, 0, 0))(params, x, h0) * dstates)

        return jax.grad(loss, argnums=(0, 1, 2))(params, x, h0)

    arrays = jax.device_put((params, x, h0, dstates))
    return Peer(lambda: jax.block_until_ready(gradient(*arrays)))


def cupy_sums(b: np.ndarray) -> tuple[Peer, Peer]:
    """What CuPy has nearest to a diagonal scan of b (B, T, n): sums along time, which are the scan with A = 1, and a copy."""
    if cupy is None:
        return MISSING, MISSING
    if not cupy.cuda.is_available():
        return NO_CARD, NO_CARD
    values = cupy.asarray(b)

    def timed(call):
        def run():
            result = call()
            cupy.cuda.Device().synchronize()
            return result

        return Peer(run)

    return timed(lambda: cupy.cumsum(values, axis=1)), timed(values.copy)


def cudnn_gru(params: Parameters, x: np.ndarray, dstates: np.ndarray) -> Peer:
    """``torch.nn.GRU`` by cuDNN, forward and backward; ``call()`` gives the states, a tensor on the card."""
    if torch is None:
        return MISSING
    if not (SIMULATED or torch.cuda.is_available()):
        return NO_CARD
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    place = torch.device("cpu" if SIMULATED else "cuda")
    hidden, width = params["weight_hh"].shape[1], params["weight_ih"].shape[1]
    layer = torch.nn.GRU(width, hidden, batch_first=True).to(place)
    layer.load_state_dict({f"{name}_l0": torch.from_numpy(params[name]) for name in WEIGHTS})
    inputs, seed = torch.from_numpy(x).to(place).requires_grad_(), torch.from_numpy(dstates).to(place)

    def call():
        states = layer(inputs)[0]
        torch.autograd.grad(states, [*layer.parameters(), inputs], seed)
        if not SIMULATED:
            torch.cuda.synchronize()
        return states.detach()

    return Peer(call)
