"""The first steps of two-level k-means: rows into groups, and each group clustered in memory by one worker."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.apportion import apportion
from distclust.algorithms.lloyd import update_centers
from distclust.artifacts.commit import commit_file
from distclust.data.block import Block
from distclust.data.storage import Storage
from distclust.engines.protocol import StepContext
from distclust.engines.sampled import ALL_ROWS
from distclust.kernels.lloyd import accumulate, farthest, row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers
from distclust.kernels.random import hash_rows, uniform
from distclust.kernels.seeding import choose_seeds
from distclust.ops.centers import CenterSet, nearest_labels
from distclust.ops.exchange import Buckets, Keyed, Records, joined
from distclust.stats.extremes import FarRows
from distclust.stats.fixed import SumScales
from distclust.stats.lloyd import ClusterSums

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GROUP_BYTES = 128 << 20
"""Rows that a group is clustered on, at most; of a larger group those of lowest hash. A constant, since results must
not depend on the memory of a machine."""
GROUP_PASSES = 25
GROUP_RTOL = 1e-3
"""Lloyd passes inside a group end with a gain below this: what is left, passes over all rows gain more cheaply."""
SEED_ROWS_PER_CENTER = 20
SEED_ROWS_LEAST = 500
SEEDS_AT_ONCE = 256
"""More seeds are chosen part by part. Measured for 1000 seeds in 2000 x 64: 0.24 s at once, 0.016 s in parts,
and 1.3 % more inertia after Lloyd."""
PART_PASSES = 5
_PART_ROUNDS = 4

_STAGE_BITS = 32
"""Draws of group g have stages from (g + 1) * 2**32 on: far from those of `distclust.algorithms.seeding`."""


def row_records(width: int, dtype: str, weighted: bool) -> np.dtype[Any]:
    """Return the record of a row in an exchange."""
    weight = [("weight", "<f8")] if weighted else []
    return np.dtype([("row_id", "<i8"), *weight, ("x", np.dtype(dtype).newbyteorder("<"), (width,))])


@dataclass(frozen=True)
class RowsByCell:
    """The rows of a block by their nearest cell."""

    dtype: np.dtype[Any]
    mass_scale: float

    def __call__(self, block: Block, cells: CenterSet, context: StepContext) -> Keyed:
        """Return the rows; the masses of the cells go with the commit, where rows have weights."""
        labels = nearest_labels(block, cells, context)
        records = np.empty(block.n, self.dtype)
        records["row_id"], records["x"] = block.row_ids, block.x
        if "weight" not in (self.dtype.names or ()) or block.weights is None:
            return Keyed(labels, block.row_ids, records)
        records["weight"] = block.weights
        mass = np.zeros(len(cells), np.int64)
        np.add.at(mass, labels, np.rint(block.weights * self.mass_scale).astype(np.int64))
        return Keyed(labels, block.row_ids, records, {"mass": mass.tolist()})


@dataclass(frozen=True)
class GroupRows:
    """Rows of a group, in row id order."""

    x: Rows
    row_ids: Ints
    weights: Floats | None

    @classmethod
    def of(cls, records: Records) -> GroupRows:
        """Take records apart."""
        weights = np.ascontiguousarray(records["weight"]) if "weight" in (records.dtype.names or ()) else None
        return cls(np.ascontiguousarray(records["x"]), np.ascontiguousarray(records["row_id"]), weights)

    def lowest(self, m: int) -> GroupRows:
        """Return the m rows of lowest hash, in row id order."""
        if m >= len(self.row_ids):
            return self
        return self.at(np.sort(np.argsort(hash_rows(self.row_ids), kind="stable")[:m]))

    def at(self, positions: npt.NDArray[np.intp]) -> GroupRows:
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[positions]
        return GroupRows(self.x[positions], self.row_ids[positions], weights)

    @property
    def masses(self) -> Floats:
        """Weights, 1 where there are none."""
        return np.ones(len(self.row_ids)) if self.weights is None else self.weights


@dataclass(frozen=True)
class GroupValue:
    """What clustering the groups shares.

    Attributes
    ----------
    shares : (m,) int64
        Centres of each group.
    scales : SumScales
    unit : bool
        Cosine.
    seed : int
    passes : int
        Most Lloyd passes.
    """

    shares: Ints
    scales: SumScales
    unit: bool
    seed: int
    passes: int


@dataclass(frozen=True)
class GroupStep:
    """Cluster each group of a gather partition; commit the centres of all of them as one file."""

    storage: Storage
    name: str

    def __call__(self, buckets: Buckets, value: GroupValue, context: StepContext) -> None:
        """Write (sum of found, d) float64 centres, ordered by group."""
        found = np.zeros(buckets.stop - buckets.start, np.int64)
        width = buckets.exchange.dtype["x"].shape[0]
        parts = [np.empty((0, width))]
        for group, rows in _groups(buckets):
            if value.shares[group]:
                centers = cluster_group(rows, int(value.shares[group]), value, group)
                found[group - buckets.start] = len(centers)
                parts.append(centers)
        commit_array(self.storage, self.name, context.index, np.concatenate(parts), {"found": found.tolist()})


def _groups(buckets: Buckets) -> Any:
    """Yield (group, rows), a large group as a sample by row hash."""
    counts, record = buckets.exchange.counts, buckets.exchange.dtype
    most = group_rows(record["x"])
    waiting: list[Records] = []
    held = -1
    for group, records in buckets.tiles():
        if group != held and waiting:
            yield held, GroupRows.of(joined(waiting))
            waiting = []
        held = group
        if counts[group] > most:
            limit = np.uint64(min(ALL_ROWS * most // int(counts[group]), ALL_ROWS - 1))
            records = records[hash_rows(np.ascontiguousarray(records["row_id"])) < limit]
        waiting.append(records)
    if waiting:
        yield held, GroupRows.of(joined(waiting))


def group_rows(vector: np.dtype[Any]) -> int:
    """Return the most rows that a group is clustered on."""
    return max(1, GROUP_BYTES // vector.itemsize)


def cluster_group(rows: GroupRows, k: int, value: GroupValue, group: int) -> Floats:
    """Return the centres of one group: seeds by greedy k-means++ inside parts of it, then Lloyd on all of its rows.

    Returns fewer than k where fewer rows are distinct.
    """
    stage = (group + 1) << _STAGE_BITS
    seeds = _seeds_by_part(rows, k, value, stage) if k > SEEDS_AT_ONCE else np.empty((0, 0))
    if len(seeds) < k:
        some = rows.lowest(SEED_ROWS_PER_CENTER * k + SEED_ROWS_LEAST)
        seeds = _seeds(some, k, value, stage)
        if len(seeds) < k and len(some.row_ids) < len(rows.row_ids):
            seeds = _seeds(rows, k, value, stage)
    return _lloyd(rows, seeds.astype(np.float64), value, value.passes)


def _seeds(rows: GroupRows, k: int, value: GroupValue, stage: int) -> Rows:
    """Choose k of the rows, or all distinct ones where these are fewer."""
    k = min(k, len(rows.row_ids))
    trials = 2 + int(np.log(k))
    draws = uniform(value.seed, stage, np.arange(k * trials, dtype=np.int64)).reshape(k, trials)
    return rows.x[choose_seeds(rows.x, rows.masses, draws)]


def _seeds_by_part(rows: GroupRows, k: int, value: GroupValue, stage: int) -> Rows:
    """Choose seeds in about sqrt(k) parts of a group: k-means++ costs rows times seeds, and parts have few of both."""
    n_parts = math.isqrt(k)
    some = rows.lowest(SEED_ROWS_PER_CENTER * n_parts + SEED_ROWS_LEAST)
    centers = _lloyd(some, _seeds(some, n_parts, value, stage).astype(np.float64), value, PART_PASSES)
    labels, _ = assign_nearest(rows.x, pack_centers(centers.astype(rows.x.dtype)))
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=len(centers))
    parts = [rows.at(at) for at in np.split(order, np.cumsum(counts)[:-1])]
    mass = np.array([np.rint(part.masses * value.scales.mass).astype(np.int64).sum() for part in parts])
    room = counts.astype(np.int64)
    seeds: list[Rows] = []
    for _ in range(_PART_ROUNDS):
        shares = apportion(k, mass, room)
        seeds = [
            _seeds(part.lowest(SEED_ROWS_PER_CENTER * int(share)), int(share), value, stage + 1 + number)
            for number, (part, share) in enumerate(zip(parts, shares, strict=True))
            if share
        ]
        found = np.zeros(len(parts), np.int64)
        found[shares > 0] = [len(part) for part in seeds]
        if np.array_equal(found, shares):
            break
        room = np.where(found < shares, found, room)
    return np.concatenate(seeds)


def _lloyd(rows: GroupRows, centers: Floats, value: GroupValue, passes: int) -> Floats:
    k, d = centers.shape
    last, inertia = None, np.inf
    empty: tuple[int, ...] = ()
    for _ in range(passes):
        compared = centers.astype(rows.x.dtype)
        labels, _ = assign_nearest(rows.x, pack_centers(compared))
        if last is not None and np.array_equal(labels, last):
            break
        last = labels
        sqdist = row_sqdist(rows.x, compared, labels)
        if rows.weights is not None:
            sqdist = np.where(rows.weights > 0, sqdist, 0.0)
        totals = ClusterSums.zeros(k, d)
        accumulate(
            rows.x, rows.weights, labels, value.scales.columns, value.scales.mass, totals.sums, totals.mass,
            totals.counts,
        )  # fmt: skip
        far = _far(rows, sqdist, labels, 2 * int(np.count_nonzero(totals.mass == 0)))
        update = update_centers(centers, totals, far, value.scales, unit=value.unit)
        centers, empty = update.means, update.empty
        before, inertia = inertia, float(np.cumsum(sqdist * rows.masses)[-1])
        if update.reassigned == 0 and before - inertia < GROUP_RTOL * before:
            break
    return np.delete(centers, empty, axis=0)


def _far(rows: GroupRows, sqdist: Floats, labels: npt.NDArray[np.int32], m: int) -> FarRows:
    at = farthest(sqdist, rows.row_ids, m)
    return FarRows(m, sqdist[at], rows.row_ids[at], rows.x[at], labels[at], rows.masses[at])


def commit_array(storage: Storage, name: str, index: int, array: npt.NDArray[Any], extra: dict[str, Any]) -> None:
    """Write what a gather partition leaves as a committed npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    commit_file(storage, name, index, f"part-{index:05d}", ".npy", buffer.getvalue(), rows=len(array), extra=extra)
