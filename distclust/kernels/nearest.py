"""Nearest centres by brute force near the machine's peak; distances that do not depend on where a row lies.

Axis letters: n rows, d dimensions, k centres. For a row x and a centre c the score is ``||c||^2 - 2 x.c``, x.c
summed by fused multiply-add over i = 0 ... d-1 with one accumulator (SIMD lanes are centres).
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import LANES, SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._machine import has_fma, machine
from distclust.kernels._ukernel import make_assign_tile, make_lane_minimum, make_score_tile
from distclust.kernels.aligned import aligned_empty
from distclust.kernels.slices import in_slices

__all__ = ["PackedCenters", "assign_nearest", "distance_table", "has_fma", "pack_centers", "project_rows"]

# Products that take about as long as a value of an array that is read and written: see `in_slices`.
_PRODUCTS = 32

# Rows and vectors of centres in a register tile, with the share of peak it reaches at d = 128 and k = 1000.
# Origin: all tiles from 6x1 to 28x1 and 4x7 on an Emerald Rapids (AVX-512), and with AVX2 on the same machine, where 16
# registers leave room for no more than 6x1. NEON has 32 registers of a quarter of the width: 6x1 as well.
_WIDE_TILES = {(8, 2): 0.86, (12, 1): 0.75}
_NARROW_TILES = {(6, 1): 0.90}

# Rows that pass under all panels before the next ones do; a multiple of every tile's rows and of the rows that
# lane_minimum takes at once. Measured, % of peak on 2 busy cores for 48 / 96 / 144 / 240 / 480 rows: d = 768,
# k = 2000: 85 / 90 / 91 / 91 / 88; d = 4096, k = 1000: 80 / 85 / 87 / 83 / 82; no difference for small d.
BLOCK_ROWS = 144

# Panels that stay in L1 while the tiles of a block pass under them one after the other.
GROUP_BYTES = 24 << 10


class PackedCenters:
    """Centres as the tiles read them; made by `pack_centers` and `pack_panels`.

    Attributes
    ----------
    panels : [n_panels, d, NR]
        Centres side by side, dimension by dimension; 64-byte aligned; NR centres a panel, zero padded.
    norms : [n_panels * NR]
        Squared norms; +inf for padding.
    n_clusters, n_dims : int
        k and d.
    dtype : numpy.dtype
    tile : tuple of int
        Rows and vectors of centres in one register tile.
    """

    def __init__(self, rows: np.ndarray, norms: np.ndarray, tile: tuple[int, int]) -> None:
        self._rows = rows
        self.norms = norms
        self.n_clusters, self.n_dims = rows.shape
        self.dtype = rows.dtype
        self.tile = tile

    def pack(self) -> None:
        """Pack now what is packed on first use otherwise."""
        self.panels  # noqa: B018

    @cached_property
    def panels(self) -> np.ndarray:
        """See the class."""
        width = LANES[self.dtype.name] * self.tile[1]
        panels = aligned_empty((len(self.norms) // width, self.n_dims, width), self.dtype)
        _pack(self._rows, panels)
        return panels

    def with_norms(self, norms: np.ndarray) -> PackedCenters:
        """Return the same centres with other norms, of the same shape and dtype; with zeros, scores are products."""
        other = copy(self)
        other.norms = norms
        return other


def pack_centers(centers: np.ndarray, *, later: bool = False) -> PackedCenters:
    """Pack centres for `assign_nearest` and `distance_table`.

    Parameters
    ----------
    centers : float32 or float64 [k, d]
        Centres, k >= 1, d >= 1.
    later : bool, default=False
        Pack them when panels are first wanted, which may be never. Until then ``centers`` must not change.

    Returns
    -------
    PackedCenters
        Of the same dtype; squared norms are summed in float64, dimension by dimension, then cast.

    Raises
    ------
    ValueError
        If there are no centres, or they have another dtype.
    """
    centers = read_argument(np.ascontiguousarray(centers), "centers", tuple(LANES), (None, None))
    if not centers.size:
        raise ValueError(f"centers has shape {centers.shape}; at least one centre of one dimension is needed.")
    return _packed(centers, _choose_tile(len(centers), LANES[centers.dtype.name]), later=later)


def pack_panels(centers: np.ndarray, vectors: int) -> PackedCenters:
    """Pack centres in panels of ``vectors`` vectors; see `pack_centers`. The tile's rows are left to the caller."""
    return _packed(read_argument(centers, "centers", centers.dtype.name, (None, None)), (0, vectors))


def _packed(centers: np.ndarray, tile: tuple[int, int], *, later: bool = False) -> PackedCenters:
    width = LANES[centers.dtype.name] * tile[1]
    norms = np.full(-(-len(centers) // width) * width, np.inf, centers.dtype)
    _square_lengths(centers, norms)
    packed = PackedCenters(centers, norms, tile)
    if not later:
        packed.pack()
    return packed


def assign_nearest(x: np.ndarray, packed: PackedCenters) -> tuple[npt.NDArray[np.int32], np.ndarray]:
    """Find the nearest centre of every row.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, C-contiguous, of the dtype of the packed centres, without NaN.
    packed : PackedCenters
        See `pack_centers`.

    Returns
    -------
    labels : int32 [n]
        Index of the nearest centre, the lowest one among equals.
    scores : [n], dtype of x
        ``min_j ||c_j||^2 - 2 x.c_j``: the squared distance less ``||x||^2``.

    Raises
    ------
    ValueError
        If `x` has another dtype or width than the centres, or is not C-contiguous.

    Examples
    --------
    >>> packed = pack_centers(np.array([[0, 0], [4, 0]], np.float32))
    >>> labels, scores = assign_nearest(np.array([[1, 0], [3, 1]], np.float32), packed)
    >>> labels.tolist(), scores.tolist()
    ([0, 1], [0.0, -8.0])
    """
    x, tail = rows_argument(x, packed)
    dtype, lanes = x.dtype.name, LANES[x.dtype.name]
    # The lanes of several rows are reduced at once, hence the room behind the last row.
    labels = np.empty(len(x) + lanes, np.int32)
    scores = np.empty(len(x) + lanes, x.dtype)
    best = np.empty((BLOCK_ROWS, lanes), x.dtype)
    index = np.empty((BLOCK_ROWS, lanes), np.int32)
    group = max(1, GROUP_BYTES // packed.panels[0].nbytes)
    _assign_kernel(dtype, packed.tile)(x, tail, packed.panels, packed.norms, best, index, scores, labels, group)
    return labels[: len(x)], scores[: len(x)]


def distance_table(x: np.ndarray, packed: PackedCenters, *, threads: int = 1) -> np.ndarray:
    """Return ``||c||^2 - 2 x.c`` of every row and centre; add ``||x||^2`` for squared distances.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, as for `assign_nearest`.
    packed : PackedCenters
        See `pack_centers`.
    threads : int, default=1
        That take part, where the table is large.

    Returns
    -------
    [n, k], dtype of x

    Examples
    --------
    >>> distance_table(np.array([[1.0, 0.0]]), pack_centers(np.array([[0.0, 0.0], [4.0, 0.0]]))).tolist()
    [[0.0, 8.0]]
    """
    out = np.empty((len(x), packed.n_clusters), x.dtype)

    def fill(some: slice) -> None:
        part, tail = rows_argument(x[some], packed)
        edge = np.empty((packed.tile[0], packed.panels.shape[2]), x.dtype)
        _table_kernel(x.dtype.name, packed.tile)(part, tail, packed.panels, packed.norms, edge, out[some])

    in_slices(fill, len(x), packed.n_clusters * -(-packed.n_dims // _PRODUCTS), threads)
    return out


def project_rows(x: np.ndarray, axes: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Return ``x @ axes`` with bits that do not depend on the place of a row, nor on the processor.

    Parameters
    ----------
    x : float32 or float64 [n, d]
    axes : [d, m], dtype of x
    threads : int, default=1
        See `distance_table`.

    Returns
    -------
    [n, m], dtype of x

    Examples
    --------
    >>> project_rows(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 6.0]]
    """
    return project_packed(x, pack_axes(axes), threads=threads)


def pack_axes(axes: np.ndarray) -> PackedCenters:
    """Prepare axes, [d, m], for `project_packed`."""
    packed = pack_centers(np.ascontiguousarray(axes.T))
    return packed.with_norms(np.zeros_like(packed.norms))


def project_packed(x: np.ndarray, packed: PackedCenters, *, threads: int = 1) -> np.ndarray:
    """Do the work of `project_rows` for axes that `pack_axes` has prepared."""
    # Scores are norms less twice the products; without norms, and halved, which is exact, the products are left.
    products = distance_table(x, packed, threads=threads)
    products *= -0.5
    return products


def rows_argument(x: np.ndarray, packed: PackedCenters) -> tuple[np.ndarray, np.ndarray]:
    """Return checked rows, and those behind the last whole tile padded to one with zeros."""
    x = read_argument(x, "x", packed.dtype.name, (None, packed.n_dims))
    n, rows = len(x), packed.tile[0]
    tail = np.zeros((rows, packed.n_dims), x.dtype)
    tail[: n % rows] = x[n - n % rows :]
    return x, tail


def _choose_tile(k: int, lanes: int) -> tuple[int, int]:
    """Choose the tile that does the padded work in the least time."""
    tiles = _WIDE_TILES if machine().wide else _NARROW_TILES

    def cost(tile: tuple[int, int]) -> float:
        width = lanes * tile[1]
        return -(-k // width) * width / tiles[tile]

    return min(tiles, key=cost)


@jit
def _pack(centers, panels):
    k, d = centers.shape
    n_panels, _, width = panels.shape
    for p in range(n_panels):
        for lane in range(width):
            j = p * width + lane
            if j < k:
                for i in range(d):
                    panels[p, i, lane] = centers[j, i]
            else:
                for i in range(d):
                    panels[p, i, lane] = 0.0


@jit
def _square_lengths(centers, norms):
    k, d = centers.shape
    for start in range(0, k, 4):  # side by side, since each sum waits for itself
        last = k - 1
        a, b, c, e = start, min(start + 1, last), min(start + 2, last), min(start + 3, last)
        total_a = total_b = total_c = total_e = 0.0
        for i in range(d):
            total_a += np.float64(centers[a, i]) * np.float64(centers[a, i])
            total_b += np.float64(centers[b, i]) * np.float64(centers[b, i])
            total_c += np.float64(centers[c, i]) * np.float64(centers[c, i])
            total_e += np.float64(centers[e, i]) * np.float64(centers[e, i])
        norms[e], norms[c], norms[b], norms[a] = total_e, total_c, total_b, total_a


@once
def _assign_kernel(dtype: str, tile: tuple[int, int]) -> Any:
    rows, vectors = tile
    lanes, size = LANES[dtype], SIZES[dtype]
    width = lanes * vectors
    assign_tile = make_assign_tile(dtype, tile)
    lane_minimum = make_lane_minimum(dtype)

    @jit(name=f"assign_{dtype}_{rows}x{vectors}")
    def assign(x, tail, panels, norms, best, index, scores, labels, group):
        n, d = x.shape
        panel_bytes = d * width * size
        whole = n - n % rows
        x_at, tail_at, panels_at, norms_at = address(x), address(tail), address(panels), address(norms)
        best_at, index_at, scores_at, labels_at = address(best), address(index), address(scores), address(labels)
        for start in range(0, n, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n)
            for group_start in range(0, panels.shape[0], group):
                group_stop = min(group_start + group, panels.shape[0])
                for r in range(start, stop, rows):
                    source = x_at + r * d * size if r < whole else tail_at
                    done = (r - start) * lanes
                    for p in range(group_start, group_stop):
                        assign_tile(
                            source,
                            d,
                            panels_at + p * panel_bytes,
                            d,
                            norms_at + p * width * size,
                            p * width,
                            best_at + done * size,
                            index_at + done * 4,
                        )
            for r in range(start, stop, lanes):
                done = (r - start) * lanes
                lane_minimum(best_at + done * size, index_at + done * 4, scores_at + r * size, labels_at + r * 4)

    return assign


@once
def _table_kernel(dtype: str, tile: tuple[int, int]) -> Any:
    rows, vectors = tile
    lanes, size = LANES[dtype], SIZES[dtype]
    width = lanes * vectors
    score_tile = make_score_tile(dtype, tile)

    @jit(name=f"table_{dtype}_{rows}x{vectors}")
    def table(x, tail, panels, norms, edge, out):
        n, d = x.shape
        k = out.shape[1]
        whole = n - n % rows
        x_at, tail_at, panels_at, norms_at = address(x), address(tail), address(panels), address(norms)
        edge_at, out_at = address(edge), address(out)
        for start in range(0, n, BLOCK_ROWS):
            for p in range(panels.shape[0]):
                first = p * width
                for r in range(start, min(start + BLOCK_ROWS, n), rows):
                    inside = r < whole and first + width <= k
                    score_tile(
                        x_at + r * d * size if r < whole else tail_at,
                        d,
                        panels_at + first * d * size,
                        d,
                        norms_at + first * size,
                        out_at + (r * k + first) * size if inside else edge_at,
                        k if inside else width,
                    )
                    if not inside:
                        for i in range(min(rows, n - r)):
                            for j in range(min(width, k - first)):
                                out[r + i, first + j] = edge[i, j]

    return table
