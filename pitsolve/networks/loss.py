"""Losses: the mean over a batch, and its derivative."""

from __future__ import annotations

import numpy as np

from pitsolve import check


def cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    r"""Cross-entropy of the softmax of the outputs.

    .. math:: L = -\frac{1}{B} \sum_b \log \frac{e^{y_{b, l_b}}}{\sum_k e^{y_{bk}}}

    Parameters
    ----------
    outputs : ndarray (B, K)
        y; the largest of each row is subtracted first, so no size of it overflows.
    labels : ndarray (B,) of int
        l, from 0 to K - 1.

    Returns
    -------
    loss : float
    doutputs : ndarray (B, K)
        dL/dy.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> loss, doutputs = ps.networks.cross_entropy(np.array([[1e4, 1e4]]), np.array([1]))
    >>> round(loss, 6), doutputs
    (0.693147, array([[ 0.5, -0.5]]))
    """
    rows = np.arange(outputs.shape[0])
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(sums[:, 0]) - shifted[rows, labels], dtype=np.float64))
    doutputs = exponentials / sums
    doutputs[rows, labels] -= 1
    return loss, doutputs / outputs.dtype.type(outputs.shape[0])


def mean_squared(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    r"""Mean of the squared differences.

    .. math:: L = \frac{1}{B K} \sum_{b, k} (y_{bk} - t_{bk})^2

    Parameters
    ----------
    outputs, targets : ndarray
        y and t, of one shape; t is converted to the dtype of y.

    Returns
    -------
    loss : float
    doutputs : ndarray
        dL/dy.

    Raises
    ------
    ValueError
        Shapes that differ.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> ps.networks.mean_squared(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    (2.0, array([[0., 2.]]))
    """
    check.shape("targets", targets, outputs.shape, "like the outputs")
    difference = outputs - targets.astype(outputs.dtype, copy=False)
    return float(np.mean(difference * difference, dtype=np.float64)), difference * outputs.dtype.type(2 / difference.size)
