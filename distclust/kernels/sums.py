"""Sums over the columns of a table, for rows that may become medoids.

Axis letters: n candidates, b columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit

Floats = npt.NDArray[np.float64]


def weighted_row_sums(table: np.ndarray, weights: Floats) -> Floats:
    """Return the weighted sum of each row, added in column order.

    Parameters
    ----------
    table : float32 or float64 [n, b]
    weights : float64 [b]

    Returns
    -------
    float64 [n]
        The same bits wherever the row lies in the table.

    Examples
    --------
    >>> weighted_row_sums(np.array([[1.0, 2.0], [0.0, 5.0]]), np.array([1.0, 10.0])).tolist()
    [21.0, 50.0]
    """
    table = read_argument(table, "table", ("float32", "float64"), (None, None))
    sums = np.empty(len(table))
    _weighted_row_sums(table, read_argument(weights, "weights", "float64", (table.shape[1],)), sums)
    return sums


@jit
def _weighted_row_sums(table, weights, sums):
    for i in range(table.shape[0]):
        total = 0.0
        for j in range(table.shape[1]):
            total += weights[j] * np.float64(table[i, j])
        sums[i] = total
