"""Nearest centres for rows that know bounds from the pass before; the labels are those of `assign_nearest`.

Centres are grouped by panel, near ones together. Of each row and panel a lower bound of the distance to the panel's
centres is kept. When centres move, a bound falls by the longest move in its panel; a panel whose bound stays above the
row's distance to some centre cannot hold its nearest one, and is left out. Rows that are left for a panel are gathered
into full register tiles, and their bounds made anew from the distances computed (Ding et al., *Yinyang K-means*, 2015;
groups here are panels, so that what is tested together is computed together).

Bounds decide what is computed, never its result: every comparison leaves room for the rounding of float32 scores.

Axis letters: n rows, d dimensions, k centres.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._emit import LANES, SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._machine import machine
from distclust.kernels._ukernel import lower_bounds, make_chosen_tile, make_lane_minimum
from distclust.kernels.nearest import PackedCenters, pack_panels

BLOCK_ROWS = 240
"""Rows that pass under all panels together: a multiple of every tile's rows and lanes. Their best scores stay in L2."""

_WIDE_ROWS, _NARROW_ROWS = 12, 6
"""Rows of a register tile with one vector of centres; see `distclust.kernels.nearest`."""

_UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
_SHRINK = np.float32(1 - 2.0**-21)
"""Square root and cast of a bound round by less."""


class GroupedCenters(NamedTuple):
    """Centres packed one vector a panel, in an order of the caller's."""

    packed: PackedCenters
    ids: npt.NDArray[np.int32]
    """[n_panels * lanes] centre of each place; padding has the highest ids."""
    panel_of: npt.NDArray[np.int32]
    """[k] panel of each centre."""
    reach: float
    """Largest length of a centre."""


def group_order(centers: np.ndarray) -> npt.NDArray[np.int32]:
    """Return an order of centres in which those that share a panel are near each other.

    Halves along the dimension of largest spread, at a multiple of the panel's width, until a panel is left.

    Parameters
    ----------
    centers : float32 or float64 [k, d]

    Returns
    -------
    int32 [k]
    """
    width = LANES[centers.dtype.name]
    order = np.arange(len(centers), dtype=np.int32)
    stack = [(0, len(centers))]
    while stack:
        start, stop = stack.pop()
        runs = -(-(stop - start) // width)
        if runs <= 1:
            continue
        part = order[start:stop]
        points = centers[part].astype(np.float64)
        points -= points.mean(axis=0)
        # Two power steps from the dimension of largest spread: close to the first principal axis, at no cost.
        axis = np.zeros(points.shape[1])
        axis[np.argmax((points**2).sum(axis=0))] = 1.0
        for _ in range(4):
            axis = points.T @ (points @ axis)
            axis /= max(float(np.linalg.norm(axis)), 1e-300)
        middle = runs // 2 * width
        order[start:stop] = part[np.argpartition(points @ axis, middle)]
        stack += [(start, start + middle), (start + middle, stop)]
    return order


def group_centers(centers: np.ndarray, order: npt.NDArray[np.int32]) -> GroupedCenters:
    """Pack centres for `assign_bounded`.

    Parameters
    ----------
    centers : float32 or float64 [k, d]
    order : int32 [k]
        See `group_order`; of these centres or of others that they came from.
    """
    packed = pack_panels(centers[order], 1)
    lanes = LANES[centers.dtype.name]
    ids = np.full(len(packed.norms), np.iinfo(np.int32).max, np.int32)
    ids[: len(order)] = order
    panel_of = np.empty(len(order), np.int32)
    panel_of[order] = np.arange(len(order), dtype=np.int32) // lanes
    wide = centers.astype(np.float64)
    return GroupedCenters(packed, ids, panel_of, float(np.sqrt((wide * wide).sum(axis=1).max())))


def longest_moves(old: np.ndarray, new: np.ndarray, order: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return, for each panel, at least the longest distance between an old and a new centre.

    Parameters
    ----------
    old, new : float32 or float64 [k, d]
    order : int32 [k]

    Returns
    -------
    float32 [n_panels]
    """
    lanes = LANES[new.dtype.name]
    moves = np.sqrt(((new.astype(np.float64) - old) ** 2).sum(axis=1))[order]
    n_panels = -(-len(order) // lanes)
    padded = np.zeros(n_panels * lanes)
    padded[: len(order)] = moves
    longest = padded.reshape(n_panels, lanes).max(axis=1) * (1 + 1e-6)
    return np.nextafter(longest.astype(np.float32), np.float32(np.inf))


def bounds_shape(n: int, grouped: GroupedCenters) -> tuple[int, int, int]:
    """Return the shape of the bounds of n rows: blocks, panels, rows of a block."""
    return -(-n // BLOCK_ROWS), grouped.packed.panels.shape[0], BLOCK_ROWS


def empty_bounds(n: int, grouped: GroupedCenters) -> npt.NDArray[np.float32]:
    """Return bounds that exclude nothing, of `bounds_shape`."""
    return np.full(bounds_shape(n, grouped), -np.inf, np.float32)


def assign_bounded(
    x: np.ndarray,
    sqnorms: npt.NDArray[np.float64],
    near: npt.NDArray[np.float64],
    own: npt.NDArray[np.int32],
    grouped: GroupedCenters,
    moves: npt.NDArray[np.float32],
    bounds: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int32], int]:
    """Find the nearest centre of every row, and bounds for the next pass.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, C-contiguous.
    sqnorms : float64 [n]
        Their squared lengths.
    near : float64 [n]
        Squared distance of each row to the centre ``own``.
    own : int32 [n]
        Some centre of each row: the nearer, the more is left out.
    grouped : GroupedCenters
        See `group_centers`.
    moves : float32 [n_panels]
        See `longest_moves`: how far centres are from those that ``bounds`` were made with.
    bounds : float32 [n_blocks, n_panels, BLOCK_ROWS]
        See `empty_bounds`; brought up to date in place. Distances, not squared.

    Returns
    -------
    labels : int32 [n]
        As `assign_nearest` gives them.
    tiles : int
        Pairs of a row and a panel whose distances were computed, of n * n_panels.
    """
    packed = grouped.packed
    x = read_argument(x, "x", packed.panels.dtype.name, (None, packed.n_dims))
    n, d = x.shape
    bounds = write_argument(bounds, "bounds", "float32", bounds_shape(n, grouped))
    dtype, lanes = x.dtype.name, LANES[x.dtype.name]
    # Worst case of a score's rounding, as a squared distance: one error per product and addition.
    room = (2.0 * d + 16.0) * _UNIT[dtype] * (grouped.reach * np.sqrt(sqnorms) + grouped.reach**2)
    limits = np.full(-(-n // BLOCK_ROWS) * BLOCK_ROWS, -np.inf, np.float32)
    limits[:n] = np.nextafter(np.sqrt(near + 2.0 * room).astype(np.float32), np.float32(np.inf))
    homes = np.full(len(limits), -1, np.int32)
    homes[:n] = grouped.panel_of[own]
    labels = np.empty(n + lanes, np.int32)
    scores = np.empty(n + lanes, x.dtype)
    rows = _WIDE_ROWS if machine().wide else _NARROW_ROWS
    tiles = _bounded_kernel(dtype, rows)(
        x,
        sqnorms - room,
        limits,
        homes,
        packed.panels,
        packed.norms,
        grouped.ids,
        moves,
        bounds,
        scores,
        labels,
    )
    return labels[:n], int(tiles)


@once
def _bounded_kernel(dtype: str, rows: int) -> Any:
    lanes, size = LANES[dtype], SIZES[dtype]
    chosen_tile = make_chosen_tile(dtype, rows)
    lane_minimum = make_lane_minimum(dtype)

    @jit(name=f"bounded_{dtype}_{rows}")
    def bounded(x, bases, limits, own, panels, norms, ids, moves, bounds, scores, labels):
        n, d = x.shape
        # One row more than a block: it takes what a part-filled tile computes.
        best = np.empty((BLOCK_ROWS + 1, lanes), x.dtype)
        index = np.empty((BLOCK_ROWS + 1, lanes), np.int32)
        lowest = np.empty(BLOCK_ROWS + 1, x.dtype)
        places = np.empty(BLOCK_ROWS + rows, np.int64)
        targets = np.empty(BLOCK_ROWS + rows, np.int64)
        chosen = np.empty(BLOCK_ROWS + lanes, np.int32)
        x_at, panels_at, norms_at, ids_at = address(x), address(panels), address(norms), address(ids)
        best_at, index_at, scores_at, labels_at = address(best), address(index), address(scores), address(labels)
        places_at, targets_at, lowest_at = address(places), address(targets), address(lowest)
        limits_at, own_at, chosen_at = address(limits), address(own), address(chosen)
        tiles = 0
        for start in range(0, n, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n)
            best[:] = np.inf
            index[:] = 0
            for p in range(panels.shape[0]):
                bound = bounds[start // BLOCK_ROWS, p]
                found = lower_bounds(
                    address(bound), limits_at + start * 4, own_at + start * 4, BLOCK_ROWS, p, moves[p], chosen_at
                )
                if found == 0:
                    continue
                tiles += found
                for i in range(found):
                    targets[i] = chosen[i]
                    places[i] = x_at + (start + targets[i]) * d * size
                for i in range(found, found + (-found) % rows):
                    places[i] = x_at + start * d * size
                    targets[i] = BLOCK_ROWS
                for i in range(0, found, rows):
                    chosen_tile(
                        places_at + i * 8,
                        targets_at + i * 8,
                        panels_at + p * d * lanes * size,
                        d,
                        norms_at + p * lanes * size,
                        ids_at + p * lanes * 4,
                        best_at,
                        index_at,
                        lowest_at,
                    )
                for i in range(found):
                    r = targets[i]
                    square = lowest[r] + bases[start + r]
                    bound[r] = np.float32(np.sqrt(square)) * _SHRINK if square > 0 else np.float32(-1.0)
            for r in range(start, stop, lanes):
                done = (r - start) * lanes
                lane_minimum(best_at + done * size, index_at + done * 4, scores_at + r * size, labels_at + r * 4)
        return tiles

    return bounded
