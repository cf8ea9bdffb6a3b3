"""Centres near each row by products of bytes, and rows compared with these few: for passes that need no proof.

A list has the 16 centres of lowest score, of rows and centres rounded to bytes as `distclust.kernels.screened` rounds
them; with axes, of their coordinates on these. Made under some centres, it serves passes over later ones, which then
cost 16 products a row, whatever the number of centres. A label found so is mostly, not always, that of the nearest
centre.

Nothing here depends on the machine: products of bytes are integers, all else has a fixed order.

Axis letters: n rows, d dimensions, k centres, h axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import address
from distclust.kernels._jit import jit, once
from distclust.kernels._listed import nearest_listed
from distclust.kernels._screen import (
    BIAS,
    CANDIDATE_LANES,
    CENTER_FLOATS,
    MINIMA,
    QUAD,
    count_below,
    lane_minima,
    largest_value,
    list_below,
    list_values_below,
    make_byte_scores,
    round_bytes,
)
from distclust.kernels.heads import HeadRows, head_rows
from distclust.kernels.nearest import PackedCenters, assign_nearest, distance_table
from distclust.kernels.screened import ScreenedCenters, byte_step

LISTED = 16
"""Centres in a list: one for each lane of a vector."""

MOST_CENTERS = 1 << 16
LEAST_WIDTH = 16

_ROWS, _VECTORS = 12, 2
_WIDTH = _VECTORS * CANDIDATE_LANES
_MOST_BLOCK_ROWS = 96
_SCORE_BYTES = 512 << 10
"""The scores of a block of rows stay in L2."""

_CHUNK_ROWS = 4096
"""Rows whose coordinates, or scores in float32, are held at once."""

_HALVINGS, _FEW = 12, 24
"""Most cuts of the range of a row's scores, and from how few on there is none: 16 of them are chosen one by one."""

_SIZE = 4


def list_near(
    x: np.ndarray, packed: PackedCenters, screened: ScreenedCenters | None, heads: HeadRows | None = None
) -> npt.NDArray[np.uint16]:
    """Return for every row the 16 centres of lowest score, in the order of their numbers.

    Parameters
    ----------
    x : float32 [n, d]
    packed : PackedCenters
        Of 64 to 65 536 centres.
    screened : ScreenedCenters or None
        As `screen_centers` gives them ``anywhere``; where that is None, the scores of the plain kernel decide.
    heads : HeadRows, optional
        Coordinates of ``x`` on the axes of ``screened``, where they are known.

    Returns
    -------
    uint16 [n, 16]
        Among equal scores the lowest numbers.

    Examples
    --------
    >>> from distclust.kernels.nearest import pack_centers
    >>> packed = pack_centers(np.arange(70, dtype=np.float32)[:, None])
    >>> list_near(np.array([[20.2]], np.float32), packed, None)[0].tolist()
    [13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28]
    """
    k = packed.n_clusters
    if not MINIMA <= k <= MOST_CENTERS:
        raise ValueError(f"there are {k} centres; lists are made of {MINIMA} to {MOST_CENTERS}.")
    x = read_argument(x, "x", "float32", (None, packed.n_dims))
    lists = np.empty((len(x), LISTED), np.uint16)
    if screened is not None:
        _by_bytes(x, screened, heads, lists)
        return lists
    for at in range(0, len(x), _CHUNK_ROWS):
        some = slice(at, at + _CHUNK_ROWS)
        nearest = np.argsort(distance_table(x[some], packed), axis=1, kind="stable")
        lists[some] = np.sort(nearest[:, :LISTED], axis=1)
    return lists


def nearest_roughly(
    x: np.ndarray, packed: PackedCenters, screened: ScreenedCenters | None, heads: HeadRows | None = None
) -> npt.NDArray[np.int32]:
    """Return for every row the centre of lowest score, the lowest one among equals; parameters as for `list_near`.

    Examples
    --------
    >>> from distclust.kernels.nearest import pack_centers
    >>> packed = pack_centers(np.arange(9, dtype=np.float32)[:, None])
    >>> nearest_roughly(np.array([[2.2]], np.float32), packed, None).tolist()
    [2]
    """
    x = read_argument(x, "x", "float32", (None, packed.n_dims))
    if screened is None:
        return assign_nearest(x, packed)[0]
    labels = np.empty((len(x), 1), np.int32)
    _by_bytes(x, screened, heads, labels)
    return labels[:, 0]


def assign_listed(
    x: np.ndarray,
    centers: npt.NDArray[np.float32],
    norms: npt.NDArray[np.float32],
    lists: npt.NDArray[np.uint16],
) -> npt.NDArray[np.int32]:
    """Return for every row the nearest of the centres on its list, the lowest one among equals.

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


def _by_bytes(x: np.ndarray, centers: ScreenedCenters, known: HeadRows | None, out: npt.NDArray[Any]) -> None:
    n = len(x)
    if known is not None and centers.head is not None:
        read_argument(known.heads, "heads", "float32", (n, centers.head.axes.shape[1]))
    width = len(centers.norms)
    block = max(1, min(_MOST_BLOCK_ROWS, _SCORE_BYTES // (4 * width)) // _ROWS) * _ROWS
    room = (
        np.zeros((block, centers.panels.shape[1] * QUAD), np.int8),
        np.empty((block, width), np.float32),
        np.zeros(block, np.float32),
        np.zeros(block, np.int32),
        np.empty(width + CANDIDATE_LANES, np.int32),
        np.empty(width + CANDIDATE_LANES, np.float32),
        np.empty(width + CANDIDATE_LANES, np.int32),
        np.empty(MINIMA + 2, np.float32),
    )
    at_once = _CHUNK_ROWS if centers.head is not None and known is None else max(n, 1)
    for start in range(0, n, at_once):
        some = slice(start, min(n, start + at_once))
        rows = x[some]
        if centers.head is not None:
            rows = head_rows(rows, centers.head).heads if known is None else known.heads[some]
        _near_kernel(out.dtype.name)(rows, centers.panels, centers.floats, *room, out[some])


@once
def _near_kernel(dtype: str) -> Any:
    byte_scores = make_byte_scores(_ROWS, _VECTORS)

    @jit(name=f"near_{dtype}")
    def near(x, panels, floats, quick, scores, turns, row_sums, found, lows, chosen, minima, out):
        n, h = x.shape
        n_panels, quads = panels.shape[0], panels.shape[1]
        block, width = scores.shape
        stride = quick.shape[1]
        panel_bytes = quads * QUAD * _WIDTH
        x_at, panels_at, floats_at, quick_at = address(x), address(panels), address(floats), address(quick)
        scores_at, turns_at, sums_at, minima_at = address(scores), address(turns), address(row_sums), address(minima)
        for start in range(0, n, block):
            rows = min(block, n - start)
            for r in range(rows):
                source = x_at + (start + r) * h * _SIZE
                step, scale = byte_step(largest_value(source, h))
                round_bytes(source, scale, step, h, quick_at + r * stride, sums_at + r * 4)
                row_sums[r] = -BIAS * row_sums[r]
                turns[r] = np.float32(-2.0) * step
            for p in range(n_panels):
                for r in range(0, rows, _ROWS):
                    byte_scores(
                        quick_at + r * stride,
                        stride,
                        panels_at + p * panel_bytes,
                        quads,
                        sums_at + r * 4,
                        turns_at + r * _SIZE,
                        floats_at + p * CENTER_FLOATS * _WIDTH * _SIZE,
                        scores_at + (r * width + p * _WIDTH) * _SIZE,
                        width,
                    )
            for r in range(rows):
                row_at = scores_at + r * width * _SIZE
                lane_minima(row_at, width, minima_at)
                _lowest(row_at, scores[r], minima, found, lows, chosen, out[start + r])

    return near


@jit
def _lowest(row_at, scores, minima, found, lows, chosen, out):
    """Choose the places of lowest scores, in order; `minima` has those of 64 lanes, then their lowest and highest.

    Among equals at the end of the list the lowest places are taken.
    """
    wanted = out.shape[0]
    low, high, within = minima[MINIMA], minima[MINIMA + 1], MINIMA
    if wanted == 1:
        high = low
    for _ in range(_HALVINGS):
        if wanted == 1 or within <= _FEW:
            break
        middle = np.float32(0.5) * (low + high)
        below = count_below(address(minima), MINIMA, middle)
        if below >= wanted:
            high, within = middle, below
        else:
            low = middle
    found_at, lows_at, chosen_at = address(found), address(lows), address(chosen)
    if wanted == 1:
        list_below(row_at, scores.shape[0], high, found_at)
        out[0] = found[0]
        return
    count = list_values_below(row_at, scores.shape[0], high, found_at, lows_at)
    full = -(-count // CANDIDATE_LANES) * CANDIDATE_LANES
    for c in range(count, full):
        lows[c] = np.inf
    # The highest that so many are not above; none has it where the end of the list is among equals.
    last = np.float32(-np.inf)
    for c in range(count):
        last = lows[c] if count_below(lows_at, full, lows[c]) == wanted else last
    if list_below(lows_at, full, last, chosen_at) == wanted:
        for c in range(wanted):
            out[c] = found[chosen[c]]
        return
    _lowest_of_equals(lows, count, full, found, out)


@jit
def _lowest_of_equals(lows, count, full, found, out):
    """Choose by value, then by place."""
    wanted, size = out.shape[0], 0
    kept, border = 0, np.float32(np.inf)
    for c in range(count):
        if count_below(address(lows), full, lows[c]) <= wanted:
            kept += 1
        else:
            border = min(border, lows[c])
    for c in range(count):
        inside = lows[c] < border
        if not inside and lows[c] == border and kept < wanted:
            inside = True
            kept += 1
        if inside:
            out[size] = found[c]
            size += 1


@jit
def _assign_listed(x, centers, norms, lists, labels):
    (n, d), k = x.shape, centers.shape[0]
    x_at, centers_at, norms_at, lists_at = address(x), address(centers), address(norms), address(lists)
    for r in range(n):
        for slot in range(LISTED):
            if lists[r, slot] >= k:
                return False
        labels[r] = nearest_listed(x_at + r * d * _SIZE, centers_at, norms_at, d, lists_at + r * LISTED * 2)
    return True
