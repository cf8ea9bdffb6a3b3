"""Sums of Lloyd's algorithm: exact integers, so that totals do not depend on order.

Axis letters: n rows, d dimensions, k centres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, weights_argument, write_argument
from distclust.kernels._emit import SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import make_add_row, make_move_row, make_row_sqdist, make_row_sqnorm, prefetch

LOW_PART = 2.0**28
"""Steps of the low part of a two-part sum in one step of the high part."""

_FLOATS = ("float32", "float64")


def row_sqdist(x: np.ndarray, centers: np.ndarray, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the squared distance of each row to its centre, in float64.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    centers : [k, d], dtype of x
        Centres.
    labels : int32 [n]
        Centre of each row, 0 ... k-1; -1 for none.

    Returns
    -------
    float64 [n]
        Each difference is taken in float64; the order of additions depends on d only. 0 for rows without centre.

    Examples
    --------
    >>> x = np.array([[3.0, 4.0], [1.0, 1.0]])
    >>> row_sqdist(x, np.zeros((1, 2)), np.array([0, -1], np.int32)).tolist()
    [25.0, 0.0]
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    centers = read_argument(centers, "centers", x.dtype.name, (None, x.shape[1]))
    out = np.empty(len(x), np.float64)
    _row_sqdist_kernel(x.dtype.name)(x, centers, read_argument(labels, "labels", "int32", (len(x),)), out)
    return out


def row_sqnorm(x: np.ndarray) -> npt.NDArray[np.float64]:
    """Return the squared norm of each row, in float64, added in the order of `row_sqdist`.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.

    Returns
    -------
    float64 [n]
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    out = np.empty(len(x), np.float64)
    _row_sqnorm_kernel(x.dtype.name)(x, out)
    return out


def accumulate(
    x: np.ndarray,
    weights: npt.NDArray[np.float64] | None,
    labels: npt.NDArray[np.int32],
    scales: npt.NDArray[np.float64],
    weight_scale: float,
    sums: npt.NDArray[np.int64],
    mass: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    """Add rows to the fixed-point sums of their clusters, in place.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    weights : float64 [n] or None
        Row weights; None for 1.
    labels : int32 [n]
        Cluster of each row; rows with -1 are left out.
    scales : float64 [d]
        Powers of two; a term is ``rint(w * x * scale)``.
    weight_scale : float
        Power of two; a term of `mass` is ``rint(w * weight_scale)``.
    sums : int64 [k, d]
        Sums of terms.
    mass, counts : int64 [k]
        Scaled weights and numbers of rows.

    Examples
    --------
    >>> sums, mass, counts = np.zeros((1, 2), np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    >>> x, labels = np.array([[0.5, 1.0], [0.25, 2.0]]), np.zeros(2, np.int32)
    >>> accumulate(x, None, labels, np.array([4.0, 1.0]), 1.0, sums, mass, counts)
    >>> sums.tolist(), mass.tolist(), counts.tolist()
    ([[3, 3]], [2], [2])
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    n, d = x.shape
    k = len(counts)
    _accumulate_kernel(x.dtype.name)(
        x,
        weights_argument(weights, n),
        read_argument(labels, "labels", "int32", (n,)),
        read_argument(scales, "scales", "float64", (d,)),
        float(weight_scale),
        write_argument(sums, "sums", "int64", (k, d)),
        write_argument(mass, "mass", "int64", (k,)),
        write_argument(counts, "counts", "int64", (k,)),
    )


def accumulate_moved(
    x: np.ndarray,
    weights: npt.NDArray[np.float64] | None,
    old: npt.NDArray[np.int32],
    new: npt.NDArray[np.int32],
    slot: npt.NDArray[np.int32],
    scales: npt.NDArray[np.float64],
    weight_scale: float,
    sums: npt.NDArray[np.int64],
    mass: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    """Take rows whose label changed out of their old cluster's sums and into their new one's, in place.

    Terms are those of `accumulate`, so the sums end as if they had been made anew.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    weights : float64 [n] or None
        Row weights; None for 1.
    old, new : int32 [n]
        Clusters before and after; -1 for none. Rows where they are equal cost nothing.
    slot : int32 [k]
        Place of each cluster in the sums; every cluster that a moved row left or joined needs one.
    scales : float64 [d]
        Powers of two, as for `accumulate`.
    weight_scale : float
        Power of two, as for `accumulate`.
    sums : int64 [t, d]
        Sums of the t touched clusters. Wrap-around is harmless: differences add up modulo 2**64.
    mass, counts : int64 [t]
        Scaled weights and numbers of rows.
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    n, d = x.shape
    t = len(counts)
    _accumulate_moved_kernel(x.dtype.name)(
        x,
        weights_argument(weights, n),
        read_argument(old, "old", "int32", (n,)),
        read_argument(new, "new", "int32", (n,)),
        read_argument(slot, "slot", "int32", (None,)),
        read_argument(scales, "scales", "float64", (d,)),
        float(weight_scale),
        write_argument(sums, "sums", "int64", (t, d)),
        write_argument(mass, "mass", "int64", (t,)),
        write_argument(counts, "counts", "int64", (t,)),
    )


def fixed_sums(
    values: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None,
    labels: npt.NDArray[np.int32],
    scale: float,
    hi: npt.NDArray[np.int64],
    lo: npt.NDArray[np.int64],
) -> None:
    """Add weighted values to two-part integer sums per label, in place.

    A term ``v = w * value * scale`` gives ``h = rint(v)`` to `hi` and ``rint((v - h) * 2**28)`` to `lo`, so the
    total of a label is ``(hi + lo / 2**28) / scale``.

    Parameters
    ----------
    values : float64 [n]
        Values, for example squared distances.
    weights : float64 [n] or None
        Row weights; None for 1.
    labels : int32 [n]
        Where each value goes; rows with -1 are left out.
    scale : float
        Power of two.
    hi, lo : int64 [k]
        The sums.
    """
    n, k = len(values), len(hi)
    _fixed_sums(
        read_argument(values, "values", "float64", (None,)),
        weights_argument(weights, n),
        read_argument(labels, "labels", "int32", (n,)),
        float(scale),
        write_argument(hi, "hi", "int64", (k,)),
        write_argument(lo, "lo", "int64", (k,)),
    )


def farthest(sqdist: npt.NDArray[np.float64], row_ids: npt.NDArray[np.int64], m: int) -> npt.NDArray[np.int64]:
    """Return the positions of the m rows with the largest values, ordered by (-sqdist, row id).

    Parameters
    ----------
    sqdist : float64 [n]
        Values without NaN.
    row_ids : int64 [n]
        Ids that decide among equal values, the lowest first.
    m : int
        How many.

    Returns
    -------
    int64 [min(m, n)]
        Positions in `sqdist`.

    Examples
    --------
    >>> farthest(np.array([1.0, 3.0, 3.0]), np.array([5, 9, 2]), 2).tolist()
    [2, 1]
    """
    sqdist = read_argument(sqdist, "sqdist", "float64", (None,))
    positions = np.empty(min(max(m, 0), len(sqdist)), np.int64)
    _farthest(sqdist, read_argument(row_ids, "row_ids", "int64", (len(sqdist),)), positions)
    return positions


@once
def _row_sqdist_kernel(dtype: str) -> Any:
    sqdist_of_row = make_row_sqdist(dtype)
    size = SIZES[dtype]

    @jit(name=f"row_sqdist_{dtype}")
    def row_sqdist(x, centers, labels, out):
        n, d = x.shape
        row_bytes = d * size
        x_at, centers_at = address(x), address(centers)
        for r in range(n):
            j = labels[r]
            out[r] = sqdist_of_row(x_at + r * row_bytes, centers_at + j * row_bytes, d) if j >= 0 else 0.0

    return row_sqdist


@once
def _row_sqnorm_kernel(dtype: str) -> Any:
    sqnorm_of_row = make_row_sqnorm(dtype)
    size = SIZES[dtype]

    @jit(name=f"row_sqnorm_{dtype}")
    def row_sqnorm(x, out):
        n, d = x.shape
        x_at = address(x)
        for r in range(n):
            out[r] = sqnorm_of_row(x_at + r * d * size, d)

    return row_sqnorm


@once
def _accumulate_kernel(dtype: str) -> Any:
    add_row = make_add_row(dtype)
    size = SIZES[dtype]

    @jit(name=f"accumulate_{dtype}")
    def accumulate(x, weights, labels, scales, weight_scale, sums, mass, counts):
        n, d = x.shape
        weighted = weights.shape[0] > 0
        x_at, scales_at, sums_at = address(x), address(scales), address(sums)
        for r in range(n):
            j = labels[r]
            if r + 1 < n:  # sums of many clusters are far away
                prefetch(sums_at + max(labels[r + 1], 0) * d * 8, d * 8)
            if j >= 0:
                w = weights[r] if weighted else 1.0
                add_row(x_at + r * d * size, w, scales_at, sums_at + j * d * 8, d)
                mass[j] += np.int64(np.rint(w * weight_scale))
                counts[j] += 1

    return accumulate


@once
def _accumulate_moved_kernel(dtype: str) -> Any:
    add_row, move_row = make_add_row(dtype), make_move_row(dtype)
    size = SIZES[dtype]

    @jit(name=f"accumulate_moved_{dtype}")
    def accumulate_moved(x, weights, old, new, slot, scales, weight_scale, sums, mass, counts):
        n, d = x.shape
        weighted = weights.shape[0] > 0
        x_at, scales_at, sums_at = address(x), address(scales), address(sums)
        following = 0
        while following < n and old[following] == new[following]:
            following += 1
        while following < n:
            r = following
            following += 1
            while following < n and old[following] == new[following]:
                following += 1
            if following < n:  # what the next one needs is far away
                prefetch(x_at + following * d * size, d * size)
                prefetch(sums_at + slot[max(old[following], 0)] * d * 8, d * 8)
                prefetch(sums_at + slot[max(new[following], 0)] * d * 8, d * 8)
            w = weights[r] if weighted else 1.0
            source, left, joined = x_at + r * d * size, old[r], new[r]
            if left >= 0 and joined >= 0:
                move_row(source, w, scales_at, sums_at + slot[left] * d * 8, sums_at + slot[joined] * d * 8, d)
            elif joined >= 0:
                add_row(source, w, scales_at, sums_at + slot[joined] * d * 8, d)
            else:  # rint is odd, so a negative weight takes away exactly what the positive one added
                add_row(source, -w, scales_at, sums_at + slot[left] * d * 8, d)
            term = np.int64(np.rint(w * weight_scale))
            if left >= 0:
                mass[slot[left]] -= term
                counts[slot[left]] -= 1
            if joined >= 0:
                mass[slot[joined]] += term
                counts[slot[joined]] += 1

    return accumulate_moved


@jit
def _fixed_sums(values, weights, labels, scale, hi, lo):
    weighted = weights.shape[0] > 0
    for r in range(values.shape[0]):
        j = labels[r]
        if j < 0:
            continue
        v = values[r] * scale
        if weighted:
            v = weights[r] * values[r] * scale
        h = np.rint(v)
        hi[j] += np.int64(h)
        lo[j] += np.int64(np.rint((v - h) * LOW_PART))


@jit
def _sinks(sqdist, row_ids, a, b):
    return sqdist[a] < sqdist[b] or (sqdist[a] == sqdist[b] and row_ids[a] > row_ids[b])


@jit
def _sift_down(heap, size, sqdist, row_ids):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _sinks(sqdist, row_ids, heap[child + 1], heap[child]):
            child += 1
        if not _sinks(sqdist, row_ids, heap[child], heap[at]):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@jit
def _farthest(sqdist, row_ids, heap):
    m = heap.shape[0]
    if m == 0:
        return
    for r in range(m):
        at = r
        heap[at] = r
        while at > 0 and _sinks(sqdist, row_ids, heap[at], heap[(at - 1) // 2]):
            parent = (at - 1) // 2
            heap[at], heap[parent] = heap[parent], heap[at]
            at = parent
    for r in range(m, sqdist.shape[0]):
        if _sinks(sqdist, row_ids, heap[0], r):
            heap[0] = r
            _sift_down(heap, m, sqdist, row_ids)
    for size in range(m - 1, 0, -1):
        heap[0], heap[size] = heap[size], heap[0]
        _sift_down(heap, size, sqdist, row_ids)
