"""The steps of the passes that refine two-level centres: rows may leave the cell that they were clustered in.

A row is compared with the neighbours of the centre that it has, and of the centre that it moves to. Rows, labels and
sums lie in files, by group: nothing of the size of all centres is in a partial.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.groups import GroupRows, commit_array
from distclust.algorithms.lloyd import update_centers
from distclust.data.storage import Storage
from distclust.engines.protocol import StepContext
from distclust.kernels.candidates import assign_candidates
from distclust.kernels.lloyd import accumulate, fixed_sums, row_sqdist, row_sqnorm
from distclust.ops.exchange import Buckets, Keyed, Records, joined
from distclust.ops.routing import RoutedCenters
from distclust.ops.stored import StoredArray, read_stored
from distclust.stats.extremes import FarRows
from distclust.stats.fixed import FixedPair, SumScales
from distclust.stats.lloyd import ClusterSums

Floats = npt.NDArray[np.float64]

NEIGHBORS = 64
HOPS = 4
"""Most centres that a row passes through in one pass."""
_LISTED_ROWS = 1 << 14
"""Centres whose neighbours are looked for at once."""


@dataclass(frozen=True)
class NeighborStep:
    """The nearest centres of each centre of some cells; commit them as one file."""

    storage: Storage
    name: str

    def __call__(self, buckets: Buckets, rule: RoutedCenters, context: StepContext) -> None:
        """Write an (m, NEIGHBORS) int32 array, padded with -1."""
        start, stop = int(rule.starts[buckets.start]), int(rule.starts[buckets.stop])
        out = np.full((stop - start, NEIGHBORS), -1, np.int32)
        for at in range(start, stop, _LISTED_ROWS):
            x = np.ascontiguousarray(rule.centers.rows[at : min(at + _LISTED_ROWS, stop)])
            found = rule.neighbors(x, NEIGHBORS)
            out[at - start : at - start + len(x), : found.shape[1]] = found
        commit_array(self.storage, self.name, context.index, out, {})


def sum_records(width: int, dtype: str) -> np.dtype[Any]:
    """Return the record of a cluster's sums in an exchange: with them goes the row farthest from its centre."""
    fields = [(name, "<i8") for name in ("cluster", "count", "mass", "inertia_high", "inertia_low", "far_id")]
    vector = ("far_x", np.dtype(dtype).newbyteorder("<"), (width,))
    return np.dtype([*fields, ("far_sqdist", "<f8"), ("far_weight", "<f8"), ("sums", "<i8", (width,)), vector])


@dataclass(frozen=True)
class RefineValue:
    """What a refining pass shares.

    Attributes
    ----------
    rule : RoutedCenters
        Gives rows their first centres.
    neighbors : StoredArray
        (k, m) int32, the centres to look at from each centre.
    before : dict of int to str
        Files of the labels of the pass before, by gather partition of the rows; empty in a first pass.
    scales : SumScales
    inertia_scale : float
    unit : bool
    """

    rule: RoutedCenters
    neighbors: StoredArray
    before: dict[int, str]
    scales: SumScales
    inertia_scale: float
    unit: bool


@dataclass(frozen=True)
class SumStep:
    """Move the rows of some groups to the nearest centre near theirs; sum clusters, by the clusters' own groups.

    The new labels are committed beside the sums, under the number of the gather partition.
    """

    dtype: np.dtype[Any]
    storage: Storage
    name: str

    def __call__(self, buckets: Buckets, value: RefineValue, context: StepContext) -> Keyed:
        """Return one record a cluster."""
        before = None
        if value.before:
            before = read_stored(self.storage, value.before[context.index])
        total, labels, done, moved = np.empty(0, self.dtype), [np.empty(0, np.int32)], 0, 0
        for records in buckets.runs():
            rows = GroupRows.of(records)
            old = value.rule.route(rows.x) if before is None else before[done : done + len(records)]
            new = assign_candidates(rows.x, value.rule.centers.rows, value.neighbors.array, old, HOPS)
            moved += int(np.count_nonzero(old != new))
            labels.append(new)
            done += len(records)
            total = combine(joined([total, self._sums(rows, new, value)]))
        commit_array(self.storage, self.name, context.index, np.concatenate(labels), {})
        cells = np.searchsorted(value.rule.starts, total["cluster"], side="right") - 1
        return Keyed(cells, total["cluster"], total, {"moved": done if before is None else moved})

    def _sums(self, rows: GroupRows, labels: npt.NDArray[np.int32], value: RefineValue) -> Records:
        touched, inverse = np.unique(labels, return_inverse=True)
        slots = inverse.astype(np.int32)
        t, d = len(touched), rows.x.shape[1]
        sums, mass, counts = np.zeros((t, d), np.int64), np.zeros(t, np.int64), np.zeros(t, np.int64)
        accumulate(rows.x, rows.weights, slots, value.scales.columns, value.scales.mass, sums, mass, counts)
        sqdist = row_sqdist(rows.x, np.ascontiguousarray(value.rule.centers.rows[touched]), slots)
        inertia = FixedPair.zeros(t, value.inertia_scale)
        fixed_sums(sqdist, rows.weights, slots, inertia.scale, inertia.high, inertia.low)
        # A row of no weight is no centre.
        sqdist = sqdist if rows.weights is None else np.where(rows.weights > 0, sqdist, 0.0)
        order = np.lexsort((rows.row_ids, -sqdist, slots))
        far = order[np.searchsorted(slots[order], np.arange(t))]
        out = np.empty(t, self.dtype)
        for name, values in (
            ("cluster", touched), ("count", counts), ("mass", mass), ("sums", sums),
            ("inertia_high", inertia.high), ("inertia_low", inertia.low),
            ("far_id", rows.row_ids[far]), ("far_sqdist", sqdist[far]), ("far_weight", rows.masses[far]),
            ("far_x", rows.x[far]),
        ):  # fmt: skip
            out[name] = values
        return out


def combine(records: Records) -> Records:
    """Add records of the same cluster; the result is ordered by cluster."""
    if not len(records):
        return records
    order = np.lexsort((records["far_id"], -records["far_sqdist"], records["cluster"]))
    first = np.flatnonzero(np.diff(records["cluster"][order], prepend=-1))
    out = records[order[first]]  # with the farthest row of each
    if len(out) < len(records):
        for name in ("count", "mass", "inertia_high", "inertia_low", "sums"):
            out[name] = np.add.reduceat(records[name][order], first, axis=0)
    return out


@dataclass(frozen=True)
class MeanStep:
    """New centres of the groups of a gather partition, from the sums of a refining pass."""

    storage: Storage
    name: str

    def __call__(self, buckets: Buckets, value: RefineValue, context: StepContext) -> None:
        """Commit the centres of the partition's groups as one file."""
        starts, rule = value.rule.starts, value.rule
        old = rule.centers.rows[starts[buckets.start] : starts[buckets.stop]].astype(np.float64)
        new = old.copy()
        reassigned, inertia = 0, [0, 0]
        for group, records in buckets.tiles(most=sys.maxsize):
            sums = combine(records)
            at = slice(starts[group] - starts[buckets.start], starts[group + 1] - starts[buckets.start])
            new[at], filled = self._means(old[at], sums, int(starts[group]), value)
            reassigned += filled
            inertia[0] += int(sums["inertia_high"].sum())
            inertia[1] += int(sums["inertia_low"].sum())
        shift = float(np.cumsum(row_sqnorm(new - old))[-1]) if len(new) else 0.0
        extra = {"inertia": inertia, "shift": shift, "reassigned": reassigned}
        commit_array(self.storage, self.name, context.index, new, extra)

    @staticmethod
    def _means(old: Floats, sums: Records, start: int, value: RefineValue) -> tuple[Floats, int]:
        """Return the means of one group's clusters; an empty one takes the row farthest from another centre there."""
        k, d = old.shape
        totals = ClusterSums.zeros(k, d)
        at = sums["cluster"] - start
        totals.sums[at], totals.mass[at], totals.counts[at] = sums["sums"], sums["mass"], sums["count"]
        order = np.lexsort((sums["far_id"], -sums["far_sqdist"]))
        far = FarRows(
            len(order),
            sums["far_sqdist"][order],
            sums["far_id"][order],
            sums["far_x"][order],
            at[order].astype(np.int32),
            sums["far_weight"][order],
        )
        update = update_centers(old, totals, far, value.scales, unit=value.unit)
        return update.means, update.reassigned
