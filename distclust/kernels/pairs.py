"""What lies between two components: rows in a tube from one mean to the other, and along the line through both.

Axis letters: n rows, d dimensions, p pairs, b bins, k clusters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._jit import jit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MARGIN = 4.0
"""Histograms of pairs begin and end so many standard deviations outside of the means."""

_FLOATS = ("float32", "float64")


def count_between(
    x: np.ndarray,
    labels: npt.NDArray[np.int32],
    members: npt.NDArray[np.int32],
    origins: Floats,
    factors: Floats,
    directions: Floats,
    places: Floats,
    radius: float,
    windows: Ints,
    counts: Ints,
) -> None:
    """Count the rows of each pair's windows and bins, in place.

    Rows are seen in the pair's whitened coordinates ``y = U^T (x - origin)``, and by ``t = direction . (x - origin)``,
    where the first mean is at 0 and the second at ``places[:, 2]``.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    labels : int32 [n]
        Cluster of each row.
    members : int32 [p, 2]
        Clusters of each pair.
    origins : float64 [p, d]
        First means.
    factors : float64 [p, d, d]
        U, upper triangular.
    directions : float64 [p, d]
    places : float64 [p, 4]
        Middles of the windows at the first mean, in the valley, at the second mean; and half their width.
    radius : float
        Rows of a window are not farther from the line, squared.
    windows : int64 [p, 3]
        Rows of any cluster, in a window and near the line.
    counts : int64 [p, b]
        Rows of the two clusters, by t from ``-MARGIN`` to the second mean plus ``MARGIN``; those beyond in the ends.
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    n, d = x.shape
    p, b = counts.shape
    _count_between(
        x,
        read_argument(labels, "labels", "int32", (n,)),
        read_argument(members, "members", "int32", (p, 2)),
        read_argument(origins, "origins", "float64", (p, d)),
        read_argument(factors, "factors", "float64", (p, d, d)),
        read_argument(directions, "directions", "float64", (p, d)),
        read_argument(places, "places", "float64", (p, 4)),
        float(radius),
        write_argument(windows, "windows", "int64", (p, 3)),
        write_argument(counts, "counts", "int64", (p, b)),
    )


def count_columns(x: np.ndarray, labels: npt.NDArray[np.int32], low: Floats, per_unit: Floats, counts: Ints) -> None:
    """Count the rows of each cluster by their values in every column, in place.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    labels : int32 [n]
        Cluster of each row; rows with -1 are left out.
    low, per_unit : float64 [d]
        Bin of a value is ``(value - low) * per_unit``, cut off at the first and the last bin.
    counts : int64 [k, d, b]

    Examples
    --------
    >>> counts = np.zeros((1, 1, 2), np.int64)
    >>> x, labels = np.array([[0.1], [0.7], [9.0]]), np.zeros(3, np.int32)
    >>> count_columns(x, labels, np.zeros(1), np.full(1, 2.0), counts)
    >>> counts.tolist()
    [[[1, 2]]]
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    n, d = x.shape
    _count_columns(
        x,
        read_argument(labels, "labels", "int32", (n,)),
        read_argument(low, "low", "float64", (d,)),
        read_argument(per_unit, "per_unit", "float64", (d,)),
        write_argument(counts, "counts", "int64", (None, d, None)),
    )


@jit
def _count_between(x, labels, members, origins, factors, directions, places, radius, windows, counts):
    n, d = x.shape
    b = counts.shape[1]
    off = np.empty(d)
    for p in range(members.shape[0]):
        half, reach = places[p, 3], places[p, 2]
        per_unit = b / (reach + 2.0 * MARGIN)
        for r in range(n):
            t = 0.0
            for i in range(d):
                off[i] = np.float64(x[r, i]) - origins[p, i]
                t += directions[p, i] * off[i]
            if labels[r] == members[p, 0] or labels[r] == members[p, 1]:
                place = np.floor((t + MARGIN) * per_unit)
                counts[p, np.int64(min(max(place, 0.0), b - 1.0))] += 1
            window = -1
            for w in range(3):
                if abs(t - places[p, w]) <= half:
                    window = w
                    break
            if window < 0:
                continue
            away = -t * t
            for j in range(d):
                y = 0.0
                for i in range(j + 1):
                    y += factors[p, i, j] * off[i]
                away += y * y
                if away > radius:
                    break
            if away <= radius:
                windows[p, window] += 1


@jit
def _count_columns(x, labels, low, per_unit, counts):
    b = counts.shape[2]
    for r in range(x.shape[0]):
        label = labels[r]
        if label < 0:
            continue
        for i in range(x.shape[1]):
            place = np.floor((np.float64(x[r, i]) - low[i]) * per_unit[i])
            counts[label, i, np.int64(min(max(place, 0.0), b - 1.0))] += 1
