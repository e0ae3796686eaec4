"""Losses: the mean over what is counted of a batch, and its derivative."""

from __future__ import annotations

import numpy as np

from pitsolve import check
from pitsolve.training import check_training


def cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    r"""Cross-entropy of the softmax of the outputs.

    .. math:: L = -\frac{1}{N} \sum_{l_i \ge 0} \log \frac{e^{y_{i, l_i}}}{\sum_k e^{y_{ik}}}

    N is the number of labels that are not negative. If there is none, L and its derivative are zero.

    Parameters
    ----------
    outputs : ndarray (..., K)
        y, such as (B, K), or (B, T, K) with one label for every step; the largest of each row is subtracted first, so no size
        of it overflows.
    labels : ndarray (...) of int
        l, below K. Those below 0 are not counted: what lies beyond the end of a short sequence, or has no label.

    Returns
    -------
    loss : float
    doutputs : ndarray (..., K)
        dL/dy.

    Raises
    ------
    TypeError, ValueError
        Labels that are no integers, too large or of another shape.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> loss, doutputs = ps.training.cross_entropy(np.array([[1e4, 1e4], [3.0, 5.0]]), np.array([1, -1]))
    >>> round(loss, 6), doutputs
    (0.693147, array([[ 0.5, -0.5],
           [ 0. ,  0. ]]))
    """
    labels = check_training.labels(labels, outputs.shape).reshape(-1)
    rows = outputs.reshape(-1, outputs.shape[-1])
    if labels.size and labels.min() >= 0:
        loss, doutputs = _cross_entropy(rows, labels)
    else:
        counted = np.flatnonzero(labels >= 0)
        loss, doutputs = 0.0, np.zeros_like(rows)
        if counted.size:
            loss, doutputs[counted] = _cross_entropy(rows[counted], labels[counted])
    return loss, doutputs.reshape(outputs.shape)


def _cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    rows = np.arange(outputs.shape[0])
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(sums[:, 0]) - shifted[rows, labels], dtype=np.float64))
    doutputs = exponentials / sums
    doutputs[rows, labels] -= 1
    return loss, doutputs / outputs.dtype.type(outputs.shape[0])


def mean_squared(outputs: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    r"""Mean of the squared differences.

    .. math:: L = \frac{1}{N} \sum_i (y_i - t_i)^2

    N is the number of differences that are counted. If there is none, L and its derivative are zero.

    Parameters
    ----------
    outputs, targets : ndarray
        y and t, of one shape; t is converted to the dtype of y.
    counted : ndarray of bool, optional
        Which parts of the leading axes are counted, all by default: (B, T) for outputs (B, T, K).

    Returns
    -------
    loss : float
    doutputs : ndarray
        dL/dy.

    Raises
    ------
    TypeError, ValueError
        Shapes that differ, or ``counted`` that is not of bool.

    Examples
    --------
    >>> import numpy as np, pitsolve as ps
    >>> ps.training.mean_squared(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
    (2.0, array([[0., 2.]]))
    >>> ps.training.mean_squared(np.array([1.0, 3.0]), np.array([0.0, np.nan]), np.array([True, False]))
    (1.0, array([2., 0.]))
    """
    check.shape("targets", targets, outputs.shape, "like the outputs")
    if counted is None:
        return _mean_squared(outputs, targets)
    check_training.counted(counted, outputs.shape)
    loss, doutputs = 0.0, np.zeros_like(outputs)
    if counted.any():
        loss, doutputs[counted] = _mean_squared(outputs[counted], targets[counted])
    return loss, doutputs


def _mean_squared(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    difference = outputs - targets.astype(outputs.dtype, copy=False)
    return float(np.mean(difference * difference, dtype=np.float64)), difference * outputs.dtype.type(2 / difference.size)
