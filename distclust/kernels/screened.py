"""Nearest centres by a screen of 8-bit products; the labels are those of `assign_nearest`, bit for bit.

Rows (`distclust.kernels.rounded`) and centres are rounded to multiples of a step of their own, up to 127 steps. The
products of what is rounded are exact integers and cost a quarter of float32 products; by Cauchy and Schwarz they bound
the score of every centre from both sides. A centre whose lower bound is above some centre's upper bound is not the
nearest one. Among the few that are left the squared distances in float64 decide; where these are as near as float32
scores can tell, the scores of `assign_nearest` do.

With axes (see `distclust.kernels.heads`) only the coordinates on these are rounded and multiplied; the lengths that are
left widen the bounds.

Only where the machine has the instruction (AVX-512 VNNI), for float32; elsewhere `assign_labels` is `assign_nearest`.

Axis letters: n rows, d dimensions, k centres.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._bytes import first_floor, make_first_bytes
from distclust.kernels._emit import address
from distclust.kernels._jit import jit, once
from distclust.kernels._machine import machine
from distclust.kernels._products import QUAD
from distclust.kernels._rows import make_row_sqdist, make_row_sqnorm
from distclust.kernels._screen import (
    BIAS,
    CANDIDATE_LANES,
    CENTER_FLOATS,
    MOST,
    ROW_FLOATS,
    chain_score,
    list_below,
    make_screen_tile,
)
from distclust.kernels.aligned import aligned_empty
from distclust.kernels.heads import HeadAxes, head_rows
from distclust.kernels.lloyd import row_sqnorm as row_sqnorms
from distclust.kernels.nearest import PackedCenters, assign_nearest
from distclust.kernels.rounded import (
    ERROR,
    LEAST_LENGTH,
    LENGTH,
    MOST_LENGTH,
    MOST_WIDTH,
    STEP,
    SUM,
    TAIL,
    RoundedRows,
    last_rows,
    round_rows,
    rounded_argument,
)

LEAST_WIDTH = 48
LEAST_CENTERS = 64
"""With fewer of either, finding the candidates costs what the products save."""

LEAST_LISTED_WIDTH = 16
"""From how many columns on `distclust.kernels.near` compares bytes."""

_ROWS, _VECTORS = 12, 2
_WIDTH = _VECTORS * CANDIDATE_LANES
_MOST_BLOCK_ROWS = 96
_BOUND_BYTES = 768 << 10
"""The bounds of a block of rows stay in L2."""

_UNSURE_ROWS = 4096
"""Rows that are gathered for `assign_nearest` at once."""

_ROUNDED_ROWS = 4096
"""Rows that are rounded at once where they are not known."""

_LEAST_PANELS = 2
"""`distclust.kernels.near` looks for the lowest scores in 64 lanes."""


class ScreenedCenters(NamedTuple):
    """Centres as `assign_labels` compares them."""

    packed: PackedCenters
    rows: npt.NDArray[np.float32]
    """[k, d], as given."""
    head: HeadAxes | None
    """Axes whose coordinates are rounded; None for all columns."""
    panels: npt.NDArray[np.uint8]
    """[n_panels, quads, 32, 4], 64-byte aligned: rounded centres plus the bias."""
    floats: npt.NDArray[np.float32]
    """[n_panels, 4, 32] steps; squared norms, +inf for padding; upper bounds of the lengths that are rounded, and of
    those that are left, both 0 for padding."""
    norms: npt.NDArray[np.float32]
    """[n_panels * 32] the squared norms once more."""
    rounded: npt.NDArray[np.float32]
    """[n_panels, 2, 32] steps, and squared norms of what is rounded and of what is left, +inf for padding: what
    `distclust.kernels.near` compares."""
    error: float
    """Largest length of a centre's rounding error, as a share of the length that is rounded."""
    reach: float
    """Largest length of a centre."""

    @property
    def width(self) -> int:
        """How many values of a row are rounded."""
        return self.rows.shape[1] if self.head is None else self.head.axes.shape[1]


def screens(k: int, d: int, dtype: str, *, anywhere: bool = False) -> bool:
    """Tell whether k centres in d dimensions are screened on this machine; see `screen_centers`."""
    if anywhere:
        return dtype == "float32" and LEAST_LISTED_WIDTH <= d <= MOST_WIDTH
    return dtype == "float32" and machine().byte_products and k >= LEAST_CENTERS and LEAST_WIDTH <= d <= MOST_WIDTH


def screen_centers(
    centers: np.ndarray, packed: PackedCenters, head: HeadAxes | None = None, *, anywhere: bool = False
) -> ScreenedCenters | None:
    """Round centres for `assign_labels`; None where a screen is not possible or does not pay.

    Parameters
    ----------
    centers : float32 or float64 [k, d]
    packed : PackedCenters
        The same centres.
    head : HeadAxes, optional
        Axes that hold most of the length of rows and centres.
    anywhere : bool, default=False
        Also few centres, few columns, and on machines where a screen is slower than `assign_nearest`: for
        `distclust.kernels.near`.
    """
    centers = np.ascontiguousarray(centers)
    k, d = centers.shape
    if not screens(k, d, centers.dtype.name, anywhere=anywhere):
        return None
    reach = float(np.sqrt(row_sqnorms(centers)).max(initial=0.0))
    if not LEAST_LENGTH < reach < MOST_LENGTH:
        return None
    heads, tails = (centers, np.zeros(k)) if head is None else head_rows(centers, head)
    lengths = np.sqrt(row_sqnorms(heads))
    quads, n_panels = -(-heads.shape[1] // QUAD), max(-(-k // _WIDTH), _LEAST_PANELS)
    panels = aligned_empty((n_panels, quads, _WIDTH, QUAD), np.uint8)
    panels[...] = BIAS
    floats = np.zeros((CENTER_FLOATS, n_panels * _WIDTH), np.float32)
    norms = np.full(n_panels * _WIDTH, np.inf, np.float32)
    norms[:k] = packed.norms[:k]
    squares = np.full(n_panels * _WIDTH, np.inf, np.float32)
    share = _round_centers(read_argument(heads, "heads", "float32", (k, None)), lengths, panels, floats[0], squares)
    squares[:k] += (tails * tails).astype(np.float32)
    rounded = np.stack([part.reshape(n_panels, _WIDTH) for part in (floats[0], squares)], axis=1)
    floats[1] = norms
    floats[2, :k] = lengths * (1 + 2.0**-20)
    floats[3, :k] = tails * (1 + 2.0**-20)
    floats = np.ascontiguousarray(floats.reshape(CENTER_FLOATS, n_panels, _WIDTH).transpose(1, 0, 2))
    return ScreenedCenters(packed, centers, head, panels, floats, norms, rounded, share * (1 + 2.0**-20), reach)


def assign_labels(
    x: np.ndarray, packed: PackedCenters, screened: ScreenedCenters | None, rounded: RoundedRows | None = None
) -> npt.NDArray[np.int32]:
    """Return the index of every row's nearest centre, the lowest one among equals: the labels of `assign_nearest`.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        As for `assign_nearest`.
    packed : PackedCenters
    screened : ScreenedCenters or None
        See `screen_centers`.
    rounded : RoundedRows, optional
        What `round_rows` gives for ``x`` and the axes of ``screened``, where it is known; without it, it is made.

    Returns
    -------
    int32 [n]

    Examples
    --------
    >>> from distclust.kernels.nearest import pack_centers
    >>> centers = np.array([[0, 0], [4, 0]], np.float32)
    >>> packed = pack_centers(centers)
    >>> assign_labels(np.array([[1, 0], [3, 1]], np.float32), packed, screen_centers(centers, packed)).tolist()
    [0, 1]
    """
    if screened is None:
        return assign_nearest(x, packed)[0]
    x = read_argument(x, "x", "float32", (None, packed.n_dims))
    nothing = np.empty((0, 0), np.uint8), np.empty((0, 0)), 0.0
    return screen_rows(x, packed, screened, *nothing, rounded=rounded)


def screen_rows(
    x: np.ndarray,
    packed: PackedCenters,
    centers: ScreenedCenters,
    levels: npt.NDArray[np.uint8],
    known: npt.NDArray[np.float64],
    per_length: float,
    rounded: RoundedRows | None = None,
) -> npt.NDArray[np.int32]:
    """Do the work of `assign_labels`, and keep what the screen found as bounds where there is room for them.

    Parameters
    ----------
    x, packed, centers
        See `assign_labels`.
    levels : uint8 [n, w] or [0, 0]
        See `distclust.kernels.bounded.Bounds`.
    known : float64 [n, 3] or [0, 0]
        Takes floor and squared length of each row.
    per_length : float
        Levels of a unit of length.
    rounded : RoundedRows, optional
        See `assign_labels`.
    """
    labels, unsure = _screen(x, centers, rounded, levels, known, per_length)
    for at in range(0, len(unsure), _UNSURE_ROWS):
        chosen = unsure[at : at + _UNSURE_ROWS]
        labels[chosen] = assign_nearest(np.ascontiguousarray(x[chosen]), packed)[0]
    return labels


def _screen(
    x: np.ndarray,
    centers: ScreenedCenters,
    rounded: RoundedRows | None,
    levels: npt.NDArray[np.uint8],
    known: npt.NDArray[np.float64],
    per_length: float,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return labels, and the rows whose label is not known."""
    n = len(x)
    if rounded is not None:
        rounded = rounded_argument(rounded, n, centers.width)
    labels, unsure = np.empty(n, np.int32), np.zeros(n, np.uint8)
    width = len(centers.norms)
    tiles = max(1, min(_MOST_BLOCK_ROWS, _BOUND_BYTES // (4 * width)) // _ROWS)
    block = tiles * _ROWS
    room = (
        np.empty((block, spread_width(width)), np.float32),
        np.empty((block, CANDIDATE_LANES), np.float32),
        np.zeros((block, ROW_FLOATS), np.float32),
        np.empty(block),
        np.zeros(block, np.int32),
        np.empty(width + CANDIDATE_LANES, np.int32),
    )
    at_once = _ROUNDED_ROWS if rounded is None else max(n, 1)
    for start in range(0, n, at_once):
        some = slice(start, min(n, start + at_once))
        part = x[some]
        rows = round_rows(part, centers.head) if rounded is None else rounded
        _screen_kernel()(
            part,
            *rows,
            last_rows(rows, _ROWS),
            centers.rows,
            centers.panels,
            centers.floats,
            centers.norms,
            (np.float64(centers.error), np.float64(centers.reach), np.float64(per_length)),
            *room,
            labels[some],
            unsure[some],
            levels[some],
            known[some],
        )
    return labels, np.flatnonzero(unsure)


def spread_width(width: int) -> int:
    """Return how far apart rows of so many float32 begin.

    It is no multiple of 4 KB, where all rows of a block would share a few sets of the cache: 4096 scores a row took 2.2
    us, and take 1.6 (64 axes).
    """
    return width + 2 * CANDIDATE_LANES


@jit
def _round_centers(heads, lengths, panels, steps, squares):
    """Round centres into their panels, and store their steps and squared lengths.

    Returns the largest error as a share of a length.
    """
    (k, h), share = heads.shape, 0.0
    for j in range(k):
        most = np.float32(0.0)
        for i in range(h):
            most = max(most, abs(heads[j, i]))
        # A centre too short for its step to be a normal number is its own rounding error, in full.
        step = most / np.float32(MOST) if lengths[j] >= LEAST_LENGTH else np.float32(0.0)
        scale = 1.0 / np.float64(step) if step > 0 else 0.0
        panel, lane, left, total = j // _WIDTH, j % _WIDTH, 0.0, np.int64(0)
        for i in range(h):
            value = np.float64(heads[j, i])
            whole = min(max(np.rint(value * scale), -np.float64(MOST)), np.float64(MOST))
            panels[panel, i // QUAD, lane, i % QUAD] = np.uint8(np.int64(whole) + BIAS)
            error = value - whole * np.float64(step)
            left += error * error
            total += np.int64(whole) * np.int64(whole)
        steps[j] = step
        squares[j] = step * step * np.float32(total)
        share = max(share, np.sqrt(left) / lengths[j] if lengths[j] > 0 else 1.0)
    return share


@once
def _screen_kernel() -> Any:
    screen_tile = make_screen_tile(_ROWS, _VECTORS)
    row_sqdist = make_row_sqdist("float32")
    row_sqnorm = make_row_sqnorm("float32")
    first_bytes = make_first_bytes("float32")

    @jit(name="screen")
    def screen(
        x, values, sizes, tail, centers, panels, floats, norms, settings,
        bounds, least, row_floats, rooms, row_sums, found, labels, unsure, levels, known,
    ):  # fmt: skip
        (n, d), stride = x.shape, values.shape[1]
        error, reach, per_length = settings
        n_panels, quads = panels.shape[0], panels.shape[1]
        (block, bound_stride), width = bounds.shape, norms.shape[0]
        x_at, centers_at, panels_at = address(x), address(centers), address(panels)
        values_at, tail_at = address(values), address(tail)
        floats_at, norms_at, levels_at = address(floats), address(norms), address(levels)
        bounds_at, least_at, found_at = address(bounds), address(least), address(found)
        row_floats_at, sums_at = address(row_floats), address(row_sums)
        panel_bytes = quads * QUAD * _WIDTH
        # Room for the rounding of a float32 score (d products and sums), and of the bounds themselves.
        unit = (d + 64) * 2.0**-23
        for start in range(0, n, block):
            rows = min(block, n - start)
            for r in range(rows):
                row_error, length = np.float64(sizes[start + r, ERROR]), np.float64(sizes[start + r, LENGTH])
                row_sums[r] = -BIAS * np.int32(sizes[start + r, SUM])
                row_floats[r, 0] = np.float32(-2.0) * sizes[start + r, STEP]
                row_floats[r, 1] = np.float32(2.0 * (row_error + (length + row_error) * error) * (1 + 2.0**-16))
                row_floats[r, 2] = np.float32(2.0 * np.float64(sizes[start + r, TAIL]) * (1 + 2.0**-16))
                rooms[r] = np.float32(unit * reach * (2.0 * length + reach))
                if not length < MOST_LENGTH:
                    unsure[start + r] = 1
                for lane in range(least.shape[1]):
                    least[r, lane] = np.inf
            for p in range(n_panels):
                for r in range(0, rows, _ROWS):
                    screen_tile(
                        values_at + (start + r) * stride if start + r + _ROWS <= n else tail_at,
                        stride,
                        panels_at + p * panel_bytes,
                        quads,
                        sums_at + r * 4,
                        row_floats_at + r * ROW_FLOATS * 4,
                        floats_at + p * CENTER_FLOATS * _WIDTH * 4,
                        bounds_at + (r * bound_stride + p * _WIDTH) * 4,
                        bound_stride,
                        least_at + r * CANDIDATE_LANES * 4,
                    )
            for r in range(rows):
                limit = least[r, 0]
                for lane in range(1, least.shape[1]):
                    limit = min(limit, least[r, lane])
                least[r, 0] = limit  # the bounds below want it again
                room = rooms[r]
                if unsure[start + r]:
                    continue
                count = list_below(bounds_at + r * bound_stride * 4, width, np.float32(limit + 2.0 * room), found_at)
                if count == 1:
                    labels[start + r] = found[0]
                    continue
                source = x_at + (start + r) * d * 4
                best, second, place = np.inf, np.inf, -1
                for c in range(count):
                    sqdist = row_sqdist(source, centers_at + found[c] * d * 4, d)
                    if sqdist < best:
                        best, second, place = sqdist, best, found[c]
                    elif sqdist < second:
                        second = sqdist
                if second - best > 2.0 * room + 2.0**-30 * second:
                    labels[start + r] = place
                    continue
                low = np.float32(np.inf)
                for c in range(count):
                    score = chain_score(source, centers_at + found[c] * d * 4, d, norms[found[c]])
                    if score < low:
                        low, place = score, found[c]
                labels[start + r] = place
            if levels.shape[1] == 0:
                continue
            for r in range(rows):
                limit = least[r, 0]
                square = row_sqnorm(x_at + (start + r) * d * 4, d)
                lower = np.float32(square * (1 - 2.0**-20) - rooms[r] * (1 + 2.0**-20))
                if unsure[start + r]:
                    lower = np.float32(-np.inf)
                floor = np.float32(first_floor(square + limit, per_length))
                known[start + r, 0], known[start + r, 1] = floor, square
                first_bytes(
                    bounds_at + r * bound_stride * 4, norms_at, min(width, levels.shape[1]), lower, np.float32(0.0),
                    floor, np.float32(per_length), levels_at + (start + r) * levels.shape[1],
                )  # fmt: skip

    return screen
