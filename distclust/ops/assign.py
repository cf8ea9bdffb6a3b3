"""Assignment of rows to given centres: labels, distances, populations, exact inertia."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.artifacts.commit import commit_file, read_commits
from distclust.data.block import Block
from distclust.data.decode import read_ids
from distclust.data.refs import Metric
from distclust.data.sinks import encode_parquet, labels_table, with_lists
from distclust.data.storage import Storage
from distclust.engines.protocol import Engine, Pinned, Step, StepContext
from distclust.kernels.lloyd import fixed_sums, row_sqdist, row_sqnorm
from distclust.kernels.nearest import distance_table
from distclust.kernels.random import hash_rows
from distclust.ops.centers import CenterSet, LabelRule
from distclust.ops.profile import PreparedData
from distclust.ops.top import check_top, top_centers
from distclust.stats.fixed import FixedPair
from distclust.stats.lloyd import AssignStats

STATS_BYTES = 1 << 18
"""Statistics of a partition up to this size lie in the commit of its labels."""
LABEL_STATS = "label-stats"
"""Files of larger ones: of no use once the run is complete."""


@dataclass(frozen=True)
class AssignValue:
    """What an assignment pass shares: clusters are found by ``rule``, distances are to ``centers``."""

    centers: CenterSet
    rule: LabelRule
    inertia_scale: float
    metric: Metric


def reported_distance(sqdist: npt.NDArray[np.float64], metric: Metric) -> npt.NDArray[np.float32]:
    """Return what users call the distance: Euclidean, or 1 - cosine (half the squared distance of unit rows)."""
    return (sqdist / 2 if metric == "cosine" else np.sqrt(sqdist)).astype(np.float32)


def labels_digest(
    row_ids: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], distances: npt.NDArray[np.float32]
) -> int:
    """Return the sum modulo 2^64 of a hash of (row id, cluster, distance bits): independent of the order of rows.

    Of lists [n, m] each place is hashed after the one before it.
    """
    mixed = hash_rows(row_ids)
    if labels.ndim == 1:
        labels, distances = labels[:, None], distances[:, None]
    for clusters, there in zip(labels.T, distances.T.view(np.uint32), strict=True):
        mixed = hash_rows((mixed + clusters.astype(np.uint64)).view(np.int64)) + there.astype(np.uint64)
        mixed = hash_rows(mixed.view(np.int64))
    return int(mixed.sum(dtype=np.uint64))


@dataclass(frozen=True)
class Listed:
    """The nearest centres of the rows of a block, [n, top], and what users call their distances."""

    clusters: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float32]


@dataclass(frozen=True)
class AssignStep:
    """Label a block; with a ``sink``, write and commit its label file; with ``top``, list so many nearest centres."""

    sink: Storage | None = None
    top: int = 0

    def __call__(self, block: Block, value: AssignValue, context: StepContext) -> AssignStats:
        """Label a block."""
        listed = None
        if self.top:
            clusters, sqdists = top_centers(block, value.centers, self.top)
            listed = Listed(clusters, reported_distance(sqdists, value.metric))
            labels, sqdist = np.ascontiguousarray(clusters[:, 0]), np.ascontiguousarray(sqdists[:, 0])
        else:
            labels = value.rule.labels(block, context)
            sqdist = row_sqdist(block.x, value.centers.rows, labels)
        k = len(value.centers)
        inertia = FixedPair.zeros(k, value.inertia_scale)
        fixed_sums(sqdist, block.weights, labels, inertia.scale, inertia.high, inertia.low)
        distances = reported_distance(sqdist, value.metric)
        stats = AssignStats(
            np.bincount(labels[labels >= 0], minlength=k).astype(np.int64),
            inertia,
            labels_digest(block.row_ids, labels, distances),
            0 if listed is None else labels_digest(block.row_ids, listed.clusters, listed.distances),
        )
        if self.sink is not None:
            write_labels(self.sink, block, labels, distances, stats, listed)
        return stats


def write_labels(
    sink: Storage,
    block: Block,
    labels: npt.NDArray[np.int32],
    distances: npt.NDArray[np.float32],
    stats: AssignStats,
    listed: Listed | None = None,
) -> None:
    """Write and commit the label file of a partition, with its statistics."""
    ref, columns = block.ref, block.view.columns
    ids, name, given = read_ids(ref, columns), columns.id or "row_id", labels >= 0
    table = labels_table(ref, ids, name, block.positions[given], labels[given], distances[given])
    if listed is not None:
        table = with_lists(table, ref, block.positions, listed.clusters, listed.distances)
    commit_file(
        sink,
        "labels",
        ref.index,
        f"part-{ref.index:05d}",
        ".parquet",
        encode_parquet(table),
        rows=ref.n_rows,
        extra={"source": ref.uri, "offset": ref.offset, **_keep_stats(sink, ref.index, stats)},
    )


def _keep_stats(sink: Storage, index: int, stats: AssignStats) -> dict[str, str]:
    """Return what a commit of labels says of their statistics; large ones get a file of their own."""
    data = stats.to_bytes()
    if len(data) <= STATS_BYTES:
        return {"stats": data.hex()}
    commit_file(sink, LABEL_STATS, index, f"part-{index:05d}", ".npz", data, rows=0)
    return {}


def committed_stats(storage: Storage) -> dict[int, AssignStats]:
    """Return the statistics of the partitions whose labels are committed, by partition index."""
    found = {}
    files = read_commits(storage, LABEL_STATS)
    for index, commit in read_commits(storage, "labels").items():
        if "stats" in commit.extra:
            found[index] = AssignStats.from_bytes(bytes.fromhex(commit.extra["stats"]))
        elif index in files:
            found[index] = AssignStats.from_bytes(storage.read(files[index].file))
    return found


def assign(
    engine: Engine,
    data: PreparedData,
    centers: CenterSet,
    *,
    rule: LabelRule | None = None,
    top: int = 0,
    sink: Storage | None = None,
    skip: dict[int, AssignStats] | None = None,
    label: str = "label",
) -> AssignStats:
    """Label all rows.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    centers : CenterSet
        In the coordinates of the blocks.
    rule : LabelRule, optional
        How rows are given to the centres; default: to the nearest.
    top : int, default=0
        List so many nearest centres of each row, too; only where rows are given to the nearest.
    sink : Storage, optional
        Run directory whose ``labels/`` is written, one committed file a partition.
    skip : dict, optional
        Statistics of the partitions that are committed already, by partition index.
    label : str, default="label"
        Name of the pass.

    Raises
    ------
    UsageError
        ``top`` is more than there are centres.
    """
    if top:
        assert rule is None, "the first of the list would not be the label"
        check_top(top, len(centers))
    bound = float(row_sqnorm(centers.rows).max(initial=0.0))
    value = AssignValue(centers, rule or centers, data.inertia_scale(bound), data.metric)
    return fold_labels(engine, data.pinned, AssignStep(sink, top), value, skip or {}, label=label)


def fold_labels(
    engine: Engine, pinned: Pinned, step: Step, value: object, skip: dict[int, AssignStats], *, label: str
) -> AssignStats:
    """Label the partitions that are not in ``skip``; return the statistics of all."""
    done = list(skip.values())
    open_refs = [ref for ref in pinned.refs if ref.index not in skip]
    if open_refs:
        rest = engine.pin(open_refs, pinned.view, label=label)
        with engine.share(value) as shared:
            done.append(engine.fold(rest, step, AssignStats.merge, shared, label=label))
    total = done[0]
    for part in done[1:]:
        total = total.merge(part)
    return total


@dataclass(frozen=True)
class MassStep:
    """Weights of the clusters in one block, as scaled integers."""

    n_clusters: int
    scale: float

    def __call__(self, block: Block, rule: LabelRule, context: StepContext) -> npt.NDArray[np.int64]:
        """Sum a block."""
        labels = rule.labels(block, context)
        given = labels >= 0
        weights = np.ones(block.n) if block.weights is None else block.weights
        mass = np.zeros(self.n_clusters, np.int64)
        np.add.at(mass, labels[given], np.rint(weights[given] * self.scale).astype(np.int64))
        return mass


def cluster_masses(engine: Engine, data: PreparedData, rule: LabelRule, n_clusters: int) -> npt.NDArray[np.float64]:
    """Return the (n_clusters,) sums of row weights; a `CenterSet` labels by the nearest."""
    step = MassStep(n_clusters, data.scales.mass)
    with engine.share(rule) as shared:
        mass: npt.NDArray[np.int64] = engine.fold(data.pinned, step, operator.add, shared, label="masses")
    return mass / data.scales.mass


@dataclass(frozen=True)
class PredictStep:
    """Cluster of every row of a partition in input order, -1 for a row that was dropped."""

    def __call__(self, block: Block, rule: LabelRule, context: StepContext) -> npt.NDArray[np.int32]:
        """Label a block."""
        labels = np.full(block.ref.n_rows, -1, np.int32)
        labels[block.positions] = rule.labels(block, context)
        return labels


@dataclass(frozen=True)
class TransformStep:
    """Distances of every row of a partition to all centres, in input order; NaN for a row that was dropped."""

    metric: Metric

    def __call__(self, block: Block, centers: CenterSet, context: StepContext) -> npt.NDArray[np.floating]:
        """Measure a block."""
        sqdist = distance_table(block.x, centers.packed).astype(np.float64) + row_sqnorm(block.x)[:, None]
        np.maximum(sqdist, 0.0, out=sqdist)
        out = np.full((block.ref.n_rows, len(centers)), np.nan, block.x.dtype)
        out[block.positions] = sqdist / 2 if self.metric == "cosine" else np.sqrt(sqdist)
        return out


def predict(engine: Engine, pinned: Pinned, rule: LabelRule) -> npt.NDArray[np.int32]:
    """Return the labels of all rows, in input order, on the driver; a `CenterSet` labels by the nearest."""
    with engine.share(rule) as shared:
        return np.concatenate(engine.map(pinned, PredictStep(), shared, label="predict"))


def transform(engine: Engine, pinned: Pinned, centers: CenterSet, metric: Metric) -> npt.NDArray[np.floating]:
    """Return the distances of all rows to all centres, in input order, on the driver."""
    with engine.share(centers) as shared:
        return np.concatenate(engine.map(pinned, TransformStep(metric), shared, label="transform"))
