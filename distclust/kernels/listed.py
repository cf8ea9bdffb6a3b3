"""Rows compared with the centres of a list each, in place of all centres.

A list is made once, under centres that are near the present ones (`distclust.kernels.screened.list_near`); the pass
then costs 16 products a row, whatever the number of centres. The label is the nearest of the list, which is mostly,
not always, the nearest of all.

Axis letters: n rows, d dimensions, k centres.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import address
from distclust.kernels._jit import jit
from distclust.kernels._listed import nearest_listed
from distclust.kernels.screened import LISTED

LEAST_WIDTH = 16
_SIZE = 4


def assign_listed(
    x: np.ndarray,
    centers: npt.NDArray[np.float32],
    norms: npt.NDArray[np.float32],
    lists: npt.NDArray[np.uint16],
) -> npt.NDArray[np.int32]:
    """Return for every row the nearest of its centres, the lowest one among equals.

    Parameters
    ----------
    x : float32 [n, d]
        Rows, d >= 16; or their coordinates on some axes.
    centers : float32 [k, d]
        Centres; or their coordinates on the same axes.
    norms : float32 [k]
        Squared lengths of the centres.
    lists : uint16 [n, 16]
        Centres of each row, 0 ... k-1; a centre may be there twice.

    Returns
    -------
    int32 [n]
        Bits do not depend on the machine: products are summed in a fixed order.

    Examples
    --------
    >>> centers = np.repeat(np.arange(20, dtype=np.float32)[:, None], 16, axis=1)
    >>> norms = (centers**2).sum(axis=1)
    >>> lists = np.arange(16, dtype=np.uint16)[None]
    >>> assign_listed(centers[[9]] + np.float32(0.2), centers, norms, lists).tolist()
    [9]
    """
    centers = read_argument(centers, "centers", "float32", (None, None))
    k, d = centers.shape
    if d < LEAST_WIDTH:
        raise ValueError(f"x has {d} columns; lists are for {LEAST_WIDTH} and more.")
    x = read_argument(x, "x", "float32", (None, d))
    lists = read_argument(lists, "lists", "uint16", (len(x), LISTED))
    labels = np.empty(len(x), np.int32)
    if not _assign_listed(x, centers, read_argument(norms, "norms", "float32", (k,)), lists, labels):
        raise ValueError(f"lists name centres beyond the {k} that there are.")
    return labels


@jit
def _assign_listed(x, centers, norms, lists, labels):
    (n, d), k = x.shape, centers.shape[0]
    x_at, centers_at, norms_at, lists_at = address(x), address(centers), address(norms), address(lists)
    for r in range(n):
        for place in lists[r]:
            if place >= k:
                return False
        labels[r] = nearest_listed(x_at + r * d * _SIZE, centers_at, norms_at, d, lists_at + r * LISTED * 2)
    return True
