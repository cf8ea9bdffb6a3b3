"""An order of points in which neighbours in space are neighbours in number.

Axis letters: k points, d dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import make_row_sqdist


def neighbour_order(points: np.ndarray, group: int) -> npt.NDArray[np.int64]:
    """Return an order in which points 0 ... group - 1, and so on, lie together.

    Points are halved until few are left: between two that are far from each other, by which of them is nearer.

    Parameters
    ----------
    points : float32 or float64 [k, d]
    group : int
        Halves are multiples of it, but for the last one.

    Returns
    -------
    int64 [k]
        Numbers of the points. It depends on no order of summation: the same everywhere.

    Examples
    --------
    >>> neighbour_order(np.array([[0.0], [9.0], [1.0], [8.0]]), 2).tolist()
    [3, 1, 2, 0]
    """
    points = read_argument(np.ascontiguousarray(points), "points", tuple(SIZES), (None, None))
    if group < 1:
        raise ValueError(f"group is {group}; 1 or more is allowed.")
    order = np.arange(len(points))
    _order_kernel(points.dtype.name)(points, group, order, np.empty(len(points)), np.empty(len(points)))
    return order


@once
def _order_kernel(dtype: str) -> Any:
    size = SIZES[dtype]
    row_sqdist = make_row_sqdist(dtype)

    @jit(name=f"farthest_of_{dtype}")
    def farthest_of(points, chosen, point, sqdist):
        """Take the squared distances of chosen points to one; return the farthest, the first among equals."""
        d = points.shape[1]
        points_at = address(points)
        far = chosen[0]
        most = -1.0
        for i in range(len(chosen)):
            sqdist[i] = row_sqdist(points_at + chosen[i] * d * size, points_at + point * d * size, d)
            if sqdist[i] > most:
                most, far = sqdist[i], chosen[i]
        return far

    @jit(name=f"order_{dtype}")
    def order_points(points, group, order, to_left, to_right):
        starts = [0]
        stops = [len(order)]
        while len(starts) > 0:
            start, stop = starts.pop(), stops.pop()
            count = stop - start
            if count <= group:
                continue
            chosen = order[start:stop]
            left = farthest_of(points, chosen, chosen[0], to_left)
            right = farthest_of(points, chosen, left, to_left)
            farthest_of(points, chosen, right, to_right)
            chosen[:] = chosen[np.argsort(to_left[:count] - to_right[:count], kind="mergesort")]
            middle = start + (count // 2 + group - 1) // group * group
            starts.append(start)
            stops.append(middle)
            starts.append(middle)
            stops.append(stop)

    return order_points
