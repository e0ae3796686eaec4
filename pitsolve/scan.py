"""The affine recurrence y_t = A_t y_{t-1} + b_t over all steps, and the associative operator behind it."""

from __future__ import annotations

import numpy as np

from pitsolve import check, check_scan
from pitsolve.place import placed


def _times(left: np.ndarray, right: np.ndarray, extra: int) -> np.ndarray:
    """Products of matrices stored as diagonals (``extra`` = 0), dense matrices (1) or blocks (2)."""
    return left @ right if extra else left * right


def _apply(A: np.ndarray, b: np.ndarray, extra: int) -> np.ndarray:
    """A b for matrices stored as diagonals (``extra`` = 0), dense matrices (1) or blocks (2)."""
    if extra == 0:
        return A * b
    parts = b.reshape(A.shape[:-1]) if extra == 2 else b
    return (A @ parts[..., None])[..., 0].reshape(b.shape)


def compose(
    earlier: tuple[np.ndarray, np.ndarray], later: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The affine map of two steps from the maps of each: the associative operator of the scan.

    (A_1, b_1), (A_2, b_2)  ->  (A_2 A_1, A_2 b_1 + b_2)

    Parameters
    ----------
    earlier, later : pair (A, b) of ndarray
        b is (..., n); A is (..., n) for diagonal matrices, (..., n, n) for dense ones and (..., k, n // k, n // k) for
        block-diagonal ones.  float32 or float64.  Both pairs have the same shapes, any leading axes included.

    Returns
    -------
    pair (A, b) of ndarray
        The map that applies ``earlier`` first, in the same form.

    Raises
    ------
    TypeError
        If an argument is not a pair, or the arrays are not all float32 or all float64.
    ValueError
        If the shapes do not fit.

    References
    ----------
    .. [1] G. E. Blelloch, "Prefix sums and their applications", CMU-CS-90-190, 1990, section 1.4.1.
    .. [2] M. F. Kasim et al., "Parallelizing non-linear sequential models over the sequence length", 2024, slide
       "the custom operator".

    Examples
    --------
    >>> import numpy as np
    >>> A, b = compose((np.array([2.0]), np.array([1.0])), (np.array([3.0]), np.array([10.0])))
    >>> A.item(), b.item()
    (6.0, 13.0)
    """
    A1, b1 = check_scan.affine_map("earlier", earlier)
    A2, b2 = check_scan.affine_map("later", later)
    check.shape("later[1]", b2, b1.shape, "as in earlier")
    check.shape("later[0]", A2, A1.shape, "as in earlier")
    check.same_dtype({"earlier[0]": A1, "earlier[1]": b1, "later[0]": A2, "later[1]": b2})
    extra = A1.ndim - b1.ndim
    return _times(A2, A1, extra), _apply(A2, b1, extra) + b2


def affine_scan(
    A: np.ndarray, b: np.ndarray, y0: np.ndarray | None = None, *, reverse: bool = False, backend: str = "auto"
) -> np.ndarray:
    """All states of an affine recurrence.

    y_t = A_t y_{t-1} + b_t,  t = 0 .. T-1,  y_{-1} = y0;      reverse: y_t = A_t y_{t+1} + b_t,  y_T = y0.

    Parameters
    ----------
    A : ndarray
        (..., T, n) diagonals, (..., T, n, n) dense matrices or (..., T, k, n // k, n // k) diagonal blocks; the number
        of axes beyond those of ``b`` (0, 1 or 2) tells which.
    b : ndarray, (..., T, n)
        Any number of leading batch axes.  float32 or float64, like ``A`` and ``y0``.
    y0 : ndarray, (..., n), optional
        The state before the first step.  Zero by default.
    reverse : bool
        Run from the last step to the first.
    backend : {"auto", "cpu", "cuda"}
        Where to compute; "auto" where the arrays are, on a CUDA device or on the host.

    Returns
    -------
    ndarray, (..., T, n)
        A new array of the dtype of ``b``.  It does not depend on the number of threads, to the last bit.  A recurrence
        that overflows is infinite or NaN from there on.

    Raises
    ------
    TypeError
        If an array is neither float32 nor float64, or they mix the two.
    ValueError
        If shapes do not fit, a value is NaN or infinite, or ``backend`` is unknown.

    References
    ----------
    .. [1] G. E. Blelloch, "Prefix sums and their applications", CMU-CS-90-190, 1990, section 1.4.
    .. [2] M. F. Kasim et al., "Parallelizing non-linear sequential models over the sequence length", 2024, slide
       "the custom operator".

    Examples
    --------
    >>> import numpy as np
    >>> affine_scan(np.full((4, 1), 0.5), np.ones((4, 1)))[:, 0]
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    reverse = check.flag("reverse", reverse)
    with placed(backend, b, A, y0) as place:
        A, b, y0 = check_scan.scan_arguments(A, b, y0)
        arrays = place.backend.arrays
        if b.size == 0:
            return place.give(arrays.empty(b.shape, b.dtype))
        steps, n = b.shape[-2:]
        rows = b.size // (steps * n)
        matrices = {0: (n,), 1: (1, n, n), 2: A.shape[-3:]}[A.ndim - b.ndim]
        out = arrays.empty((rows, steps, n), b.dtype)
        place.backend.scan(*(place.array(check.contiguous(value).reshape(shape)) for value, shape in (
            (A, (rows, steps, *matrices)), (b, (rows, steps, n)), (y0, (rows, n)))),
            out, np.zeros(rows, np.int64), np.full(rows, steps, np.int64), reverse)
        # NaN and infinity never turn finite again, so the last states tell without a pass over the input.
        if not arrays.finite(arrays.at_step(out, 0 if reverse else steps - 1)).all():
            check.all_finite("A", A)
            check.all_finite("b", b)
        return place.give(out.reshape(b.shape))
