"""Centres near each row by products of bytes, and rows compared with these few: for passes that need no proof.

A list has the 16 centres of lowest score, of rows and centres rounded to bytes as `distclust.kernels.screened` rounds
them; with axes, of their coordinates on these. A score is the squared distance of what is rounded less the squared
length of the row: with the lengths of centres as they were it would be off by the product of row and rounding error,
which among tight groups far from the origin is more than tells their centres apart.

Made under some centres, a list serves passes over later ones, which then cost 16 products of bytes a row, whatever the
number of centres. A label found so is mostly, not always, that of the nearest centre.

Nothing here depends on the machine: products of bytes are integers, all else has a fixed order.

Axis letters: n rows, d dimensions, k centres, h axes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._emit import address
from distclust.kernels._jit import jit, once
from distclust.kernels._listed import nearest_listed
from distclust.kernels._machine import machine
from distclust.kernels._products import QUAD
from distclust.kernels._screen import (
    BIAS,
    CANDIDATE_LANES,
    MINIMA,
    count_below,
    lane_minima,
    list_below,
    list_values_below,
    make_byte_scores,
)
from distclust.kernels.aligned import aligned_empty
from distclust.kernels.nearest import PackedCenters, distance_table
from distclust.kernels.rounded import (
    SQUARE,
    STEP,
    SUM,
    RoundedRows,
    last_rows,
    padded_width,
    round_rows,
    rounded_argument,
)
from distclust.kernels.screened import ScreenedCenters, spread_width

LISTED = 16
"""Centres in a list: one for each lane of a vector."""

MOST_CENTERS = 1 << 16

_WIDE_ROWS, _NARROW_ROWS, _VECTORS = 12, 4, 2
"""Rows of a tile, as many as the registers hold sums for: on AVX-512, and elsewhere."""

_WIDTH = _VECTORS * CANDIDATE_LANES
_MOST_BLOCK_ROWS = 96
_SCORE_BYTES = 512 << 10
"""The scores of a block of rows stay in L2."""

_CHUNK_ROWS = 4096
"""Rows whose scores in float32 are held at once."""

_HALVINGS, _FEW = 12, 24
"""Most cuts of the range of a row's scores, and from how few on there is none: 16 of them are chosen one by one."""

_SIZE = 4


class ListedCenters(NamedTuple):
    """Centres as rows are compared with those on their lists; made by `listed_centers`."""

    values: npt.NDArray[np.uint8]
    """[k, w] rounded, plus the bias, and bytes that do not matter to the end of a cache line."""
    steps: npt.NDArray[np.float32]
    """[k]"""
    norms: npt.NDArray[np.float32]
    """[k] squared lengths, as they are rounded; with axes, of what is left, too."""
    squares: npt.NDArray[np.float32]
    """[k] squared lengths of what is rounded, as it is rounded."""
    width: int
    """How many values of a row are rounded."""


def listed_centers(centers: ScreenedCenters) -> ListedCenters:
    """Return rounded centres one after the other."""
    k = centers.packed.n_clusters
    values, squares = aligned_empty((k, padded_width(centers.width)), np.uint8), np.empty(k, np.float32)
    values[:, centers.width :] = 0
    steps = np.ascontiguousarray(centers.floats[:, 0]).reshape(-1)[:k]
    _list_centers(read_argument(centers.panels, "panels", "uint8", (None,) * 4), centers.width, steps, values, squares)
    norms = np.ascontiguousarray(centers.rounded[:, 1]).reshape(-1)[:k]
    return ListedCenters(values, steps, norms, squares, centers.width)


@jit
def _list_centers(panels, width, steps, values, squares):
    for j in range(values.shape[0]):
        panel, lane, total = j // _WIDTH, j % _WIDTH, np.int64(0)
        for i in range(width):
            value = panels[panel, i // QUAD, lane, i % QUAD]
            values[j, i] = value
            total += (np.int64(value) - BIAS) * (np.int64(value) - BIAS)
        squares[j] = steps[j] * steps[j] * np.float32(total)


def list_near(
    x: np.ndarray,
    packed: PackedCenters,
    screened: ScreenedCenters | None,
    rounded: RoundedRows | None = None,
    *,
    labels: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.uint16]:
    """Return for every row the 16 centres of lowest score, in the order of their numbers.

    Parameters
    ----------
    x : float32 [n, d]
    packed : PackedCenters
        Of 64 to 65 536 centres.
    screened : ScreenedCenters or None
        As `screen_centers` gives them ``anywhere``; where that is None, the scores of the plain kernel decide.
    rounded : RoundedRows, optional
        What `round_rows` gives for ``x`` and the axes of ``screened``, where it is known.
    labels : int32 [n], optional
        Takes the centre of lowest score of each row, the lowest one among equals: what `assign_listed` finds on these
        lists under the same centres.

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
    found = np.empty(0, np.int32) if labels is None else write_argument(labels, "labels", "int32", (len(x),))
    if screened is not None:
        _by_bytes(rounded or round_rows(x, screened.head), screened, lists, found, np.empty(0, np.float32))
        return lists
    for at in range(0, len(x), _CHUNK_ROWS):
        some = slice(at, at + _CHUNK_ROWS)
        nearest = np.argsort(distance_table(x[some], packed), axis=1, kind="stable")
        lists[some] = np.sort(nearest[:, :LISTED], axis=1)
        if labels is not None:
            labels[some] = nearest[:, 0]
    return lists


def nearest_roughly(
    x: np.ndarray, screened: ScreenedCenters, listed: ListedCenters, rounded: RoundedRows | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return for every row the centre of lowest score, the lowest one among equals, and about its squared distance.

    It is that of what is rounded: with axes, of coordinates on these; and of a row from itself 0 but for rounding.

    Parameters
    ----------
    x : float32 [n, d]
    screened, listed : ScreenedCenters and ListedCenters
        Of the same centres; see `list_near` and `listed_centers`.
    rounded : RoundedRows, optional
        See `list_near`.

    Returns
    -------
    labels : int32 [n]
    sqdist : float32 [n]
        Of no use, maybe not a number, for rows beyond a length of 1e15.

    Examples
    --------
    >>> from distclust.kernels.nearest import pack_centers
    >>> from distclust.kernels.screened import screen_centers
    >>> centers = np.repeat(np.arange(9, dtype=np.float32)[:, None], 48, axis=1)
    >>> screened = screen_centers(centers, pack_centers(centers), anywhere=True)
    >>> labels, sqdist = nearest_roughly(np.full((1, 48), 2.25, np.float32), screened, listed_centers(screened))
    >>> labels.tolist(), round(float(sqdist[0]), 3)
    ([2], 3.0)
    """
    x = read_argument(x, "x", "float32", (None, screened.packed.n_dims))
    rounded = rounded or round_rows(x, screened.head)
    found, scores = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    _by_bytes(rounded, screened, np.empty((len(x), 0), np.uint16), found, scores)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows too long to be rounded
        return found, np.maximum(
            scores + rounded.floats[:, SQUARE] + (listed.squares - listed.norms)[found], np.float32(0)
        )


def assign_listed(rounded: RoundedRows, centers: ListedCenters, lists: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
    """Return for every row the centre of lowest score on its list, the lowest one among equals.

    Parameters
    ----------
    rounded : RoundedRows
        n rows, all columns or coordinates on axes as those of ``centers``.
    centers : ListedCenters
    lists : uint16 [n, 16]
        Centres of each row, 0 ... k-1; a centre may be there twice.

    Returns
    -------
    int32 [n]

    Examples
    --------
    >>> from distclust.kernels.nearest import pack_centers
    >>> from distclust.kernels.screened import screen_centers
    >>> centers = np.repeat(np.arange(20, dtype=np.float32)[:, None], 48, axis=1)
    >>> listed = listed_centers(screen_centers(centers, pack_centers(centers), anywhere=True))
    >>> lists = np.arange(16, dtype=np.uint16)[None]
    >>> assign_listed(round_rows(centers[[9]] + np.float32(0.2)), listed, lists).tolist()
    [9]
    """
    rounded = rounded_argument(rounded, len(lists), centers.width)
    lists = read_argument(lists, "lists", "uint16", (len(lists), LISTED))
    k = len(centers.steps)
    values = read_argument(centers.values, "centers", "uint8", (k, rounded.values.shape[1]))
    steps, norms = (read_argument(part, "centers", "float32", (k,)) for part in (centers.steps, centers.norms))
    labels = np.empty(len(lists), np.int32)
    if not _assign_listed(*rounded, values, steps, norms, lists, labels):
        raise ValueError(f"lists name centres beyond the {k} that there are.")
    return labels


def _by_bytes(
    rounded: RoundedRows,
    centers: ScreenedCenters,
    lists: npt.NDArray[np.uint16],
    labels: npt.NDArray[np.int32],
    lowest: npt.NDArray[np.float32],
) -> None:
    """Fill in what is wanted, and has room for all rows: lists of centres, the nearest ones, their scores."""
    rounded = rounded_argument(rounded, len(lists), centers.width)
    width, tile = len(centers.norms), _WIDE_ROWS if machine().wide else _NARROW_ROWS
    block = max(1, min(_MOST_BLOCK_ROWS, _SCORE_BYTES // (4 * width)) // tile) * tile
    room = (
        np.empty((block, spread_width(width)), np.float32),
        np.zeros(block, np.float32),
        np.zeros(block, np.int32),
        np.empty(width + CANDIDATE_LANES, np.int32),
        np.empty(width + CANDIDATE_LANES, np.float32),
        np.empty(width + CANDIDATE_LANES, np.int32),
        np.empty(MINIMA + 2, np.float32),
    )
    out = lists, labels, lowest
    _near_kernel(tile)(*rounded, last_rows(rounded, tile), centers.panels, centers.rounded, *room, *out)


@once
def _near_kernel(tile: int) -> Any:
    byte_scores = make_byte_scores(tile, _VECTORS)

    @jit(name=f"near_{tile}")
    def near(
        values, sizes, tail, panels, floats, scores, turns, row_sums, found, lows, chosen, minima, lists, labels, lowest
    ):
        n, stride = values.shape
        n_panels, quads = panels.shape[0], panels.shape[1]
        block, score_stride = scores.shape
        width = n_panels * _WIDTH
        panel_bytes = quads * QUAD * _WIDTH
        values_at, tail_at, panels_at, floats_at = address(values), address(tail), address(panels), address(floats)
        scores_at, turns_at, sums_at, minima_at = address(scores), address(turns), address(row_sums), address(minima)
        for start in range(0, n, block):
            rows = min(block, n - start)
            for r in range(rows):
                row_sums[r] = -BIAS * np.int32(sizes[start + r, SUM])
                turns[r] = np.float32(-2.0) * sizes[start + r, STEP]
            for p in range(n_panels):
                for r in range(0, rows, tile):
                    byte_scores(
                        values_at + (start + r) * stride if start + r + tile <= n else tail_at,
                        stride,
                        panels_at + p * panel_bytes,
                        quads,
                        sums_at + r * 4,
                        turns_at + r * _SIZE,
                        floats_at + p * 2 * _WIDTH * _SIZE,
                        scores_at + (r * score_stride + p * _WIDTH) * _SIZE,
                        score_stride,
                    )
            for r in range(rows):
                row_at = scores_at + r * score_stride * _SIZE
                lane_minima(row_at, width, minima_at)
                if lists.shape[1]:
                    nearest = _lowest(row_at, width, minima, found, lows, chosen, lists[start + r])
                else:
                    list_below(row_at, width, minima[MINIMA], address(found))
                    nearest = found[0]
                if labels.shape[0] == n:
                    labels[start + r] = nearest
                if lowest.shape[0] == n:
                    lowest[start + r] = minima[MINIMA]

    return near


@jit
def _lowest(row_at, width, minima, found, lows, chosen, out):
    """Choose the places of lowest scores, in order, and return the first of the lowest one.

    `minima` has those of 64 lanes, then their lowest and highest. Among equals at the end of the list the lowest places
    are taken.
    """
    wanted = out.shape[0]
    low, high, within = minima[MINIMA], minima[MINIMA + 1], MINIMA
    for _ in range(_HALVINGS):
        if within <= _FEW:
            break
        middle = np.float32(0.5) * (low + high)
        below = count_below(address(minima), MINIMA, middle)
        if below >= wanted:
            high, within = middle, below
        else:
            low = middle
    found_at, lows_at, chosen_at = address(found), address(lows), address(chosen)
    count = list_values_below(row_at, width, high, found_at, lows_at)
    full = -(-count // CANDIDATE_LANES) * CANDIDATE_LANES
    for c in range(count, full):
        lows[c] = np.inf
    nearest = 0
    while lows[nearest] > minima[MINIMA]:
        nearest += 1
    # The highest that so many are not above; none has it where the end of the list is among equals.
    last = np.float32(-np.inf)
    for c in range(count):
        last = lows[c] if count_below(lows_at, full, lows[c]) == wanted else last
    if list_below(lows_at, full, last, chosen_at) == wanted:
        for c in range(wanted):
            out[c] = found[chosen[c]]
    else:
        _lowest_of_equals(lows, count, full, found, out)
    return found[nearest]


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
def _assign_listed(values, sizes, centers, steps, norms, lists, labels):
    (n, width), k = values.shape, centers.shape[0]
    values_at, centers_at, lists_at = address(values), address(centers), address(lists)
    steps_at, norms_at = address(steps), address(norms)
    for r in range(n):
        for slot in range(LISTED):
            if lists[r, slot] >= k:
                return False
        labels[r] = nearest_listed(
            values_at + r * width,
            -BIAS * np.int64(sizes[r, SUM]),
            np.float32(-2.0) * sizes[r, STEP],
            centers_at,
            width,
            steps_at,
            norms_at,
            lists_at + r * LISTED * 2,
        )
    return True
