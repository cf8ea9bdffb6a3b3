"""The m nearest centres of every row, in one pass over the packed centres.

Axis letters: n rows, d dimensions, k centres, m centres of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._emit import LANES, SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._ukernel import make_below_tile
from distclust.kernels.nearest import BLOCK_ROWS, GROUP_BYTES, PackedCenters, rows_argument


def list_nearest(x: np.ndarray, packed: PackedCenters, m: int) -> tuple[npt.NDArray[np.int32], np.ndarray]:
    """Find the m nearest centres of every row.

    No table of n x k scores is made: a tile's scores are compared with each row's m-th best so far, and what is below
    goes into a heap.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows, C-contiguous, of the dtype of the packed centres, without NaN.
    packed : PackedCenters
        See `nearest.pack_centers`.
    m : int
        How many, 1 ... k.

    Returns
    -------
    indices : int32 [n, m]
        Centres in ascending order of score, the lowest index first among equals. The first is the label that
        `nearest.assign_nearest` gives.
    scores : [n, m], dtype of x
        ``||c||^2 - 2 x.c``, the bits of `nearest.distance_table`.

    Raises
    ------
    ValueError
        If m is out of range, or `x` has another dtype or width than the centres, or is not C-contiguous.

    Examples
    --------
    >>> from distclust.kernels.nearest import pack_centers
    >>> packed = pack_centers(np.array([[0, 0], [4, 0], [1, 0]], np.float32))
    >>> indices, scores = list_nearest(np.array([[1, 0], [3, 1]], np.float32), packed, 2)
    >>> indices.tolist(), scores.tolist()
    ([[2, 0], [1, 2]], [[-1.0, 0.0], [-8.0, -5.0]])
    """
    k = packed.n_clusters
    if not 1 <= m <= k:
        raise ValueError(f"m is {m}; 1 to the number of centres, {k}, is allowed.")
    x, tail = rows_argument(x, packed)
    width = packed.panels.shape[2]
    scores, indices = np.empty((len(x), m), x.dtype), np.empty((len(x), m), np.int32)
    limits = np.empty(BLOCK_ROWS, x.dtype)
    table = np.empty((packed.tile[0], width), x.dtype)
    masks = np.empty(packed.tile, np.int32)
    group = max(1, GROUP_BYTES // packed.panels[0].nbytes)
    _list_kernel(x.dtype.name, packed.tile)(
        x, tail, packed.panels, packed.norms, limits, table, masks, scores, indices, group, k
    )
    return indices, scores


@jit
def _sift(scores, indices, row, size, score, index):
    """Put an entry at the top of a row's heap, whose top is the worst by (score, index), and let it sink."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        low, low_index = scores[row, child], indices[row, child]
        if child + 1 < size:
            other, other_index = scores[row, child + 1], indices[row, child + 1]
            if other > low or (other == low and other_index > low_index):
                child, low, low_index = child + 1, other, other_index
        if low < score or (low == score and low_index < index):
            break
        scores[row, at], indices[row, at] = low, low_index
        at = child
    scores[row, at], indices[row, at] = score, index


@jit
def _sort(scores, indices, row, k):
    """Turn a row's heap into ascending order; the lowest free indices go where no score was below infinity."""
    m = scores.shape[1]
    for last in range(m - 1, 0, -1):
        score, index = scores[row, last], indices[row, last]
        scores[row, last], indices[row, last] = scores[row, 0], indices[row, 0]
        _sift(scores, indices, row, last, score, index)
    filled = m
    while filled > 0 and indices[row, filled - 1] == k:
        filled -= 1
    free = 0
    for at in range(filled, m):
        while (indices[row, :filled] == free).any():
            free += 1
        indices[row, at] = free
        free += 1


@once
def _list_kernel(dtype: str, tile: tuple[int, int]) -> Any:
    rows, vectors = tile
    lanes, size = LANES[dtype], SIZES[dtype]
    width = lanes * vectors
    below_tile = make_below_tile(dtype, tile)

    @jit(name=f"list_{dtype}_{rows}x{vectors}")
    def list_rows(x, tail, panels, norms, limits, table, masks, scores, indices, group, k):
        n, d = x.shape
        m = scores.shape[1]
        panel_bytes = d * width * size
        whole = n - n % rows
        x_at, tail_at, panels_at, norms_at = address(x), address(tail), address(panels), address(norms)
        limits_at, table_at, masks_at = address(limits), address(table), address(masks)
        for start in range(0, n, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n)
            # Rows behind the last one list nothing.
            limits[:] = -np.inf
            limits[: stop - start] = np.inf
            scores[start:stop] = np.inf
            indices[start:stop] = k
            for group_start in range(0, panels.shape[0], group):
                group_stop = min(group_start + group, panels.shape[0])
                for r in range(start, stop, rows):
                    source = x_at + r * d * size if r < whole else tail_at
                    for p in range(group_start, group_stop):
                        below_tile(
                            source,
                            d,
                            panels_at + p * panel_bytes,
                            d,
                            norms_at + p * width * size,
                            limits_at + (r - start) * size,
                            table_at,
                            masks_at,
                        )
                        for i in range(rows):
                            for q in range(vectors):
                                mask = masks[i, q]
                                lane = q * lanes
                                while mask != 0:
                                    # The limit falls while the bits of a tile are gone through. Equal scores stay
                                    # out: centres come in ascending order.
                                    if mask & 1 and table[i, lane] < limits[r - start + i]:
                                        _sift(scores, indices, r + i, m, table[i, lane], p * width + lane)
                                        limits[r - start + i] = scores[r + i, 0]
                                    mask >>= 1
                                    lane += 1
            for r in range(start, stop):
                _sort(scores, indices, r, k)

    return list_rows
