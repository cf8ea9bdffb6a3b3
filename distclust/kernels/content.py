"""Hashes of the content of rows.

Axis letters: n rows, d dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels.random import hash_rows

_FLOATS = ("float32", "float64")


def hash_content(x: np.ndarray) -> npt.NDArray[np.uint64]:
    """Return a hash of the values of each row: a sample by it does not depend on the order of the rows.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows; equal rows have equal hashes, and 0.0 is equal to -0.0.

    Returns
    -------
    uint64 [n]

    Examples
    --------
    >>> hashes = hash_content(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
    >>> bool(hashes[0] == hashes[2]), bool(hashes[0] == hashes[1])
    (True, False)
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    out: npt.NDArray[Any] = np.zeros(len(x), np.uint64)
    for column in range(x.shape[1]):
        # + 0.0 turns -0.0 into 0.0
        bits = (x[:, column].astype(np.float64) + 0.0).view(np.int64)
        out = hash_rows((out + hash_rows(bits)).view(np.int64))
    return out
