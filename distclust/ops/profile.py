"""From a source to rows that an algorithm can use: the profile pass, the centring, the exact moments.

Two passes. The first reads the source and finds what must be known before rows can be centred: how many there
are, their extent, the bad ones, and a sample by row hash, whose mean becomes the centre (any point near the rows
serves: it is there so that float32 coordinates stay small; a sample's mean needs no second reading of the source
and does not depend on the partitioning). The second pass builds the node cache and sums exactly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block, RawRows
from distclust.data.decode import bad_row_error
from distclust.data.plan import plan_partitions
from distclust.data.refs import METRICS, BlockView, Metric, PartitionRef, RawView
from distclust.data.sources import Source
from distclust.engines.events import Note, StageEnded, StageStarted
from distclust.engines.protocol import Engine, Pinned, StepContext
from distclust.engines.sampled import ALL_ROWS
from distclust.errors import DataError, UsageError, unknown_name
from distclust.kernels.heads import HeadAxes
from distclust.kernels.moments import MOST_SHORT, column_sums, scan_rows
from distclust.kernels.nearest import has_fma
from distclust.kernels.random import hash_rows
from distclust.stats.extremes import KeyedRows
from distclust.stats.fixed import SumScales, scale_for, scales_for
from distclust.stats.moments import BadRow, Moments, MomentStats, ProfileStats

MAX_PARTITION_BYTES = 32 << 20
MAX_BYTES_IN_MEMORY = 128 << 20
"""Largest blocks, and those of an engine whose tasks see the driver's memory."""

PARTITIONS_PER_SLOT = 1, 4
"""Least number, for even load: of an engine whose tasks see the driver's memory, and of others. More of them are more
sums to merge and more steps to start: minipile on 2 threads, k = 200 and 1000, with 2 partitions 0.149 and 0.318 s,
with 4 0.167 and 0.357; 200 000 x 768, k = 4096, with 4 to 10 partitions the same within noise."""

MIN_PARTITION_BYTES = 1 << 20
SAMPLE_ROWS = 512
"""Rows of the profile's sample: their mean is within a few percent of a deviation from the true one."""


NO_FMA = (
    "This machine has no hardware fused multiply-add: distances are computed about 50 times slower, to the same bits."
)


@dataclass(frozen=True)
class ProfileStep:
    """Count, extent, bad rows and a hash sample of one partition, read from the source in batches.

    Attributes
    ----------
    sample_rows : int
    unit_rows : bool
    below : int
        Rows with a hash of that and more are left out of the sample.
    """

    sample_rows: int
    unit_rows: bool
    below: int

    def __call__(self, rows: RawRows, value: None, context: StepContext) -> ProfileStats:
        """Read a partition once."""
        width = rows.view.width
        minimum, maximum = np.full(width, np.inf), np.full(width, -np.inf)
        sample = [KeyedRows.by_hash(self.sample_rows, np.empty(0, np.int64), np.empty((0, width)), None)]
        n_good, n_bad, max_weight = 0, 0, 0.0
        first_bad: BadRow | None = None
        for batch in rows.batches():
            bad = np.zeros(len(batch.values), np.uint8)
            scan_rows(batch.values, self.unit_rows, minimum, maximum, bad)
            good = np.flatnonzero(bad == 0)
            n_good += len(good)
            n_bad += len(bad) - len(good)
            if first_bad is None and len(good) < len(bad):
                at = int(np.flatnonzero(bad)[0])
                error = bad_row_error(rows.ref, batch.start + at, int(bad[at]), batch.values[at])
                first_bad = BadRow(error.where, rows.ref.offset + batch.start + at, error.message)
            if len(good):
                max_weight = max(max_weight, 1.0 if batch.weights is None else float(batch.weights[good].max()))
            self._extend(sample, rows.ref.offset + batch.start, good, batch.values)
        return ProfileStats(n_good, minimum, maximum, max_weight, n_bad, first_bad, KeyedRows.join(sample))

    def _extend(
        self, parts: list[KeyedRows], first_id: int, good: npt.NDArray[np.intp], values: npt.NDArray[Any]
    ) -> None:
        """Add what may be in the sample of a batch; join the parts when they are twice as many as are wanted."""
        if sum(len(part.keys) for part in parts) >= 2 * self.sample_rows:
            parts[:] = [KeyedRows.join(parts)]
        full = len(parts[0].keys) == self.sample_rows
        below = min(self.below, int(parts[0].keys[-1])) if full else self.below
        ids = (first_id + good).astype(np.int64)
        if below < ALL_ROWS:
            near = hash_rows(ids) < np.uint64(below)
            ids, good = ids[near], good[near]
        if not len(ids):
            return
        first = np.sort(np.argsort(hash_rows(ids), kind="stable")[: self.sample_rows])
        parts.append(KeyedRows.by_hash(self.sample_rows, ids[first], values[good[first]].astype(np.float64), None))


@dataclass(frozen=True)
class MomentScales:
    """Scales of the moments pass, from the extent of the rows."""

    columns: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    mass: float
    short: bool
    """Whether every term is short, see `distclust.kernels.moments.column_sums`."""

    @classmethod
    def of(cls, facts: _Facts, *, weighted: bool) -> MomentScales:
        """Choose the scales."""
        extent, most = facts.extent, facts.max_weight
        bound = facts.n_rows * most
        columns = scales_for(bound * extent, most * extent)
        squares = scales_for(bound * extent**2)
        largest = max(float((extent * columns).max()), float((extent**2 * squares).max())) * most
        mass = scale_for(bound, most) if weighted else 1.0
        return cls(columns, squares, mass, largest < MOST_SHORT)


@dataclass(frozen=True)
class MomentStep:
    """Exact column sums of one block; the pass that builds the node cache."""

    exact: ClassVar[bool] = True

    def __call__(self, block: Block, scales: MomentScales, context: StepContext) -> MomentStats:
        """Sum a block."""
        d = block.d
        sums, abs_sums, high, low = (np.zeros(d, np.int64) for _ in range(4))
        totals = sums, abs_sums, high, low
        column_sums(block.x, block.weights, scales.columns, *totals, scales.squares, short=scales.short)
        mass = block.n if block.weights is None else int(np.rint(block.weights * scales.mass).astype(np.int64).sum())
        return MomentStats(block.n, mass, sums, abs_sums, high, low)


@dataclass(frozen=True)
class PreparedData:
    """A dataset ready for iterations.

    Attributes
    ----------
    source : Source
    pinned : Pinned
        Partitions under the centred view.
    view : BlockView
    metric : {"euclidean", "cosine"}
    moments : Moments
        Of the centred rows.
    scales : SumScales
        Fixed-point scales of all sums over these rows.
    n_bad : int
        Rows dropped.
    max_weight : float
        Largest row weight; 1.0 without weights.
    extent : (d,) float64
        Bounds of the coordinates of the blocks.
    head : HeadAxes or None
        Axes that make assignment cheaper, where `distclust.ops.heads.find_head` found some.
    """

    source: Source
    pinned: Pinned
    view: BlockView
    metric: Metric
    moments: Moments
    scales: SumScales
    n_bad: int
    max_weight: float
    extent: npt.NDArray[np.float64]
    head: HeadAxes | None = None

    @property
    def width(self) -> int:
        """Number of dimensions."""
        return self.view.block_width

    @property
    def offset(self) -> npt.NDArray[np.float64]:
        """What was subtracted from every row; zeros under cosine, and where rows were projected after that."""
        none = self.view.center is None or self.view.axes is not None
        return np.zeros(self.width) if none else np.asarray(self.view.center)

    def inertia_scale(self, max_center_square: float) -> float:
        """Return the scale at which sum of w * ||x - c||^2 fits, for centres of at most that squared length."""
        return scale_for(2.0 * (self.moments.sum_squares + self.moments.mass * max_center_square) * (1 + 2.0**-20))


def partition_bytes(engine: Engine, memory: int | None = None) -> int:
    """Return the size of a block at which a task stays well inside its memory (block, batch, output, slack).

    Parameters
    ----------
    engine : Engine
    memory : int, optional
        Bytes that one process may use; default: what the engine says.
    """
    per_slot = engine.info.memory_per_slot
    if memory is not None:
        per_slot = min(per_slot, memory // (engine.info.slots if engine.info.sees_driver_memory else 1))
    most = MAX_BYTES_IN_MEMORY if engine.info.sees_driver_memory else MAX_PARTITION_BYTES
    return int(min(most, max(MIN_PARTITION_BYTES, per_slot // 8)))


def plan(
    engine: Engine, source: Source, target_bytes: int | None = None, least: int | None = None
) -> tuple[PartitionRef, ...]:
    """Cut a source into partitions.

    Parameters
    ----------
    engine : Engine
    source : Source
    target_bytes : int, optional
        Bytes of a block; default: what suits the engine's memory.
    least : int, optional
        Least number of partitions where there are rows enough; default: `PARTITIONS_PER_SLOT` of each slot, in memory
        as many of each as their size asks for.
    """
    in_memory, elsewhere = PARTITIONS_PER_SLOT
    target, slots = target_bytes or partition_bytes(engine), engine.info.slots
    if least is None and engine.info.sees_driver_memory:
        # As many for each slot: with 5 partitions on 2 slots one waits a fifth of a pass for the other.
        by_bytes = -(-source.n_rows // max(1, target // (4 * source.width)))
        least = slots * max(in_memory, -(-by_bytes // slots))
    return plan_partitions(source, target, least or slots * elsewhere)


def prepare(
    engine: Engine,
    source: Source,
    refs: tuple[PartitionRef, ...],
    *,
    metric: Metric = "euclidean",
    precision: Literal["float32", "float64"] = "float32",
    on_bad_rows: Literal["error", "drop"] = "error",
    center: npt.NDArray[np.float64] | Literal["midrange"] | None = None,
    axes: npt.NDArray[np.float64] | None = None,
) -> PreparedData:
    """Profile a source, choose centring and scales, and build the node cache.

    Parameters
    ----------
    engine : Engine
    source : Source
        See `distclust.data.sources.open_source`.
    refs : tuple of PartitionRef
        See `plan`; the result does not depend on how the rows are cut.
    metric : {"euclidean", "cosine"}, default="euclidean"
        Under cosine rows are made unit and not centred.
    precision : {"float32", "float64"}, default="float32"
        Type of the blocks.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN, infinity and, under cosine, zero rows.
    center : (d,) float64 or "midrange", optional
        What is subtracted from the rows: a model's own; default: the mean of a sample. The middle between smallest and
        largest value does not depend on the order of the rows, where a sample by row id does.
    axes : (d, m) or (d,) float64, optional
        What centred rows are multiplied by: a model's own projection.

    Raises
    ------
    DataError
        Bad rows under ``"error"``, no rows at all, or no positive weight.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if on_bad_rows not in ("error", "drop"):
        raise unknown_name("on_bad_rows", on_bad_rows, ("error", "drop"))
    if precision not in ("float32", "float64"):
        raise unknown_name("precision", precision, ("float32", "float64"))
    if not has_fma():
        engine.options.emit(Note(message=NO_FMA, level="warning"))
    unit = metric == "cosine"
    profile = profile_pass(engine, source, refs, unit, on_bad_rows)
    middle = None if isinstance(center, str) else center
    if isinstance(center, str) and not unit:
        middle = 0.5 * profile.minimum + 0.5 * profile.maximum
    elif center is None and not unit:
        middle = np.cumsum(profile.sample.in_id_order().rows, axis=0)[-1] / len(profile.sample.row_ids)
    pinned, view = pin_for_model(
        engine, source, refs, center=middle, metric=metric, precision=precision, on_bad_rows=on_bad_rows, axes=axes
    )
    shift = 0.0 if middle is None or unit else middle
    extent = np.maximum(np.abs(profile.maximum - shift), np.abs(profile.minimum - shift)) * (1 + 2.0**-20)
    if axes is not None:
        extent = projected_extent(extent, axes)
    facts = _Facts(profile.n_rows, profile.max_weight, extent)
    moments, scales = _moments_pass(engine, pinned, facts, view)
    return PreparedData(source, pinned, view, metric, moments, scales, profile.n_bad, profile.max_weight, extent)


def projected(engine: Engine, data: PreparedData, axes: npt.NDArray[np.float64]) -> PreparedData:
    """Return the same rows multiplied by axes, as `prepare` would have: a pass that builds the node cache.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        Not projected itself.
    axes : (d, m) or (d,) float64
        See `BlockView`.
    """
    view = replace(data.view, axes=np.ascontiguousarray(axes, np.float64))
    pinned = engine.pin(data.pinned.refs, view, label="rows")
    extent = projected_extent(data.extent, axes)
    moments, scales = _moments_pass(engine, pinned, _Facts(data.moments.n_rows, data.max_weight, extent), view)
    return replace(data, pinned=pinned, view=view, moments=moments, scales=scales, extent=extent)


def projected_extent(extent: npt.NDArray[np.float64], axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return bounds of coordinates multiplied by axes."""
    size = np.abs(axes)
    wide = extent * size if axes.ndim == 1 else np.cumsum(extent[:, None] * size, axis=0)[-1]
    return np.asarray(wide * (1 + 2.0**-20))


@dataclass(frozen=True)
class _Facts:
    """What the moments pass must know of all rows."""

    n_rows: int
    max_weight: float
    extent: npt.NDArray[np.float64]


def pin_for_model(
    engine: Engine,
    source: Source,
    refs: tuple[PartitionRef, ...],
    *,
    center: npt.NDArray[np.float64] | None,
    metric: Metric,
    precision: Literal["float32", "float64"],
    on_bad_rows: Literal["error", "drop"],
    axes: npt.NDArray[np.float64] | None = None,
) -> tuple[Pinned, BlockView]:
    """Bind a source to the coordinates of a model, without a pass over its rows."""
    unit = metric == "cosine"
    view = BlockView(source.columns, source.width, None if unit else center, unit, precision, on_bad_rows, axes=axes)
    return engine.pin(refs, view, label="rows"), view


def profile_pass(
    engine: Engine, source: Source, refs: tuple[PartitionRef, ...], unit: bool, on_bad_rows: Literal["error", "drop"]
) -> ProfileStats:
    """Read a source once, rows made unit or as they are; raise for bad rows, for none at all, for no weight."""
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="profile", total_rows=source.n_rows))
    raw = engine.pin(refs, RawView(source.columns, source.width, unit, on_bad_rows), label="source rows")
    # Twice as many rows as the sample wants: with fewer, partitions hand on little that is left out later.
    below = min(ALL_ROWS, 2 * ALL_ROWS * SAMPLE_ROWS // max(1, source.n_rows))
    for limit in (below, ALL_ROWS):
        step = ProfileStep(SAMPLE_ROWS, unit, limit)
        profile: ProfileStats = engine.fold(raw, step, ProfileStats.merge, label="profile")
        if len(profile.sample.row_ids) == min(SAMPLE_ROWS, profile.n_rows):
            break
    engine.options.emit(StageEnded(stage="profile", seconds=time.perf_counter() - started))
    if profile.first_bad is not None:
        bad = profile.first_bad
        if on_bad_rows == "error":
            raise DataError(
                f"{bad.found} The dataset has {profile.n_bad} such row(s); finite values are needed"
                + (", and under cosine a direction." if unit else "."),
                where=bad.where,
                do="Repair them, or leave them out with on_bad_rows='drop' (--on-bad-rows drop), which counts them.",
            )
        engine.options.emit(Note(message=f"{profile.n_bad} bad row(s) dropped; the first: {bad.where}: {bad.found}"))
    if profile.n_rows == 0:
        raise DataError("The dataset has no usable row.", where=source.describe_place(), do="Give other files.")
    if profile.max_weight == 0.0:
        raise DataError("All weights are zero.", where=f"column {source.columns.weight!r}", do="One must be positive.")
    return profile


def _moments_pass(engine: Engine, pinned: Pinned, facts: _Facts, view: BlockView) -> tuple[Moments, SumScales]:
    extent = facts.extent
    if not np.isfinite(extent).all() or extent.max() > np.sqrt(np.finfo(np.float32).max) / 16:
        raise UsageError(
            f"Coordinates reach {float(np.max(extent)):.3g} from their mean; squared distances would overflow float32.",
            do="Scale the columns first (for example to unit variance).",
        )
    weighted = view.columns.weight is not None or facts.max_weight != 1.0
    scales = MomentScales.of(facts, weighted=weighted)
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="cache", total_rows=pinned.n_rows))
    with engine.share(scales) as shared:
        stats: MomentStats = engine.fold(pinned, MomentStep(), MomentStats.merge, shared, label="cache")
    engine.options.emit(StageEnded(stage="cache", seconds=time.perf_counter() - started))
    moments = Moments.from_stats(stats, scales.columns, scales.squares, scales.mass)
    # Every cluster's sum is bounded by the sum of absolute values: far tighter than rows times extent where one
    # outlier decides the extent. Twice, because that sum was itself rounded.
    return moments, SumScales(
        scales_for(2.0 * np.maximum(moments.abs_sums, extent * facts.max_weight), facts.max_weight * extent),
        scales.mass,
    )
