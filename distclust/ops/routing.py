"""Labels among very many centres: a row looks into the cells nearest to it, and takes the nearest centre there.

Cells are few (about the square root of k), and the centres of a cell are neighbours in the array. A row is compared
with all m cells and with the centres of some of them: n * (m + probes * k / m) distances in place of n * k. The score
of a row and a centre has the same bits as in `assign_nearest`, so where the nearest centre lies in a probed cell, the
label is the exact one.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.lowest import keep_lowest, lowest_columns
from distclust.kernels.nearest import assign_nearest, distance_table, pack_centers
from distclust.ops.centers import CenterSet

Rows = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]

_TABLE_VALUES = 1 << 20
"""Distances to cells that are held at once."""
_PAIRS = 1 << 21
"""Pairs of row and cell that are held at once; many, so that each cell's centres are packed for many rows."""
_PACKED = 1 << 16
"""Centres packed at once by `exact_labels`."""


class RoutedCenters:
    """Centres in cells, as a rule for labels.

    Parameters
    ----------
    cells : CenterSet
        (m, d) centres of the cells, in the coordinates of the blocks.
    starts : (m + 1,) int64
        First centre of each cell, and k.
    centers : CenterSet
        (k, d), ordered by cell.
    probes : int
        Cells that a row looks into; all of them, where there are fewer.

    Attributes
    ----------
    tag : str
        Digest of all that decides labels.
    """

    def __init__(self, cells: CenterSet, starts: Ints, centers: CenterSet, probes: int) -> None:
        self.cells = cells
        self.starts = starts
        self.centers = centers
        # A cell without centres has nothing to offer, and would only take a probe away.
        self._full = np.flatnonzero(np.diff(starts))
        self._open = CenterSet(cells.rows[self._full])
        self.probes = min(probes, len(self._full))
        said = repr((cells.tag, centers.tag, self.probes)).encode() + starts.tobytes()
        self.tag = hashlib.sha256(said).hexdigest()[:24]

    def __reduce__(self) -> tuple[type[RoutedCenters], tuple[CenterSet, Ints, CenterSet, int]]:
        return RoutedCenters, (self.cells, self.starts, self.centers, self.probes)

    def labels(self, block: Block, context: StepContext) -> Labels:
        """Return the nearest centre of the probed cells, for every row; remembered as advisory state."""
        known = context.state.get("routed", self.tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known
        labels = self.route(block.x)
        context.state.put("routed", self.tag, labels)
        return labels

    def route(self, x: Rows) -> Labels:
        """Return the label of every row of an array."""
        labels = np.empty(len(x), np.int32)
        step = max(1, _PAIRS // self.probes)
        for at in range(0, len(x), step):
            labels[at : at + step] = self._route(x[at : at + step])
        return labels

    def _route(self, x: Rows) -> Labels:
        cells = self._nearest_cells(x).reshape(-1)
        order = np.argsort(cells, kind="stable")
        bounds = np.searchsorted(cells[order], np.arange(len(self._full) + 1))
        rows = order // self.probes
        labels, best = np.zeros(len(x), np.int32), np.full(len(x), np.inf, x.dtype)
        # Cells in ascending order, and strictly closer: the lowest index wins among equals, as in one pass over all.
        for i in np.flatnonzero(np.diff(bounds)):
            here = rows[bounds[i] : bounds[i + 1]]
            start, stop = self.starts[self._full[i]], self.starts[self._full[i] + 1]
            found, scores = assign_nearest(x[here], pack_centers(self.centers.rows[start:stop]))
            closer = scores < best[here]
            at = here[closer]
            best[at] = scores[closer]
            labels[at] = found[closer] + np.int32(start)
        return labels

    def neighbors(self, x: Rows, m: int) -> Labels:
        """Return the m nearest centres of the probed cells for some rows, the nearest first; -1 where there are fewer.

        Parameters
        ----------
        x : (n, d) array
            Neighbours of each other, if they can be: then they look into the same cells.
        m : int
        """
        cells = self._nearest_cells(x)
        scores, found = np.full((len(x), m), np.inf, x.dtype), np.full((len(x), m), -1, np.int32)
        # The nearest cell first: what it holds excludes most of the others.
        for part in (cells[:, :1], cells[:, 1:]):
            order = np.argsort(part.reshape(-1), kind="stable")
            bounds = np.searchsorted(part.reshape(-1)[order], np.arange(len(self._full) + 1))
            for i in np.flatnonzero(np.diff(bounds)):
                here = order[bounds[i] : bounds[i + 1]] // part.shape[1]
                start, stop = self.starts[self._full[i]], self.starts[self._full[i] + 1]
                packed = pack_centers(self.centers.rows[start:stop])
                step = max(1, _TABLE_VALUES // int(stop - start))
                for at in range(0, len(here), step):
                    rows = here[at : at + step]
                    keep_lowest(distance_table(x[rows], packed), int(start), rows, scores, found)
        return found

    def _nearest_cells(self, x: Rows) -> Labels:
        cells = np.empty((len(x), self.probes), np.int32)
        step = max(1, _TABLE_VALUES // len(self._full))
        for at in range(0, len(x), step):
            cells[at : at + step] = lowest_columns(distance_table(x[at : at + step], self._open.packed), self.probes)
        return cells


def exact_labels(x: Rows, centers: CenterSet) -> Labels:
    """Return the nearest of all centres for some rows, packing a part of the centres at a time."""
    labels, best = np.zeros(len(x), np.int32), np.full(len(x), np.inf, x.dtype)
    for start in range(0, len(centers), _PACKED):
        found, scores = assign_nearest(x, pack_centers(centers.rows[start : start + _PACKED]))
        closer = scores < best
        labels = np.where(closer, found + np.int32(start), labels)
        best = np.where(closer, scores, best)
    return labels
