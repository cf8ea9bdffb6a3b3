"""Binary trees of centres: rows go down to their leaf, at every node to the nearer child; leaves are split in two.

Axis letters: n rows, d dimensions, m nodes, p splits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, weights_argument, write_argument
from distclust.kernels._emit import SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import make_add_row, make_row_sqdist
from distclust.kernels.lloyd import LOW_PART


def descend(x: np.ndarray, centers: np.ndarray, children: npt.NDArray[np.int32], nodes: npt.NDArray[np.int32]) -> None:
    """Move every row from the node where it is down to its leaf, in place.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    centers : [m, d], dtype of x
        Centres of the nodes.
    children : int32 [m, 2]
        Nodes below each node; -1 and -1 for a leaf.
    nodes : int32 [n]
        Where each row is, 0 ... m-1. At each step it goes to the child of lower squared distance, taken in float64
        as in `lloyd.row_sqdist`, and to the first child where both are equally far.

    Raises
    ------
    ValueError
        Shapes or dtypes do not fit together.

    Examples
    --------
    >>> nodes = np.zeros(3, np.int32)
    >>> centers = np.array([[0.0], [-1.0], [1.0]])
    >>> descend(np.array([[-3.0], [2.0], [0.0]]), centers, np.array([[1, 2], [-1, -1], [-1, -1]], np.int32), nodes)
    >>> nodes.tolist()
    [1, 2, 1]
    """
    x = read_argument(x, "x", ("float32", "float64"), (None, None))
    n, d = x.shape
    centers = read_argument(centers, "centers", x.dtype.name, (None, d))
    children = read_argument(children, "children", "int32", (len(centers), 2))
    _descend_kernel(x.dtype.name)(x, centers, children, write_argument(nodes, "nodes", "int32", (n,)))


def split_rows(
    x: np.ndarray,
    weights: npt.NDArray[np.float64] | None,
    slots: npt.NDArray[np.int32],
    points: np.ndarray,
    widths: npt.NDArray[np.float64],
    scales: npt.NDArray[np.float64],
    mass_scale: float,
    inertia_scale: float,
    sums: npt.NDArray[np.int64],
    mass: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    hi: npt.NDArray[np.int64],
    lo: npt.NDArray[np.int64],
) -> None:
    """Send rows to the nearer of two points, or weigh them by where they lie between these, and sum, in place.

    A split of width 0 is two-means: a row goes to the nearer point, to the first where both are equally far, and is
    added there as by `lloyd.accumulate` and `lloyd.fixed_sums`. A split of a width looks for an axis: every row is
    added to the first point's sums with its weight times q, the difference of its squared distances to first and second
    point divided by the width, cut off at -1 and 1.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    weights : float64 [n] or None
        Row weights; None for 1.
    slots : int32 [n]
        Split of each row, 0 ... p-1; -1 for none.
    points : [2p, d], dtype of x
        Two points a split.
    widths : float64 [p]
        See above.
    scales : float64 [d]
        Powers of two, as for `lloyd.accumulate`.
    mass_scale, inertia_scale : float
        Powers of two.
    sums : int64 [2p, d]
        Sums of terms.
    mass, counts : int64 [2p]
        Scaled weights and numbers of rows.
    hi, lo : int64 [2p]
        Two-part sums of squared distances, of two-means only.
    """
    x = read_argument(x, "x", ("float32", "float64"), (None, None))
    n, d = x.shape
    p = len(widths)
    _split_kernel(x.dtype.name)(
        x,
        weights_argument(weights, n),
        read_argument(slots, "slots", "int32", (n,)),
        read_argument(points, "points", x.dtype.name, (2 * p, d)),
        read_argument(widths, "widths", "float64", (p,)),
        read_argument(scales, "scales", "float64", (d,)),
        float(mass_scale),
        float(inertia_scale),
        write_argument(sums, "sums", "int64", (2 * p, d)),
        write_argument(mass, "mass", "int64", (2 * p,)),
        write_argument(counts, "counts", "int64", (2 * p,)),
        write_argument(hi, "hi", "int64", (2 * p,)),
        write_argument(lo, "lo", "int64", (2 * p,)),
    )


@once
def _descend_kernel(dtype: str) -> Any:
    sqdist = make_row_sqdist(dtype)
    size = SIZES[dtype]

    @jit(name=f"descend_{dtype}")
    def descend(x, centers, children, nodes):
        n, d = x.shape
        row_bytes = d * size
        x_at, centers_at = address(x), address(centers)
        for r in range(n):
            at = nodes[r]
            row = x_at + r * row_bytes
            while children[at, 0] >= 0:
                first, second = children[at, 0], children[at, 1]
                nearer = sqdist(row, centers_at + first * row_bytes, d)
                at = first if nearer <= sqdist(row, centers_at + second * row_bytes, d) else second
            nodes[r] = at

    return descend


@once
def _split_kernel(dtype: str) -> Any:
    sqdist, add_row = make_row_sqdist(dtype), make_add_row(dtype)
    size = SIZES[dtype]

    @jit(name=f"split_rows_{dtype}")
    def split_rows(x, weights, slots, points, widths, scales, mass_scale, inertia_scale, sums, mass, counts, hi, lo):
        n, d = x.shape
        weighted = weights.shape[0] > 0
        row_bytes = d * size
        x_at, points_at, scales_at, sums_at = address(x), address(points), address(scales), address(sums)
        for r in range(n):
            slot = slots[r]
            if slot < 0:
                continue
            side = 2 * slot
            row, point = x_at + r * row_bytes, points_at + side * row_bytes
            near, other = sqdist(row, point, d), sqdist(row, point + row_bytes, d)
            w = weights[r] if weighted else 1.0
            if widths[slot] > 0.0:
                w *= min(max((near - other) / widths[slot], -1.0), 1.0)
            else:
                if other < near:
                    side += 1
                    near = other
                v = near * inertia_scale
                if weighted:
                    v = w * near * inertia_scale
                h = np.rint(v)
                hi[side] += np.int64(h)
                lo[side] += np.int64(np.rint((v - h) * LOW_PART))
            add_row(row, w, scales_at, sums_at + side * d * 8, d)
            mass[side] += np.int64(np.rint(w * mass_scale))
            counts[side] += 1

    return split_rows
