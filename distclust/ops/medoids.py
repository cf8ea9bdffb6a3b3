"""Passes over rows with given medoids: scores of candidate sets, labels, distances."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.block import Block
from distclust.data.decode import read_ids
from distclust.data.storage import Storage
from distclust.engines.protocol import Engine, Pinned, StepContext
from distclust.errors import UsageError
from distclust.kernels.dissimilarity import Dissimilarity, nearest_two, table
from distclust.kernels.lloyd import fixed_sums
from distclust.ops.assign import fold_labels, labels_digest, write_labels
from distclust.ops.measured import MeasuredData, as_measured
from distclust.stats.fixed import FixedPair, scale_for
from distclust.stats.lloyd import AssignStats
from distclust.stats.medoids import MedoidScores

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Ints32 = npt.NDArray[np.int32]

TILE_ROWS = 4096
"""Rows that are converted and compared at a time."""


class MedoidSet:
    """Medoids as a shared value, and as a rule for labels: the nearest, the first one among equals.

    Parameters
    ----------
    rows : (k, d) float32 or float64
        In the blocks' type.
    measure : Dissimilarity

    Attributes
    ----------
    tag : str
        Digest of both: the name under which rows keep their labels.
    """

    def __init__(self, rows: Rows, measure: Dissimilarity) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.measure = measure
        head = repr((self.rows.shape, measure.name)).encode()
        self.tag = hashlib.sha256(head + measure.ranges.tobytes() + self.rows.tobytes()).hexdigest()[:24]

    def __reduce__(self) -> tuple[type[MedoidSet], tuple[Rows, Dissimilarity]]:
        return MedoidSet, (self.rows, self.measure)

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self, block: Block, context: StepContext) -> Ints32:
        """Return the nearest medoid of every row."""
        return self.nearest(block, context)[0]

    def nearest(self, block: Block, context: StepContext) -> tuple[Ints32, Floats]:
        """Return the nearest medoid of every row, and how far it is; remembered as advisory state."""
        labels, distances = context.state.get("medoid", self.tag), context.state.get("medoid-distance", self.tag)
        if labels is not None and distances is not None and len(labels) == len(distances) == block.n:
            return labels, distances
        labels, distances = np.empty(block.n, np.int32), np.empty(block.n)
        for part, near, near_dist, _ in nearest_in_tiles(block, self):
            labels[part], distances[part] = near, near_dist
        if self.measure.name != "function":  # two functions of one name must not share what rows remember
            context.state.put("medoid", self.tag, labels)
            context.state.put("medoid-distance", self.tag, distances)
        return labels, distances


def nearest_in_tiles(block: Block, medoids: MedoidSet) -> Iterator[tuple[slice, Ints32, Floats, Floats]]:
    """Yield (rows, nearest medoid, distance to it, distance to the second nearest), computed in float64."""
    targets = as_measured(medoids.measure, medoids.rows, precise=True)
    for start in range(0, block.n, TILE_ROWS):
        part = slice(start, min(start + TILE_ROWS, block.n))
        rows = as_measured(medoids.measure, block.x[part], precise=True)
        near, near_dist, _, second_dist = nearest_two(medoids.measure, rows, targets)
        yield part, near, near_dist.astype(np.float64, copy=False), second_dist.astype(np.float64, copy=False)


@dataclass(frozen=True)
class ScoreValue:
    """What a scoring pass shares: candidate sets, and the scales of their sums."""

    sets: tuple[MedoidSet, ...]
    loss_scale: float
    mass_scale: float


@dataclass(frozen=True)
class ScoreStep:
    """Loss and medoid silhouette of all candidate sets on one block."""

    def __call__(self, block: Block, value: ScoreValue, context: StepContext) -> MedoidScores:
        """Score a block."""
        n_sets = len(value.sets)
        loss, silhouette = FixedPair.zeros(n_sets, value.loss_scale), FixedPair.zeros(n_sets, value.mass_scale)
        mass = FixedPair.zeros(1, value.mass_scale)
        here = np.zeros(block.n, np.int32)
        fixed_sums(np.ones(block.n), block.weights, here, mass.scale, mass.high, mass.low)
        for at, medoids in enumerate(value.sets):
            for part, _, near, second in nearest_in_tiles(block, medoids):
                weights = None if block.weights is None else block.weights[part]
                labels = np.full(len(near), at, np.int32)
                fixed_sums(near, weights, labels, loss.scale, loss.high, loss.low)
                shape = medoid_silhouette_terms(near, second)
                fixed_sums(shape, weights, labels, silhouette.scale, silhouette.high, silhouette.low)
        return MedoidScores(loss, silhouette, mass)


def medoid_silhouette_terms(near: Floats, second: Floats) -> Floats:
    """Return 1 - near / second of every row; 0 where the row lies on two medoids, or there is one medoid only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((second > 0) & np.isfinite(second), 1.0 - near / second, 0.0)


@dataclass(frozen=True)
class SetScore:
    """Scores of one set of medoids over all rows.

    Attributes
    ----------
    loss : float
        Sum of w * dissimilarity to the nearest medoid.
    silhouette : float
        Weighted mean of 1 - nearest / second nearest (Van der Laan, Pollard and Bryan, 2003).
    """

    loss: float
    silhouette: float


def score_sets(
    engine: Engine, data: MeasuredData, sets: Sequence[MedoidSet], *, label: str = "score"
) -> list[SetScore]:
    """Score several sets of medoids on all rows in one pass.

    Parameters
    ----------
    engine : Engine
    data : MeasuredData
    sets : sequence of MedoidSet
    label : str, default="score"
        Name of the pass.
    """
    scales = ScoreValue(tuple(sets), data.loss_scale(_bound(engine, data, sets)), scale_for(data.mass_bound))
    with engine.share(scales) as shared:
        scores: MedoidScores = engine.fold(data.pinned, ScoreStep(), MedoidScores.merge, shared, label=label)
    mass = scores.mass.total()
    return [
        SetScore(float(loss), float(total) / mass)
        for loss, total in zip(scores.loss.values(), scores.silhouette.values(), strict=True)
    ]


@dataclass(frozen=True)
class LargestStep:
    """The largest dissimilarity of a row of the block to its nearest medoid, over all sets."""

    def __call__(self, block: Block, sets: tuple[MedoidSet, ...], context: StepContext) -> float:
        """Measure a block."""
        largest = 0.0
        for medoids in sets:
            for _, _, near, _ in nearest_in_tiles(block, medoids):
                if not (near >= 0).all() or not np.isfinite(near).all():
                    raise UsageError(
                        "the metric returned a value that is negative or not finite.",
                        do="A dissimilarity is a finite number of at least 0.",
                    )
                largest = max(largest, float(near.max(initial=0.0)))
        return largest


def _bound(engine: Engine, data: MeasuredData, sets: Sequence[MedoidSet]) -> float:
    bounds = [data.distance_bound(medoids.rows) for medoids in sets]
    known = [bound for bound in bounds if bound is not None]
    if len(known) == len(bounds):
        return max(known)
    with engine.share(tuple(sets)) as shared:
        return float(engine.fold(data.pinned, LargestStep(), max, shared, label="extent"))


@dataclass(frozen=True)
class LabelValue:
    """What a labelling pass shares."""

    medoids: MedoidSet
    loss_scale: float


@dataclass(frozen=True)
class MedoidLabelStep:
    """Label a block; with a ``sink``, write and commit its label file."""

    sink: Storage | None = None

    def __call__(self, block: Block, value: LabelValue, context: StepContext) -> AssignStats:
        """Label a block."""
        labels, exact = value.medoids.nearest(block, context)
        k = len(value.medoids)
        loss = FixedPair.zeros(k, value.loss_scale)
        fixed_sums(exact, block.weights, labels, loss.scale, loss.high, loss.low)
        distances = exact.astype(np.float32)
        counts = np.bincount(labels, minlength=k).astype(np.int64)
        stats = AssignStats(counts, loss, labels_digest(block.row_ids, labels, distances))
        if self.sink is not None:
            write_labels(self.sink, block, labels, distances, stats)
        return stats


def label_by_medoids(
    engine: Engine,
    data: MeasuredData,
    medoids: MedoidSet,
    *,
    sink: Storage | None = None,
    skip: dict[int, AssignStats] | None = None,
) -> AssignStats:
    """Label all rows by the nearest medoid; "inertia" of the statistics is the sum of w * dissimilarity.

    Parameters
    ----------
    engine : Engine
    data : MeasuredData
    medoids : MedoidSet
    sink : Storage, optional
        Run directory whose ``labels/`` is written, one committed file a partition.
    skip : dict, optional
        Statistics of the partitions that are committed already, by partition index.
    """
    value = LabelValue(medoids, data.loss_scale(_bound(engine, data, [medoids])))
    return fold_labels(engine, data.pinned, MedoidLabelStep(sink), value, skip or {}, label="label")


@dataclass(frozen=True)
class DistancesStep:
    """Dissimilarities of every row of a partition to all medoids, in input order; NaN for a row that was dropped."""

    def __call__(self, block: Block, medoids: MedoidSet, context: StepContext) -> npt.NDArray[Any]:
        """Measure a block."""
        out = np.full((block.ref.n_rows, len(medoids)), np.nan)
        rows = as_measured(medoids.measure, block.x, precise=True)
        out[block.positions] = table(medoids.measure, rows, as_measured(medoids.measure, medoids.rows, precise=True))
        return out


def distances_to_medoids(engine: Engine, pinned: Pinned, medoids: MedoidSet) -> Floats:
    """Return the dissimilarities of all rows to all medoids, in input order, on the driver."""
    with engine.share(medoids) as shared:
        return np.concatenate(engine.map(pinned, DistancesStep(), shared, label="transform"))


@dataclass(frozen=True)
class RowIdsStep:
    """The user's ids of some rows of a partition, with the row ids."""

    def __call__(
        self, block: Block, wanted: npt.NDArray[np.int64], context: StepContext
    ) -> tuple[npt.NDArray[np.int64], pa.Array] | None:
        """Read the id column if one of the rows is here."""
        first = block.ref.offset
        here = wanted[(wanted >= first) & (wanted < first + block.ref.n_rows)]
        return (here, read_ids(block.ref, block.view.columns).take(pa.array(here - first))) if len(here) else None


def ids_of_rows(engine: Engine, pinned: Pinned, row_ids: npt.NDArray[np.int64]) -> pa.Array:
    """Return the user's ids of rows, in the order of ``row_ids``, which ascend."""
    with engine.share(row_ids) as shared:
        found = engine.map(pinned, RowIdsStep(), shared, label="medoid ids")
    parts = [part[1] for part in found if part is not None]
    return pa.chunked_array(parts).unify_dictionaries().combine_chunks()
