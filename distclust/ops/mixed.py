"""The profile of columns of numbers and categories: what becomes their encoding."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distclust.data.block import RecordRows
from distclust.data.categories import Encoding
from distclust.data.decode import bad_row_error, record_weights, scan_mixed
from distclust.data.encoding import category_texts, numbers_of
from distclust.data.refs import PartitionRef, RecordView
from distclust.data.sources import Source
from distclust.engines.events import Note, StageEnded, StageStarted
from distclust.engines.protocol import Engine, StepContext
from distclust.errors import DataError
from distclust.stats.mixed import MixedStats
from distclust.stats.moments import BadRow

MAX_CATEGORIES = 10_000
"""Most categories of one column. A column of identifiers has more, and says nothing about likeness."""


@dataclass(frozen=True)
class MixedProfileStep:
    """Extent, categories, missing values and bad rows of one partition, read from the source in batches."""

    def __call__(self, rows: RecordRows, value: None, context: StepContext) -> MixedStats:
        """Read a partition once."""
        columns = rows.view.columns
        d = len(columns.features)
        found: list[set[str] | None] = [None if kind == "number" else set() for kind in columns.kinds]
        low, high, missing = np.full(d, np.inf), np.full(d, -np.inf), np.zeros(d, np.int64)
        n_good, n_bad, max_weight = 0, 0, 0.0
        first_bad: BadRow | None = None
        for start, batch in rows.batches():
            values = np.empty((batch.num_rows, d))
            for at, name in enumerate(columns.features):
                values[:, at] = _values(batch.column(name), found[at], rows.ref, name)
            weights = record_weights(rows.ref, columns, start, batch)
            bad = scan_mixed(values)
            good = values[bad == 0]
            n_good, n_bad = n_good + len(good), n_bad + len(values) - len(good)
            if first_bad is None and len(good) < len(values):
                at = int(np.flatnonzero(bad)[0])
                error = bad_row_error(rows.ref, start + at, int(bad[at]), values[at])
                first_bad = BadRow(error.where, rows.ref.offset + start + at, error.message)
            if len(good):
                low, high = np.fmin(low, np.fmin.reduce(good)), np.fmax(high, np.fmax.reduce(good))
                missing += np.isnan(good).sum(axis=0)
                max_weight = max(max_weight, 1.0 if weights is None else float(weights[bad == 0].max()))
        numbers = np.array([known is None for known in found])
        return MixedStats(
            n_good,
            np.where(numbers, low, np.inf),
            np.where(numbers, high, -np.inf),
            missing,
            tuple(None if known is None else tuple(sorted(known)) for known in found),
            max_weight,
            n_bad,
            first_bad,
        )


def _values(column: pa.Array, found: set[str] | None, ref: PartitionRef, name: str) -> Any:
    """Return numbers; of categories, which are added to those found, 0 or NaN."""
    if found is None:
        return numbers_of(column)
    found.update(pc.unique(category_texts(column)).drop_null().to_pylist())
    _check_categories(len(found), name, ref.describe())
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.nan, 0.0)


def _check_categories(count: int, name: str, where: str) -> None:
    if count > MAX_CATEGORIES:
        raise DataError(
            f"column {name!r} has more than {MAX_CATEGORIES} categories; identifiers say nothing about likeness.",
            where=where,
            do="Leave the column out, or group its values.",
        )


def profile_mixed(
    engine: Engine, source: Source, refs: tuple[PartitionRef, ...], on_bad_rows: Literal["error", "drop"]
) -> tuple[MixedStats, Encoding]:
    """Read the columns of a source once: what they hold, and how they become rows.

    Parameters
    ----------
    engine : Engine
    source : Source
        Opened with ``mixed=True``.
    refs : tuple of PartitionRef
    on_bad_rows : {"error", "drop"}
        Rows with infinity, or without any value.

    Raises
    ------
    DataError
        Bad rows under ``"error"``, no usable row, no positive weight, or a column of too many categories.
    """
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="profile", total_rows=source.n_rows))
    records = engine.pin(refs, RecordView(source.columns), label="source columns")
    stats: MixedStats = engine.fold(records, MixedProfileStep(), MixedStats.merge, label="profile")
    engine.options.emit(StageEnded(stage="profile", seconds=time.perf_counter() - started))
    if stats.first_bad is not None:
        bad = stats.first_bad
        if on_bad_rows == "error":
            raise DataError(
                f"{bad.found} The dataset has {stats.n_bad} row(s) with infinity or without any value.",
                where=bad.where,
                do="Repair them, or leave them out with on_bad_rows='drop' (--on-bad-rows drop), which counts them.",
            )
        engine.options.emit(Note(message=f"{stats.n_bad} bad row(s) dropped; the first: {bad.where}: {bad.found}"))
    if stats.n_rows == 0:
        raise DataError("The dataset has no usable row.", where=source.describe_place(), do="Give other files.")
    if stats.max_weight == 0.0:
        raise DataError("All weights are zero.", where=f"column {source.columns.weight!r}", do="One must be positive.")
    for name, known in zip(source.columns.features, stats.categories, strict=True):
        _check_categories(0 if known is None else len(known), name, source.describe_place())
    return stats, Encoding(source.columns.features, stats.categories)
