"""The lowest values of each row of a table.

Axis letters: n rows, k columns, m values kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit


def lowest_columns(table: np.ndarray, m: int) -> npt.NDArray[np.int32]:
    """Return the columns of the m lowest values of each row, the lowest first, the lowest column first among equals.

    Parameters
    ----------
    table : float32 or float64 [n, k]
        Values without NaN, such as those of `distclust.kernels.nearest.distance_table`.
    m : int
        How many, 1 ... k.

    Returns
    -------
    int32 [n, m]

    Examples
    --------
    >>> lowest_columns(np.array([[3.0, 1.0, 2.0, 1.0]]), 3).tolist()
    [[1, 3, 2]]
    """
    table = read_argument(table, "table", ("float32", "float64"), (None, None))
    if not 1 <= m <= table.shape[1]:
        raise ValueError(f"m is {m}; 1 to {table.shape[1]} is allowed.")
    columns = np.empty((len(table), m), np.int32)
    _lowest_columns(table, columns, np.empty(m, table.dtype))
    return columns


@jit
def _lowest_columns(table, columns, values):
    n, k = table.shape
    m = values.shape[0]
    for r in range(n):
        for j in range(k):
            value = table[r, j]
            if j < m:
                at = j
            elif value < values[m - 1]:
                at = m - 1
            else:
                continue
            while at > 0 and value < values[at - 1]:
                values[at] = values[at - 1]
                columns[r, at] = columns[r, at - 1]
                at -= 1
            values[at] = value
            columns[r, at] = j
