"""Hashes of the content of rows, and of whole arrays.

Axis letters: n rows, d dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit
from distclust.kernels.random import U_GAMMA, hash_rows, mix

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


def digest_values(values: np.ndarray, first: int = 0) -> int:
    """Return a number of 64 bits that stands for the bits of an array: the sum modulo 2^64 of a hash for each value.

    A hash is of the bits and the place of a value, so that sums of parts add up to that of the whole. Four times as
    fast as SHA-256, and no proof against someone who looks for equal sums.

    Parameters
    ----------
    values : float32 or float64 [n, d]
    first : int, default=0
        Place of the first value, where these are part of a larger array.

    Examples
    --------
    >>> values = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> whole = digest_values(values)
    >>> (digest_values(values[:1]) + digest_values(values[1:], first=2)) % 2**64 == whole
    True
    """
    values = read_argument(values, "values", _FLOATS, (None, None))
    bits = values.reshape(-1).view(np.uint32 if values.dtype == np.float32 else np.uint64)
    return int(_digest_bits(bits, np.uint64(first)))


@jit
def _digest_bits(bits, first):
    total = np.uint64(0)
    for i in range(bits.shape[0]):
        total += mix(np.uint64(bits[i]) + (first + np.uint64(i + 1)) * U_GAMMA)
    return total
