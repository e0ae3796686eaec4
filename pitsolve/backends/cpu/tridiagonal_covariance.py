"""Selected inversion: the diagonal blocks of the inverse of a block-tridiagonal matrix, from its block LDL^T factors."""

import numpy as np

from pitsolve.backends.cpu.small_matrices import add_matrix, product, shape_constants
from pitsolve.compile import kernel, specialise


@kernel
def invert_backward(gains, inverses, scratch):
    """P_t = S_t^-1 + B_{t+1}^T P_{t+1} B_{t+1}, last to first; ``inverses`` holds S_t^-1 and is overwritten by P_t."""
    for t in range(inverses.shape[0] - 2, -1, -1):
        product(scratch[0], inverses[t + 1], gains[t + 1], False)
        product(scratch[1], gains[t + 1], scratch[0], True)
        add_matrix(inverses[t], scratch[1])


def diagonal_of_inverse(gains: np.ndarray, inverses: np.ndarray) -> np.ndarray:
    """The blocks (T, n, n), symmetric to the last bit; the factors of one window over all steps are lost."""
    n = inverses.shape[1]
    scratch = np.empty((2, n, n), inverses.dtype)
    specialise(invert_backward, **shape_constants(n, inverses.dtype))(gains, inverses, scratch)
    return (inverses + inverses.transpose(0, 2, 1)) / 2
