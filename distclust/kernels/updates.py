"""What Lloyd's driver does between two passes: sums merged, means taken, centres moved. One reading of each array.

Axis letters: k centres, d dimensions, s and t clusters of two partial sums.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit

_LANES = 16
"""Sums that are added side by side: one alone waits for itself."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def merge_sums(clusters: tuple[Ints, Ints], sums: tuple[Ints, Ints]) -> tuple[Ints, Ints, Ints, Ints]:
    """Add the sums of two sets of clusters.

    Parameters
    ----------
    clusters : two int64 arrays, [s] and [t]
        Ascending.
    sums : two int64 arrays, [s, d] and [t, d]

    Returns
    -------
    clusters : int64 [u]
        The union.
    sums : int64 [u, d]
        Added modulo 2**64.
    first, second : int64 [u]
        Place of each cluster in the two sets; -1 where it is not in one.

    Examples
    --------
    >>> found = merge_sums((np.array([1, 4]), np.array([4])), (np.array([[1], [2]]), np.array([[5]])))
    >>> [part.tolist() for part in found]
    [[1, 4], [[1], [7]], [0, 1], [-1, 0]]
    """
    (a, b), (x, y) = clusters, sums
    width = x.shape[1]
    a, b = (read_argument(part, "clusters", "int64", (None,)) for part in (a, b))
    x = read_argument(x, "sums", "int64", (len(a), width))
    y = read_argument(y, "sums", "int64", (len(b), width))
    first, second = np.empty((2, len(a) + len(b)), np.int64)
    merged = np.empty(len(a) + len(b), np.int64)
    count = _match(a, b, merged, first, second)
    out = np.empty((count, width), np.int64)
    _add_matched(x, y, first, second, out)
    return merged[:count], out, first[:count], second[:count]


def cluster_means(sums: Ints, scales: Floats, mass: Floats, centers: Floats) -> Floats:
    """Return the means of the clusters; a cluster without mass keeps its centre.

    Parameters
    ----------
    sums : int64 [k, d]
        Fixed-point sums of w * x.
    scales : float64 [d]
        What they were scaled by.
    mass : float64 [k]
        Sums of w.
    centers : float64 [k, d]

    Returns
    -------
    float64 [k, d]
        ``sums / scales / mass``.

    Examples
    --------
    >>> cluster_means(np.array([[6], [1]]), np.array([2.0]), np.array([3.0, 0.0]), np.array([[8.0], [9.0]])).tolist()
    [[1.0], [9.0]]
    """
    k, d = centers.shape
    out = np.empty((k, d))
    _cluster_means(
        read_argument(sums, "sums", "int64", (k, d)),
        read_argument(scales, "scales", "float64", (d,)),
        read_argument(mass, "mass", "float64", (k,)),
        read_argument(np.ascontiguousarray(centers), "centers", "float64", (k, d)),
        out,
    )
    return out


def step_beyond(centers: Floats, means: Floats, previous: Floats, relaxation: float, momentum: float) -> Floats:
    """Return ``centers + relaxation * (means - centers) + momentum * (centers - previous)``, all float64 [k, d]."""
    k, d = centers.shape
    out = np.empty((k, d))
    arrays = (
        read_argument(np.ascontiguousarray(part), "centers", "float64", (k, d)) for part in (centers, means, previous)
    )
    _step_beyond(*arrays, float(relaxation), float(momentum), out)
    return out


def explained_squares(sums: Ints, scales: Floats, mass: Floats, centers: np.ndarray) -> float:
    """Return by how much the centres lower the sum of w * ||x||^2 of their rows to that of w * ||x - c||^2.

    Parameters
    ----------
    sums : int64 [k, d]
        Fixed-point sums of w * x.
    scales : float64 [d]
        What they were scaled by.
    mass : float64 [k]
        Sums of w.
    centers : float32 or float64 [k, d]

    Returns
    -------
    float
        Sum of ``2 c.s - m c.c``, in an order that depends on k and d only.

    Examples
    --------
    >>> explained_squares(np.array([[8], [3]]), np.array([2.0]), np.array([2.0, 1.0]), np.array([[2.0], [1.5]]))
    10.25
    """
    centers = read_argument(centers, "centers", ("float32", "float64"), (None, None))
    k, d = centers.shape
    return float(
        _explained_squares(
            read_argument(sums, "sums", "int64", (k, d)),
            read_argument(scales, "scales", "float64", (d,)),
            read_argument(mass, "mass", "float64", (k,)),
            centers,
        )
    )


@jit
def _explained_squares(sums, scales, mass, centers):
    k, d = centers.shape
    lanes, total = np.zeros(_LANES), 0.0
    whole = d - d % _LANES
    for j in range(k):
        lanes[:] = 0.0
        for start in range(0, whole, _LANES):
            for lane in range(_LANES):
                i = start + lane
                value = np.float64(centers[j, i])
                lanes[lane] += value * (2.0 * (np.float64(sums[j, i]) / scales[i]) - mass[j] * value)
        own = 0.0
        for lane in range(_LANES):
            own += lanes[lane]
        for i in range(whole, d):
            value = np.float64(centers[j, i])
            own += value * (2.0 * (np.float64(sums[j, i]) / scales[i]) - mass[j] * value)
        total += own
    return total


@jit
def _match(a, b, merged, first, second):
    i, j, count = 0, 0, 0
    while i < a.shape[0] or j < b.shape[0]:
        take_a = j == b.shape[0] or (i < a.shape[0] and a[i] <= b[j])
        take_b = i == a.shape[0] or (j < b.shape[0] and b[j] <= a[i])
        merged[count] = a[i] if take_a else b[j]
        first[count] = i if take_a else -1
        second[count] = j if take_b else -1
        i += 1 if take_a else 0
        j += 1 if take_b else 0
        count += 1
    return count


@jit
def _add_matched(x, y, first, second, out):
    for u in range(out.shape[0]):
        i, j = first[u], second[u]
        if j < 0:
            out[u] = x[i]
        elif i < 0:
            out[u] = y[j]
        else:
            for c in range(out.shape[1]):
                out[u, c] = x[i, c] + y[j, c]


@jit
def _cluster_means(sums, scales, mass, centers, out):
    k, d = centers.shape
    for j in range(k):
        if mass[j] > 0:
            for i in range(d):
                out[j, i] = np.float64(sums[j, i]) / scales[i] / mass[j]
        else:
            for i in range(d):
                out[j, i] = centers[j, i]


@jit
def _step_beyond(centers, means, previous, relaxation, momentum, out):
    k, d = centers.shape
    for j in range(k):
        for i in range(d):
            step = relaxation * (means[j, i] - centers[j, i])
            out[j, i] = centers[j, i] + step + momentum * (centers[j, i] - previous[j, i])
