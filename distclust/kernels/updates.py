"""What Lloyd's driver does between two passes: sums merged, means taken, centres moved. One reading of each array.

Axis letters: k centres, d dimensions, s and t clusters of two partial sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._jit import jit
from distclust.kernels.slices import in_slices

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


def add_sums(totals: Ints, clusters: Ints, sums: Ints, *, threads: int = 1) -> None:
    """Add the sums of some clusters to those of all, in place, modulo 2**64.

    Parameters
    ----------
    totals : int64 [k, d]
    clusters : int64 [t]
        Ascending.
    sums : int64 [t, d]
    threads : int, default=1

    Examples
    --------
    >>> totals = np.array([[1], [2], [3]])
    >>> add_sums(totals, np.array([0, 2]), np.array([[10], [20]]))
    >>> totals.tolist()
    [[11], [2], [23]]
    """
    k, d = totals.shape
    totals = write_argument(totals, "totals", "int64", (k, d))
    clusters = read_argument(clusters, "clusters", "int64", (None,))
    sums = read_argument(sums, "sums", "int64", (len(clusters), d))
    if len(clusters) and not (clusters[0] >= 0 and clusters[-1] < k and (np.diff(clusters) > 0).all()):
        raise ValueError(f"clusters must be ascending numbers from 0 to {k - 1}.")
    in_slices(lambda some: _add_sums(totals, clusters[some], sums[some]), len(clusters), d, threads)


class Means(NamedTuple):
    """What `cluster_means` gives."""

    means: Floats
    """[k, d]"""
    explained: Floats
    """[k] by how much each centre lowers the sum of w * ||x||^2 of its rows to that of w * ||x - c||^2."""
    shifts: Floats
    """[k] squared distance between centre and mean."""


def cluster_means(
    sums: Ints, scales: Floats, mass: Floats, centers: Floats, *, single: bool = False, threads: int = 1
) -> Means:
    """Return the means of the clusters, and how they compare with the centres; one without mass keeps its centre.

    Parameters
    ----------
    sums : int64 [k, d]
        Fixed-point sums of w * x.
    scales : float64 [d]
        What they were scaled by.
    mass : float64 [k]
        Sums of w.
    centers : float64 [k, d]
    single : bool, default=False
        Whether rows are compared with the centres rounded to float32: then ``explained`` is for these.
    threads : int, default=1

    Returns
    -------
    Means
        ``sums / scales / mass``; of each cluster ``2 c.s - m c.c`` and ``||mean - c||^2``, in an order that depends on
        d only.

    Examples
    --------
    >>> found = cluster_means(np.array([[6], [1]]), np.array([2.0]), np.array([3.0, 0.0]), np.array([[8.0], [9.0]]))
    >>> found.means.tolist(), found.explained.tolist(), found.shifts.tolist()
    ([[1.0], [9.0]], [-144.0, 9.0], [49.0, 0.0])
    """
    k, d = centers.shape
    found = Means(np.empty((k, d)), np.empty(k), np.empty(k))
    sums = read_argument(sums, "sums", "int64", (k, d))
    scales = read_argument(scales, "scales", "float64", (d,))
    mass = read_argument(mass, "mass", "float64", (k,))
    centers = read_argument(np.ascontiguousarray(centers), "centers", "float64", (k, d))
    in_slices(
        lambda some: _cluster_means(
            sums[some], scales, mass[some], centers[some], single, *(part[some] for part in found)
        ),
        k,
        d,
        threads,
    )
    return found


def step_beyond(
    centers: Floats, means: Floats, previous: Floats, relaxation: float, momentum: float, *, threads: int = 1
) -> Floats:
    """Return ``centers + relaxation * (means - centers) + momentum * (centers - previous)``, all float64 [k, d]."""
    k, d = centers.shape
    out = np.empty((k, d))
    parts = [
        read_argument(np.ascontiguousarray(part), "centers", "float64", (k, d)) for part in (centers, means, previous)
    ]
    in_slices(
        lambda some: _step_beyond(*(part[some] for part in parts), float(relaxation), float(momentum), out[some]),
        k,
        d,
        threads,
    )
    return out


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
def _add_sums(totals, clusters, sums):
    for t in range(clusters.shape[0]):
        j = clusters[t]
        for i in range(totals.shape[1]):
            totals[j, i] += sums[t, i]


@jit
def _cluster_means(sums, scales, mass, centers, single, means, explained, shifts):
    k, d = centers.shape
    taken, moved = np.zeros(_LANES), np.zeros(_LANES)
    whole = d - d % _LANES
    for j in range(k):
        taken[:] = 0.0
        moved[:] = 0.0
        m = mass[j]
        for start in range(0, whole, _LANES):
            for lane in range(_LANES):
                _add_value(sums, scales, m, centers, single, means, j, start + lane, taken, moved, lane)
        for i in range(whole, d):
            _add_value(sums, scales, m, centers, single, means, j, i, taken, moved, i - whole)
        explained[j] = shifts[j] = 0.0
        for lane in range(_LANES):
            explained[j] += taken[lane]
            shifts[j] += moved[lane]


@jit
def _add_value(sums, scales, m, centers, single, means, j, i, taken, moved, lane):
    total, center = np.float64(sums[j, i]) / scales[i], centers[j, i]
    mean = total / m if m > 0 else center
    means[j, i] = mean
    seen = np.float64(np.float32(center)) if single else center
    taken[lane] += seen * (2.0 * total - m * seen)
    moved[lane] += (mean - center) * (mean - center)


@jit
def _step_beyond(centers, means, previous, relaxation, momentum, out):
    k, d = centers.shape
    for j in range(k):
        for i in range(d):
            step = relaxation * (means[j, i] - centers[j, i])
            out[j, i] = centers[j, i] + step + momentum * (centers[j, i] - previous[j, i])
