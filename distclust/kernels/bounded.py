"""Nearest centres for rows that know bounds from the pass before; the labels are those of `assign_nearest`.

Of each row and centre a lower bound of their distance is kept in one byte. When a centre moves, its bounds fall by
the length of the move; a centre whose bound stays above the row's distance to its own centre cannot be nearer
(Elkan, *Using the triangle inequality to accelerate k-means*, 2003). Distances are taken between row and centre rounded
to 16-bit integers, which bound the true ones from both sides, at half the bytes and half the work; only where these
leave more than one centre, the row itself is read and distances are taken in float64. Where two centres are as near as
float32 scores can tell, the scores of `assign_nearest` decide.

Bounds decide what is computed, never its result: every comparison leaves room for the rounding of those scores.

Axis letters: n rows, d dimensions, q dimensions padded to vectors of 16-bit integers, k centres, w centres padded to
words of 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._bytes import (
    PAIRS,
    QUICK_LANES,
    WORD,
    count_bits,
    first_floor,
    four_bits,
    lower_bytes,
    make_first_bytes,
    make_lane_scores,
    make_products,
    make_round_row,
    make_score,
    quick_squares,
)
from distclust.kernels._emit import LANES, SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import make_row_sqdist, make_row_sqnorm, prefetch
from distclust.kernels._ukernel import make_lane_minimum, make_score_tile
from distclust.kernels.aligned import aligned_empty
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.nearest import PackedCenters, assign_nearest
from distclust.kernels.rounded import LEAST_LENGTH, MOST_LENGTH, RoundedRows
from distclust.kernels.screened import ScreenedCenters, screen_rows

_BLOCK_ROWS = 48
"""Rows whose scores are held when bounds are made: a multiple of every tile's rows and lanes."""

_UNSURE_ROWS = 4096
"""Rows that are gathered for `assign_nearest` at once."""

_MOST_SCORES = 8
"""Near ties of a row that are decided one by one; a row with more goes to `assign_nearest`."""

_UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
MOST_DIMS = 500_000
"""Beyond, rounding is no longer small beside the squared lengths; see `winner_limit`."""

_TINIEST = {"float32": 2.0**-149, "float64": 2.0**-1074}
_QUICK_LENGTH = 32767.0
"""Length of a rounded row or centre: by Cauchy and Schwarz no sum of products leaves 31 bits."""

_LENGTH_UP = _QUICK_LENGTH * (1 + 2.0**-18)
"""Above the length of a row, in its steps."""


class QuickCenters(NamedTuple):
    """Centres as rows with bounds are compared with them."""

    rows: np.ndarray
    """[k, d], as given."""
    quick: npt.NDArray[np.int16]
    """[k, q] centres, rounded to multiples of their steps."""
    steps: npt.NDArray[np.float32]
    """[k]; 0 for centres that are not rounded."""
    sqnorms: npt.NDArray[np.float32]
    """[k] squared lengths; -inf for centres that are not rounded, so that nothing is concluded from it."""
    error: float
    """Largest length of a rounding error, in steps."""


class QuickRows:
    """Rows as `assign_bounded` compares them with centres; they do not change from pass to pass.

    Parameters
    ----------
    data : uint8 array
        See `quick_bytes`; kept and passed on as one piece.
    n, d : int
    """

    def __init__(self, data: npt.NDArray[np.uint8], n: int, d: int) -> None:
        self.data = data
        cut = 2 * n * _quick_width(d)
        self.values: npt.NDArray[np.int16] = data[:cut].view(np.int16).reshape(n, _quick_width(d))
        """int16 [n, q]: rounded to multiples of their steps."""
        self.floats: npt.NDArray[np.float64] = data[cut:].view(np.float64).reshape(n, 2)
        """float64 [n, 2]: step, 0 for rows that are not rounded; upper bound of the length of the rounding error."""


def quick_bytes(n: int, d: int) -> int:
    """Return the bytes that n rounded rows of d values take."""
    return n * (2 * _quick_width(d) + 16)


def _quick_width(d: int) -> int:
    """Return the 16-bit values that a row of d values is rounded to, in whole vectors."""
    return -(-d // QUICK_LANES) * QUICK_LANES


def quick_rows(x: np.ndarray) -> QuickRows:
    """Round rows for `assign_bounded`.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, C-contiguous.
    """
    return _round(read_argument(x, "x", tuple(LANES), (None, None)))[0]


def _round(x: np.ndarray) -> tuple[QuickRows, npt.NDArray[np.float64], float]:
    """Return the rounded rows, their squared lengths, and the largest rounding error in steps."""
    n, d = x.shape
    rows, squares = QuickRows(aligned_empty((quick_bytes(n, d),), np.uint8), n, d), np.empty(n)
    rows.values[:, d:] = 0
    error = _round_kernel(x.dtype.name)(x, rows.values, rows.floats, squares)
    return rows, squares, float(error)


class Bounds:
    """Lower bounds of the distances of n rows to k centres, ``floor + step * level``; none where a level is 0.

    Parameters
    ----------
    data : uint8 array
        See `bounds_bytes`; kept and passed on as one piece, so that levels never meet floors of another pass.
    n, k : int
    """

    def __init__(self, data: npt.NDArray[np.uint8], n: int, k: int) -> None:
        self.data = data
        width = _padded(k)
        cut = n * width
        self.levels: npt.NDArray[np.uint8] = data[:cut].reshape(n, width)
        """uint8 [n, w]: one of each row and centre."""
        self.rows: npt.NDArray[np.float64] = data[cut:].view(np.float64).reshape(n, _KNOWN)
        """float64 [n, 3]: floor (not negative, a float32), squared length, upper bound of the squared distance to the
        row's centre."""

    @classmethod
    def empty(cls, n: int, k: int) -> Bounds:
        """Make room for bounds, whatever it holds."""
        return cls(aligned_empty((bounds_bytes(n, k),), np.uint8), n, k)


_KNOWN = 3


def bounds_bytes(n: int, k: int) -> int:
    """Return the bytes that bounds of n rows and k centres take."""
    return n * (_padded(k) + 8 * _KNOWN)


def _padded(k: int) -> int:
    """Return the levels of a row: those of k centres, in whole words."""
    return -(-k // WORD) * WORD


def quick_centers(centers: np.ndarray) -> QuickCenters:
    """Round centres for `assign_bounded`.

    Parameters
    ----------
    centers : float32 or float64 [k, d]
    """
    centers = read_argument(np.ascontiguousarray(centers), "centers", tuple(LANES), (None, None))
    rows, squares, error = _round(centers)
    steps = rows.floats[:, 0].astype(np.float32)
    sqnorms = np.where((steps > 0) | (squares == 0), squares, -np.inf).astype(np.float32)
    return QuickCenters(centers, rows.values, steps, sqnorms, error)


def level_falls(old: np.ndarray, new: np.ndarray, step: float) -> npt.NDArray[np.uint8]:
    """Return by how many levels the bounds of each centre fall when it moves; 0 only if it does not.

    Parameters
    ----------
    old, new : float32 or float64 [k, d]
    step : float
        Distance between two levels.

    Returns
    -------
    uint8 [w]
    """
    if old.shape != new.shape:
        raise ValueError(f"old is of shape {old.shape}, new of shape {new.shape}; both must be the same.")
    moves = np.sqrt(row_sqdist(new, old, np.arange(len(new), dtype=np.int32)))
    falls = np.zeros(_padded(len(new)), np.uint8)
    falls[: len(new)] = np.clip(np.ceil(moves * (1 + 1e-6) / step), (old != new).any(axis=1), 255)
    return falls


def first_bounds(
    x: np.ndarray,
    centers: np.ndarray,
    packed: PackedCenters,
    step: float,
    screened: ScreenedCenters | None = None,
    rounded: RoundedRows | None = None,
) -> tuple[npt.NDArray[np.int32], Bounds]:
    """Find the nearest centre of every row from all distances, and keep these as bounds.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, C-contiguous.
    centers : [k, d], dtype of x
    packed : PackedCenters
        The same, as `pack_centers` gives them.
    step : float
        Distance between two levels; 255 of them should reach from a row's nearest centre over those that may become it.
    screened : ScreenedCenters, optional
        The same centres, as `screen_centers` gives them: with it bounds are looser, and made three times as fast.
    rounded : RoundedRows, optional
        What `round_rows` gives for ``x`` and the axes of ``screened``, where it is known.

    Returns
    -------
    labels : int32 [n]
        As `assign_nearest` gives them.
    bounds : Bounds
    """
    x = read_argument(x, "x", packed.dtype.name, (None, packed.n_dims))
    bounds = Bounds.empty(len(x), packed.n_clusters)
    if screened is None:
        labels = _first_bounds(x, packed, step, bounds)
    else:
        labels = screen_rows(x, packed, screened, bounds.levels, bounds.rows, 1.0 / step, rounded)
    bounds.rows[:, 2] = row_sqdist(x, centers, labels)
    return labels, bounds


def _first_bounds(x: np.ndarray, packed: PackedCenters, step: float, bounds: Bounds) -> npt.NDArray[np.int32]:
    n, dtype, rows = len(x), x.dtype.name, packed.tile[0]
    lanes = LANES[dtype]
    tail = np.zeros((rows, packed.n_dims), x.dtype)
    tail[: n % rows] = x[n - n % rows :]
    labels = np.empty(n + lanes, np.int32)
    scores = np.empty((_BLOCK_ROWS, len(packed.norms)), x.dtype)
    best = np.empty((_BLOCK_ROWS, lanes), x.dtype)
    index = np.empty((_BLOCK_ROWS, lanes), np.int32)
    lowest = np.empty(n + lanes, x.dtype)
    _first_kernel(dtype, packed.tile)(
        x, tail, packed.panels, packed.norms, scores, best, index, lowest, labels, bounds.levels, bounds.rows,
        (*_rounding(dtype, packed.n_dims), 1.0 / step),
    )  # fmt: skip
    return labels[:n]


def _rounding(dtype: str, d: int) -> tuple[float, float]:
    """Worst case of a score's rounding, an error a product and addition: per squared length, and where all is tiny."""
    if d > MOST_DIMS:
        raise ValueError(f"x has {d} columns; bounds are proven for {MOST_DIMS} at most.")
    return (2.0 * d + 16.0) * _UNIT[dtype], (2.0 * d + 16.0) * _TINIEST[dtype]


def assign_bounded(
    x: np.ndarray,
    quick: QuickRows,
    own: npt.NDArray[np.int32],
    centers: QuickCenters,
    falls: npt.NDArray[np.uint8],
    bounds: Bounds,
    step: float,
    packed: Callable[[], PackedCenters],
) -> tuple[npt.NDArray[np.int32], int]:
    """Find the nearest centre of every row, and bounds for the next pass.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, C-contiguous.
    quick : QuickRows
        The same, see `quick_rows`.
    own : int32 [n]
        Centre of each row in the pass that ``bounds`` come from.
    centers : QuickCenters
        See `quick_centers`.
    falls : uint8 [w]
        See `level_falls`: how far centres are from those that ``bounds`` come from.
    bounds : Bounds
        Brought up to date in place.
    step : float
        Distance between two levels of ``bounds``.
    packed : callable
        Gives the centres packed for `assign_nearest`, should they be needed.

    Returns
    -------
    labels : int32 [n]
        As `assign_nearest` gives them.
    pairs : int
        Pairs of a row and a centre that were compared, of n * k.
    """
    x = read_argument(x, "x", centers.rows.dtype.name, (None, centers.rows.shape[1]))
    n, k = len(x), len(centers.rows)
    levels = write_argument(bounds.levels, "bounds", "uint8", (n, _padded(k)))
    labels, unsure = np.empty(n, np.int32), np.empty(n, np.int64)
    pairs, found = _bounded_kernel(x.dtype.name)(
        x,
        read_argument(quick.values, "quick", "int16", (n, centers.quick.shape[1])),
        read_argument(quick.floats, "quick", "float64", (n, 2)),
        read_argument(own, "own", "int32", (n,)),
        *centers,
        np.empty(k + 32, np.int32),
        read_argument(falls, "falls", "uint8", (levels.shape[1],)),
        levels,
        write_argument(bounds.rows, "rows", "float64", (n, _KNOWN)),
        (*_rounding(x.dtype.name, x.shape[1]), 1.0 / step),
        labels,
        unsure,
    )
    for start in range(0, found, _UNSURE_ROWS):
        rows = unsure[start : min(start + _UNSURE_ROWS, found)]
        part = x[rows]
        labels[rows], _ = assign_nearest(part, packed())
        bounds.rows[rows, 2] = row_sqdist(part, centers.rows, labels[rows])
    return labels, int(pairs) + found * k


@jit
def winner_limit(near, square, rate, least):
    """Return the largest squared distance at which a centre can have a lower score than one at ``near``.

    A score of a row x and a centre c is off by at most ``e = rate (|c| |x| + |c|^2) + least``. For a centre at distance
    D, ``|c| <= |x| + D`` makes it ``rate (3.5 |x|^2 + 2.5 D^2) + least``, and the winner has ``D^2 - e <= near + e'``.
    No length of a centre occurs: one far off does not cost the others their bounds.
    """
    return (near * (1.0 + 4.0 * rate) + 8.0 * rate * square + 4.0 * least) / (1.0 - 2.5 * rate)


@jit
def quick_scale(square):
    """Return what a row of a squared length is multiplied with before it is rounded; 0 for rows that are not."""
    length = np.sqrt(square)
    return _QUICK_LENGTH / length if LEAST_LENGTH < length < MOST_LENGTH else 0.0


@jit
def quick_error(left):
    """Return the most that a rounded row is off, in steps, from the sum of squares of what rounding took away.

    In float32 that sum is off by a five-hundredth at most (`MOST_DIMS`); the scaled row by 2^-24 of its length, 32767,
    and so is a centre's step.
    """
    return np.sqrt(np.float64(left)) * (1.0 + 2.0**-9) + 0.01


@once
def _round_kernel(dtype: str) -> Any:
    size = SIZES[dtype]
    sqnorm_of_row = make_row_sqnorm(dtype)
    round_row = make_round_row(dtype)
    kind = np.float32 if dtype == "float32" else np.float64

    @jit(name=f"round_quick_{dtype}")
    def round_quick(x, values, floats, squares):
        """Round rows, store their steps, errors and squared lengths; return the largest error in steps."""
        n, d = x.shape
        x_at, values_at, largest = address(x), address(values), 0.0
        for r in range(n):
            squares[r] = sqnorm_of_row(x_at + r * d * size, d)
            scale = kind(quick_scale(squares[r]))
            left = round_row(x_at + r * d * size, scale, d, values_at + r * values.shape[1] * 2)
            error = quick_error(left)
            floats[r, 0] = 1.0 / np.float64(scale) if scale > 0 else 0.0
            floats[r, 1] = floats[r, 0] * error
            largest = max(largest, error)
        return largest

    return round_quick


@once
def _first_kernel(dtype: str, tile: tuple[int, int]) -> Any:
    rows, vectors = tile
    lanes, size = LANES[dtype], SIZES[dtype]
    width = lanes * vectors
    score_tile = make_score_tile(dtype, tile)
    lane_scores = make_lane_scores(dtype)
    lane_minimum = make_lane_minimum(dtype)
    first_bytes = make_first_bytes(dtype)
    sqnorm_of_row = make_row_sqnorm(dtype)
    kind = np.float32 if dtype == "float32" else np.float64

    @jit(name=f"first_bounds_{dtype}_{rows}x{vectors}")
    def first(x, tail, panels, norms, scores, best, index, lowest, labels, levels, known, rates):
        n, d = x.shape
        rate, least, levels_per = rates
        k, w = norms.shape[0], levels.shape[1]
        whole = n - n % rows
        x_at, tail_at, panels_at, norms_at = address(x), address(tail), address(panels), address(norms)
        scores_at, best_at, index_at = address(scores), address(best), address(index)
        lowest_at, labels_at, levels_at = address(lowest), address(labels), address(levels)
        for start in range(0, n, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n)
            for p in range(panels.shape[0]):
                for r in range(start, stop, rows):
                    score_tile(
                        x_at + r * d * size if r < whole else tail_at,
                        d,
                        panels_at + p * d * width * size,
                        d,
                        norms_at + p * width * size,
                        scores_at + ((r - start) * k + p * width) * size,
                        k,
                    )
            for r in range(start, stop):
                done = (r - start) * lanes
                lane_scores(scores_at + (r - start) * k * size, k, best_at + done * size, index_at + done * 4)
            for r in range(start, stop, lanes):
                done = (r - start) * lanes
                lane_minimum(best_at + done * size, index_at + done * 4, lowest_at + r * size, labels_at + r * 4)
            for r in range(start, stop):
                square = sqnorm_of_row(x_at + r * d * size, d)
                floor = np.float32(first_floor(square + lowest[r], levels_per))
                known[r, 0], known[r, 1] = floor, square
                scored = scores_at + (r - start) * k * size
                first_bytes(
                    scored, norms_at, min(k, w), kind(square - rate * square - least), kind(2.0 * rate), kind(floor),
                    kind(levels_per), levels_at + r * w,
                )  # fmt: skip
                for j in range(k, w):
                    levels[r, j] = 255

    return first


@once
def _bounded_kernel(dtype: str) -> Any:
    size = SIZES[dtype]
    sqdist_of_row = make_row_sqdist(dtype)
    product, products = make_products(1), make_products(PAIRS)
    score = make_score(dtype)
    kind = np.float32 if dtype == "float32" else np.float64

    @jit(name="candidates")
    def candidates(levels_at, falls_at, k, threshold, own, ids_at):
        """List the centres that bounds do not exclude, but for the row's own; return their number."""
        count = 0
        for first in range(0, k, WORD):
            mask = lower_bytes(levels_at + first, falls_at + first, threshold)
            if first + WORD > k:
                mask &= (np.uint64(1) << np.uint64(k - first)) - np.uint64(1)
            if first <= own < first + WORD:
                mask &= ~(np.uint64(1) << np.uint64(own - first))
            at = count
            count += count_bits(mask)
            mask = four_bits(mask, first, ids_at + at * 4)  # whether there are any costs more to guess than to list
            while mask != 0:
                at += 4
                mask = four_bits(mask, first, ids_at + at * 4)
        return count

    @jit(name=f"best_score_{dtype}")
    def best_score(row_at, centers, ties, count):
        """Return which of some centres has the lowest score, the first among equals."""
        d = centers.shape[1]
        centers_at = address(centers)
        label, lowest = -1, kind(np.inf)
        for t in range(count):
            j = ties[t]
            norm = 0.0  # as `pack_centers` adds it
            for i in range(d):
                norm += np.float64(centers[j, i]) * np.float64(centers[j, i])
            value = score(row_at, centers_at + j * d * size, d, kind(norm))
            if label < 0 or value < lowest or (value == lowest and j < label):
                label, lowest = j, value
        return label

    @jit(name=f"bounded_{dtype}")
    def bounded(
        x, rounded, rounding, own, centers, quick, steps, sqnorms, error, sums, falls, levels, known, rates,
        labels, unsure,
    ):  # fmt: skip
        n, d = x.shape
        k, w = centers.shape[0], levels.shape[1]
        padded = quick.shape[1]
        rate, least, levels_per = rates
        # Arrays that are used by address alone must come from outside: numba frees its own after their last mention.
        room_for = len(sums)
        ids = np.empty(room_for, np.int32)
        their_sqnorms, their_steps = np.zeros(room_for, np.float32), np.zeros(room_for, np.float32)
        squares, fresh = np.empty(room_for, np.float32), np.empty(room_for, np.uint8)
        exact = np.empty(room_for, np.float64)
        ties = np.empty(_MOST_SCORES, np.int64)
        x_at, centers_at, quick_at, ids_at = address(x), address(centers), address(quick), address(ids)
        sums_at, rounded_at, levels_at, falls_at = address(sums), address(rounded), address(levels), address(falls)
        sqnorms_at, steps_at = address(their_sqnorms), address(their_steps)
        squares_at, fresh_at = address(squares), address(fresh)
        pairs = found = 0
        for r in range(n):
            if r + 1 < n:
                prefetch(levels_at + (r + 1) * w, w)
                prefetch(rounded_at + (r + 1) * padded * 2, padded * 2)
            row_at, quick_row, mine = x_at + r * d * size, rounded_at + r * padded * 2, own[r]
            near, square = known[r, 2], known[r, 1]
            step, base, slack = rounding[r, 0], np.float32(square), 0.0
            if step > 0:
                slack = 2.0 * (_LENGTH_UP * step * error + rounding[r, 1] * (_QUICK_LENGTH + 1.0 + error))
            elif square != 0:
                base = np.float32(-np.inf)
            measured = False
            if falls[mine]:
                if base + sqnorms[mine] >= 0:
                    ids[0] = mine
                    product(quick_row, quick_at, padded * 2, ids_at, padded, sums_at)
                    near = (square + np.float64(sqnorms[mine])) * (1.0 + 2.0**-18)
                    near += np.float64(steps[mine]) * (slack - 2.0 * step * sums[0])
                else:
                    near, measured = sqdist_of_row(row_at, centers_at + mine * d * size, d), True
                known[r, 2] = near
            limit = winner_limit(near, square, rate, least)
            floor = known[r, 0]
            reached = (np.sqrt(limit) * (1 + 1e-12) - floor) * levels_per
            threshold = 255 if reached >= 255 else 0 if reached < 0 else np.int64(reached)
            labels[r] = mine
            count = candidates(levels_at + r * w, falls_at, k, threshold, mine, ids_at)
            if count == 0:
                continue
            pairs += count
            for i in range(count, count + PAIRS):
                ids[i] = mine
            for i in range(count):
                j = np.uint32(ids[i])
                their_sqnorms[i], their_steps[i] = sqnorms[j], steps[j]
            for i in range(0, count, PAIRS):
                products(quick_row, quick_at, padded * 2, ids_at + i * 4, padded, sums_at + i * 4)
            lowest = quick_squares(
                sums_at, sqnorms_at, steps_at, count, base, np.float32(2.0 * step), np.float32(slack),
                np.float32(floor), np.float32(levels_per), squares_at, fresh_at,
            )  # fmt: skip
            for i in range(count):
                levels[r, np.uint32(ids[i])] = fresh[i]
            if lowest > limit:
                continue
            if not measured:
                near = sqdist_of_row(row_at, centers_at + mine * d * size, d)
                limit = winner_limit(near, square, rate, least)
            nearest = near
            for i in range(count):
                j = ids[i]
                exact[i] = np.inf
                if squares[i] <= limit:
                    exact[i] = sqdist_of_row(row_at, centers_at + j * d * size, d)
                    if exact[i] < nearest:
                        nearest = exact[i]
                        labels[r] = j
            known[r, 2] = nearest
            near_ties = 0
            limit = winner_limit(nearest, square, rate, least)
            if near <= limit:
                ties[0], near_ties = mine, 1
            for i in range(count):
                if exact[i] <= limit:
                    if near_ties < _MOST_SCORES:
                        ties[near_ties] = ids[i]
                    near_ties += 1
            if near_ties > _MOST_SCORES:
                unsure[found] = r
                found += 1
            elif near_ties > 1:
                label = best_score(row_at, centers, ties, near_ties)
                labels[r] = label
                known[r, 2] = sqdist_of_row(row_at, centers_at + label * d * size, d)
        return pairs, found

    return bounded
