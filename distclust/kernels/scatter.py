"""Exact sums of products by group: what covariances are made of.

Axis letters: n rows, d dimensions, g groups, p = d (d + 1) / 2 products.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, weights_argument, write_argument
from distclust.kernels._jit import jit
from distclust.kernels.lloyd import LOW_PART

_FLOATS = ("float32", "float64")


def add_products(
    x: np.ndarray,
    weights: npt.NDArray[np.float64] | None,
    slots: npt.NDArray[np.int32],
    scale: float,
    hi: npt.NDArray[np.int64],
    lo: npt.NDArray[np.int64],
) -> None:
    """Add ``w * x x^T`` of rows to the two-part integer sums of their groups, in place.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    weights : float64 [n] or None
        Row weights; None for 1.
    slots : int32 [n]
        Group of each row, 0 ... g-1; rows with -1 are left out.
    scale : float
        Power of two.
    hi, lo : int64 [g, p]
        Sums of the upper triangle, row by row; two parts as in `lloyd.fixed_sums`.

    Examples
    --------
    >>> hi, lo = np.zeros((1, 3), np.int64), np.zeros((1, 3), np.int64)
    >>> add_products(np.array([[1.0, 2.0], [3.0, 0.0]]), None, np.zeros(2, np.int32), 1.0, hi, lo)
    >>> hi.tolist()
    [[10, 2, 4]]
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    n, d = x.shape
    g, p = hi.shape[0], d * (d + 1) // 2
    _add_products(
        x,
        weights_argument(weights, n),
        read_argument(slots, "slots", "int32", (n,)),
        float(scale),
        write_argument(hi, "hi", "int64", (g, p)),
        write_argument(lo, "lo", "int64", (g, p)),
    )


@jit
def _add_products(x, weights, slots, scale, hi, lo):
    weighted = weights.shape[0] > 0
    d = x.shape[1]
    for r in range(x.shape[0]):
        slot = slots[r]
        if slot < 0:
            continue
        w = weights[r] * scale if weighted else scale
        at = 0
        for i in range(d):
            value = w * np.float64(x[r, i])
            for j in range(i, d):
                term = value * np.float64(x[r, j])
                whole = np.rint(term)
                hi[slot, at] += np.int64(whole)
                lo[slot, at] += np.int64(np.rint((term - whole) * LOW_PART))
                at += 1
