"""The lowest values of each row of a table.

Axis letters: n rows, k columns, m values kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
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


def keep_lowest(
    table: np.ndarray,
    first: int,
    rows: npt.NDArray[np.int64],
    values: np.ndarray,
    columns: npt.NDArray[np.int32],
) -> None:
    """Put the columns of a table into running lists of the lowest, in place.

    Parameters
    ----------
    table : float32 or float64 [n, k]
        Values without NaN.
    first : int
        Number of its first column.
    rows : int64 [n]
        List of each row of the table.
    values : [l, m], dtype of the table
        The lowest values so far, ascending; +inf where there are fewer.
    columns : int32 [l, m]
        Their columns, each list in order of (value, column); in whatever order tables come, the lists end the same.

    Examples
    --------
    >>> values, columns = np.full((1, 2), np.inf), np.full((1, 2), -1, np.int32)
    >>> keep_lowest(np.array([[3.0, 1.0]]), 7, np.zeros(1, np.int64), values, columns)
    >>> keep_lowest(np.array([[1.0, 2.0]]), 0, np.zeros(1, np.int64), values, columns)
    >>> columns.tolist()
    [[0, 8]]
    """
    table = read_argument(table, "table", ("float32", "float64"), (None, None))
    lists = (len(values), values.shape[1])
    _keep_lowest(
        table,
        first,
        read_argument(rows, "rows", "int64", (len(table),)),
        write_argument(values, "values", table.dtype.name, lists),
        write_argument(columns, "columns", "int32", lists),
    )


@jit
def _keep_lowest(table, first, rows, values, columns):
    n, k = table.shape
    m = values.shape[1]
    for r in range(n):
        row = rows[r]
        for j in range(k):
            value, column = table[r, j], first + j
            if value > values[row, m - 1] or (value == values[row, m - 1] and column > columns[row, m - 1]):
                continue
            at = m - 1
            while at > 0 and (
                value < values[row, at - 1] or (value == values[row, at - 1] and column < columns[row, at - 1])
            ):
                values[row, at] = values[row, at - 1]
                columns[row, at] = columns[row, at - 1]
                at -= 1
            values[row, at] = value
            columns[row, at] = column


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
