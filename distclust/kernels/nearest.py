"""Nearest centres by brute force near the machine's peak; distances that do not depend on where a row lies.

Axis letters: n rows, d dimensions, k centres. For a row x and a centre c the score is ``||c||^2 - 2 x.c``, x.c
summed by fused multiply-add over i = 0 ... d-1 with one accumulator (SIMD lanes are centres).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import LANES, SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._machine import has_fma, machine
from distclust.kernels._ukernel import make_assign_tile, make_lane_minimum, make_score_tile

__all__ = ["PackedCenters", "assign_nearest", "distance_table", "has_fma", "pack_centers"]

# A vector load that crosses a cache line costs twice; correctness does not depend on it.
_ALIGN_BYTES = 64

# Rows and vectors of centres in a register tile, with the share of peak it reaches at d = 128 and k = 1000.
# Origin: all tiles from 6x1 to 28x1 and 4x7 on an Emerald Rapids (AVX-512), and with AVX2 on the same machine, where 16
# registers leave room for no more than 6x1. NEON has 32 registers of a quarter of the width: 6x1 as well.
_WIDE_TILES = {(8, 2): 0.86, (12, 1): 0.75}
_NARROW_TILES = {(6, 1): 0.90}

# A block of rows with its running best scores stays in L2 (256 KiB on the smallest machines of interest), the panels
# that pass over it one tile after the other in L1.
_BLOCK_BYTES = 256 << 10
_GROUP_BYTES = 24 << 10
# Multiple of all tiles' rows and of the rows that lane_minimum takes at once.
_BLOCK_STEP = 48


class PackedCenters(NamedTuple):
    """Centres side by side, dimension by dimension, as the tiles read them."""

    panels: np.ndarray
    """[n_panels, d, NR], 64-byte aligned; NR centres a panel, zero padded."""
    norms: np.ndarray
    """[n_panels * NR] squared norms; +inf for padding."""
    n_clusters: int
    """k."""
    n_dims: int
    """d."""
    tile: tuple[int, int]
    """Rows and vectors of centres in one register tile."""


def pack_centers(centers: np.ndarray) -> PackedCenters:
    """Pack centres for `assign_nearest` and `distance_table`.

    Parameters
    ----------
    centers : float32 or float64 [k, d]
        Centres, k >= 1, d >= 1.

    Returns
    -------
    PackedCenters
        Of the same dtype; squared norms are summed in float64, dimension by dimension, then cast.
    """
    k, d = centers.shape
    dtype = centers.dtype
    tile = _choose_tile(k, LANES[dtype.name])
    width = LANES[dtype.name] * tile[1]
    n_panels = -(-k // width)
    norms = np.full(n_panels * width, np.inf, dtype)
    with np.errstate(over="ignore"):
        norms[:k] = np.add.accumulate(centers.astype(np.float64) ** 2, axis=1)[:, -1]
    raw = np.zeros(n_panels * d * width + _ALIGN_BYTES // dtype.itemsize, dtype)
    start = -raw.ctypes.data % _ALIGN_BYTES // dtype.itemsize
    panels = raw[start : start + n_panels * d * width].reshape(n_panels, d, width)
    for p in range(n_panels):
        part = centers[p * width : (p + 1) * width]
        panels[p, :, : len(part)] = part.T
    return PackedCenters(panels, norms, k, d, tile)


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
    """
    x, tail, block = _rows_argument(x, packed)
    dtype, lanes = x.dtype.name, LANES[x.dtype.name]
    # The lanes of several rows are reduced at once, hence the room behind the last row.
    labels = np.empty(len(x) + lanes, np.int32)
    scores = np.empty(len(x) + lanes, x.dtype)
    best = np.empty((block, lanes), x.dtype)
    index = np.empty((block, lanes), np.int32)
    group = max(1, _GROUP_BYTES // packed.panels[0].nbytes)
    _assign_kernel(dtype, packed.tile)(x, tail, packed.panels, packed.norms, best, index, scores, labels, group)
    return labels[: len(x)], scores[: len(x)]


def distance_table(x: np.ndarray, packed: PackedCenters) -> np.ndarray:
    """Return ``||c||^2 - 2 x.c`` of every row and centre; add ``||x||^2`` for squared distances.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, as for `assign_nearest`.
    packed : PackedCenters
        See `pack_centers`.

    Returns
    -------
    [n, k], dtype of x
    """
    x, tail, block = _rows_argument(x, packed)
    out = np.empty((len(x), packed.n_clusters), x.dtype)
    edge = np.empty((packed.tile[0], packed.panels.shape[2]), x.dtype)
    _table_kernel(x.dtype.name, packed.tile)(x, tail, packed.panels, packed.norms, edge, out, block)
    return out


def _rows_argument(x: np.ndarray, packed: PackedCenters) -> tuple[np.ndarray, np.ndarray, int]:
    """Return checked rows, the rows behind the last whole tile padded to one, and the rows of a block."""
    x = read_argument(x, "x", packed.panels.dtype.name, (None, packed.n_dims))
    n, d = x.shape
    rows = packed.tile[0]
    tail = np.zeros((rows, d), x.dtype)
    tail[: n % rows] = x[n - n % rows :]
    row_bytes = d * x.itemsize + LANES[x.dtype.name] * (x.itemsize + 4)
    step = _BLOCK_STEP * max(1, _BLOCK_BYTES // (row_bytes * _BLOCK_STEP))
    return x, tail, min(step, -(-max(n, 1) // _BLOCK_STEP) * _BLOCK_STEP)


def _choose_tile(k: int, lanes: int) -> tuple[int, int]:
    """Choose the tile that does the padded work in the least time."""
    tiles = _WIDE_TILES if machine().wide else _NARROW_TILES

    def cost(tile: tuple[int, int]) -> float:
        width = lanes * tile[1]
        return -(-k // width) * width / tiles[tile]

    return min(tiles, key=cost)


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
        block = best.shape[0]
        panel_bytes = d * width * size
        whole = n - n % rows
        x_at, tail_at, panels_at, norms_at = address(x), address(tail), address(panels), address(norms)
        best_at, index_at, scores_at, labels_at = address(best), address(index), address(scores), address(labels)
        for start in range(0, n, block):
            stop = min(start + block, n)
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
    def table(x, tail, panels, norms, edge, out, block):
        n, d = x.shape
        k = out.shape[1]
        whole = n - n % rows
        x_at, tail_at, panels_at, norms_at = address(x), address(tail), address(panels), address(norms)
        edge_at, out_at = address(edge), address(out)
        for start in range(0, n, block):
            for p in range(panels.shape[0]):
                first = p * width
                for r in range(start, min(start + block, n), rows):
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
