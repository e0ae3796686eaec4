"""A propagator of the user, an ``njit`` function, evaluated for many windows at once in threads."""

from numba import prange

from pitsolve.compile import constant, kernel

propagator = constant("propagator")


@kernel(parallel=True)
def evaluate(states, results, first):
    """``results[n]`` = propagator(states[n], n) for first <= n."""
    for n in prange(first, results.shape[0]):
        results[n] = propagator(states[n], n)
