"""Nearest other cluster: what silhouettes compare a row's own cluster with.

Axis letters: n rows, k clusters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit


def nearest_other(
    table: np.ndarray, extra: npt.NDArray[np.float64], own: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Find the best cluster of every row apart from its own.

    Parameters
    ----------
    table : float32 or float64 [n, k]
        ``||c||^2 - 2 x.c``, see `nearest.distance_table`.
    extra : float64 [k]
        Added to the column; +inf leaves a cluster out.
    own : int32 [n]
        The cluster that does not count; -1 for none.

    Returns
    -------
    int32 [n]
        Cluster of the least ``table + extra``, the lowest one among equals; -1 where there is no other.

    Examples
    --------
    >>> table = np.array([[0.0, 1.0, 5.0], [7.0, 2.0, 9.0]])
    >>> nearest_other(table, np.array([0.0, 9.0, 0.0]), np.array([0, 1], np.int32)).tolist()
    [2, 0]
    """
    table = read_argument(table, "table", ("float32", "float64"), (None, None))
    n, k = table.shape
    out = np.empty(n, np.int32)
    extra = read_argument(extra, "extra", "float64", (k,))
    _nearest_other(table, extra, read_argument(own, "own", "int32", (n,)), out)
    return out


@jit
def _nearest_other(table, extra, own, out):
    for i in range(table.shape[0]):
        best, at = np.inf, -1
        for j in range(table.shape[1]):
            value = np.float64(table[i, j]) + extra[j]
            if value < best and j != own[i]:
                best, at = value, j
        out[i] = at
