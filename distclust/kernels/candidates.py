"""Nearest centres among candidates: the neighbours of the centre that a row has now.

Axis letters: n rows, d dimensions, k centres, m candidates of a centre.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import make_row_sqdist


def assign_candidates(
    x: np.ndarray,
    centers: np.ndarray,
    candidates: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
    hops: int,
) -> npt.NDArray[np.int32]:
    """Move every row to the nearest of its centre and that centre's candidates, a few times over.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    centers : [k, d], dtype of x
        Centres.
    candidates : int32 [k, m]
        Centres to look at from each centre; after the first -1 in a row nothing is read.
    labels : int32 [n]
        Centre of each row now, 0 ... k-1.
    hops : int
        Most moves of a row. A row stops where no candidate is nearer.

    Returns
    -------
    int32 [n]
        Squared distances are taken in float64 as in `lloyd.row_sqdist`; the lowest index wins among equals.

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [2.0]])
    >>> beside = np.array([[1, -1], [0, 2], [1, -1]], np.int32)
    >>> start = np.zeros(1, np.int32)
    >>> assign_candidates(np.array([[1.9]]), line, beside, start, 1).tolist()
    [1]
    >>> assign_candidates(np.array([[1.9]]), line, beside, start, 5).tolist()
    [2]
    """
    x = read_argument(x, "x", ("float32", "float64"), (None, None))
    n, d = x.shape
    centers = read_argument(centers, "centers", x.dtype.name, (None, d))
    candidates = read_argument(candidates, "candidates", "int32", (len(centers), None))
    labels = read_argument(labels, "labels", "int32", (n,))
    out = np.empty(n, np.int32)
    _candidates_kernel(x.dtype.name)(x, centers, candidates, labels, hops, out)
    return out


@once
def _candidates_kernel(dtype: str) -> Any:
    sqdist_of_row = make_row_sqdist(dtype)
    size = SIZES[dtype]

    @jit(name=f"assign_candidates_{dtype}")
    def assign_candidates(x, centers, candidates, labels, hops, out):
        n, d = x.shape
        m = candidates.shape[1]
        row_bytes = d * size
        x_at, centers_at = address(x), address(centers)
        for r in range(n):
            here = labels[r]
            best, nearest = here, sqdist_of_row(x_at + r * row_bytes, centers_at + here * row_bytes, d)
            for _ in range(hops):
                for i in range(m):
                    j = candidates[here, i]
                    if j < 0:
                        break
                    if j == here:
                        continue
                    sqdist = sqdist_of_row(x_at + r * row_bytes, centers_at + j * row_bytes, d)
                    if sqdist < nearest or (sqdist == nearest and j < best):
                        best, nearest = j, sqdist
                if best == here:
                    break
                here = best
            out[r] = best

    return assign_candidates
