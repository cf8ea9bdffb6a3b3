"""PPP: probabilistic partitive partitioning. Partitions that validate themselves; no k, no seed.

After the goals in Sultan, *Probabilistic partitive partitioning* (2020): the same result from any beginning, no number
of clusters given, k-means partitions validated by a Gaussian mixture, the most separable part of the data. The steps
are our own; DESIGN.md says which and why.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans import Checkpointed
from distclust.algorithms.ppp_config import PPPConfig
from distclust.algorithms.ppp_fit import PPPFit, fit_once
from distclust.algorithms.ppp_judge import (
    Clusterability,
    ColumnScore,
    Verdict,
    clusterability,
    columns_of,
    verdicts_of,
)
from distclust.engines.events import Note, StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.errors import UsageError
from distclust.ops.cells import sample_by_content
from distclust.ops.mixture import Mixture
from distclust.ops.profile import PreparedData, projected
from distclust.ops.scatter import scatter_of
from distclust.ops.validation import NearEngine, far_rows
from distclust.ops.whiten import Projection, principal_axes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SAMPLE_ROWS = 4096
SAMPLE_VALUES = 1 << 21

MIDDLE = (0.01, 0.99)
GAUSSIAN_MIDDLE = 4.6526957480816815
"""Width of the middle 98 % of a Gaussian, in standard deviations."""

FAR = 30.0
"""Rows further out than this in a column, in units of its scale, are outliers: they take no part in the fit."""

WIDE = 32
"""Rows of more columns are reduced to principal components."""


@dataclass(frozen=True)
class PPPResult:
    """A partition, and what it is worth.

    Attributes
    ----------
    fit : PPPFit
        The one that was kept.
    projection : Projection
        From centred rows to the coordinates of the fit.
    center : (d,) float64
        What is subtracted from rows first, in the coordinates of the source.
    rest : (d,) float64
        What the projection does not see of the mean of all rows, centred.
    columns : (c,) int64
        Columns of the source that take part.
    verdicts : tuple of Verdict
        One a cluster.
    scores : tuple of ColumnScore
        What each column tells of the clusters of the first fit; empty where principal components were taken.
    before, after : Clusterability
        Of all columns; of those that separate, without rows of doubtful or invalid clusters.
    far : int
        Outliers.
    n_rows : int
        Rows, outliers included.
    refit : str
        What came of the fit to the columns that separate.
    """

    fit: PPPFit
    projection: Projection
    center: Floats
    rest: Floats
    columns: Ints
    verdicts: tuple[Verdict, ...]
    scores: tuple[ColumnScore, ...]
    before: Clusterability
    after: Clusterability
    far: int
    n_rows: int
    refit: str

    @property
    def mixture(self) -> Mixture:
        """The mixture in the coordinates of the fit."""
        return self.fit.mixture

    @property
    def clusterable(self) -> bool:
        """Whether there is more than one cluster."""
        return len(self.mixture) > 1

    @property
    def separable_rows(self) -> int:
        """Rows of valid clusters that belong to them with a probability of 0.95."""
        return sum(verdict.sure_rows for verdict in self.verdicts if verdict.valid)

    @property
    def centers(self) -> Floats:
        """(k, d) means in the coordinates of the source; where the fit does not see, those of all rows."""
        return np.asarray(self.projection.backward(self.mixture.means) + self.center + self.rest)

    def report(self) -> dict[str, Any]:
        """Return all that explains the result, as plain values."""
        best = min(self.fit.path, key=lambda entry: entry.bic)
        return {
            "clusters": len(self.mixture),
            "clusterable": self.clusterable,
            "covariance_type": self.mixture.covariance_type,
            "dimensions": self.mixture.means.shape[1],
            "explained_variance": self.projection.explained,
            "principal_components": self.projection.vectors is not None and not _is_choice(self.projection),
            "searched": {"components": best.n_components, "bic": best.bic, "icl": best.icl},
            "rounds": self.fit.rounds,
            "cells": self.fit.cells,
            "outliers": self.far,
            "stability": self.fit.mean_stability,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "splits": [split.as_dict() for split in self.fit.splits],
            "path": [vars(entry) for entry in self.fit.path],
            "columns": [vars(score) for score in self.scores],
            "kept_columns": [int(column) for column in self.columns],
            "refit": self.refit,
            "separable_rows": self.separable_rows,
            "clusterability": {
                name: {key: _finite(value) for key, value in vars(found).items()}
                for name, found in (("before", self.before), ("after", self.after))
            },
        }


@dataclass(frozen=True)
class _Frame:
    """Rows in the coordinates of a fit."""

    engine: Engine
    data: PreparedData
    sample: Floats
    projection: Projection
    center: Floats
    rest: Floats
    columns: Ints


def fit_ppp(engine: Engine, data: PreparedData, config: PPPConfig, run: Checkpointed | None = None) -> PPPResult:
    """Partition the rows of a prepared dataset.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        Euclidean, in float64 and centred by the middle of its range (``center="midrange"``), so that nothing depends on
        the order of the rows.
    config : PPPConfig
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.

    Raises
    ------
    UsageError
        ``data`` was prepared otherwise.
    """
    if data.view.dtype != "float64" or data.view.unit_rows or data.view.axes is not None:
        raise UsageError("PPP needs Euclidean rows in float64, not projected.", where=data.source.describe_place())
    sample = sample_by_content(engine, data, max(64, min(SAMPLE_ROWS, SAMPLE_VALUES // data.width)))
    scale, columns = _scales(data, sample)
    frame = _framed(engine, data, sample, scale, columns, config)
    first = fit_once(frame.engine, frame.data, frame.sample, config, run)
    before = clusterability(first.mixture, frame.sample)
    scores = () if len(frame.columns) != first.data.width else columns_of(first, frame.columns)
    scores = scores if frame.projection.vectors is None or _is_choice(frame.projection) else ()
    kept, refit = first, "all columns separate the clusters, or none was asked to be left out"
    separable = np.array([score.column for score in scores if score.separable], np.int64)
    if config.features == "auto" and 0 < len(separable) < len(scores) and len(first.mixture) > 1:
        other = _framed(engine, data, sample, scale, separable, config)
        second = fit_once(other.engine, other.data, other.sample, config, run, "cells-again")
        share = f"{len(separable)} of {len(scores)} columns separate the clusters"
        said = f"stability {second.mean_stability:.3f} on them, {first.mean_stability:.3f} on all"
        if len(second.mixture) > 1 and second.mean_stability >= first.mean_stability - 0.01:
            kept, frame, refit = second, other, f"{share}; fitted again on these: {said}"
        else:
            refit = f"{share}; all were kept: {said}"
        engine.options.emit(Note(message=refit))
    verdicts = verdicts_of(kept, config)
    far = data.moments.n_rows - int(kept.counts.confusion.sum())
    return PPPResult(
        kept,
        frame.projection,
        frame.center,
        frame.rest,
        frame.columns,
        verdicts,
        scores,
        before,
        clusterability(kept.mixture, _separable(kept.mixture, verdicts, frame.sample)),
        far,
        data.moments.n_rows,
        refit,
    )


def _scales(data: PreparedData, sample: Floats) -> tuple[Floats, Ints]:
    """Return the scale of each column, and the columns that are not constant (one, where all are)."""
    low, high = np.quantile(sample, MIDDLE, axis=0)
    robust = (high - low) / GAUSSIAN_MIDDLE
    deviation = np.sqrt(data.moments.variance)
    columns = np.flatnonzero(deviation > 0).astype(np.int64)
    scale = np.where(robust > 0, robust, np.where(deviation > 0, deviation, 1.0))
    return scale, columns if len(columns) else np.zeros(1, np.int64)


def _framed(
    engine: Engine, data: PreparedData, sample: Floats, scale: Floats, columns: Ints, config: PPPConfig
) -> _Frame:
    """Return the rows centred at their medians, scaled, on some columns or principal components."""
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="scale", total_rows=data.pinned.n_rows))
    middle = np.median(sample, axis=0)
    shifted = replace(data, view=replace(data.view, center=data.offset + middle), extent=data.extent + np.abs(middle))
    centred = sample - middle
    per_unit = 1.0 / scale if config.scaling != "none" else np.full(len(scale), 1.0 / float(scale.max()))
    choice = np.eye(data.width)[:, columns]
    projection = Projection(per_unit, choice, np.ones(len(columns)), 1.0)
    if len(columns) == data.width:
        projection = Projection(per_unit, None, np.ones(data.width), 1.0)
    if len(columns) > WIDE or config.scaling == "whiten":
        projection = _principal(engine, data, per_unit, columns, config)
    rows = projected(engine, shifted, projection.axes)
    sample = projection.forward(np.ascontiguousarray(centred))
    engine.options.emit(StageEnded(stage="scale", seconds=time.perf_counter() - started))
    mean = data.moments.mean - middle
    if (rows.extent > FAR).any():
        engine = NearEngine(engine, FAR)
        near = ~far_rows(sample, FAR)
        sample, mean = sample[near], centred[near].mean(axis=0)
    rest = np.zeros(data.width)
    if projection.vectors is not None:
        rest = mean - projection.backward(projection.forward(np.ascontiguousarray(mean[None])))[0]
    return _Frame(engine, rows, np.ascontiguousarray(sample), projection, data.offset + middle, rest, columns)


def _principal(engine: Engine, data: PreparedData, per_unit: Floats, columns: Ints, config: PPPConfig) -> Projection:
    covariance = scatter_of(engine, data).covariance * np.outer(per_unit, per_unit)
    values, vectors = principal_axes(covariance[np.ix_(columns, columns)])
    kept = np.cumsum(values) / np.cumsum(values)[-1]
    m = min(len(columns), config.max_components, int(np.searchsorted(kept, config.explained_variance)) + 1)
    if len(columns) <= WIDE:  # whitened, not reduced; what has no variance is left out
        m = max(1, int((values > 1e-10 * values[0]).sum()))
    full = np.zeros((data.width, m))
    full[columns] = vectors[:, :m]
    stretch = np.ones(m) / math.sqrt(float(values[0]) or 1.0)
    if config.scaling == "whiten":
        stretch = 1.0 / np.sqrt(np.where(values[:m] > 0, values[:m], 1.0))
    engine.options.emit(Note(message=f"{m} principal components keep {kept[m - 1]:.1%} of the variance."))
    return Projection(per_unit, np.ascontiguousarray(full), stretch, float(kept[m - 1]))


def _is_choice(projection: Projection) -> bool:
    """Tell whether a projection only chooses columns."""
    return projection.vectors is not None and bool(np.isin(projection.vectors, (0.0, 1.0)).all())


def _separable(mixture: Mixture, verdicts: tuple[Verdict, ...], sample: Floats) -> Floats:
    """Return the rows of a sample that belong to valid clusters; all, where there is none."""
    shares = mixture.responsibilities(sample)
    best = shares.argmax(axis=1)
    valid = np.array([verdict.valid for verdict in verdicts])
    kept = valid[best] & (shares[np.arange(len(best)), best] >= 0.95)
    return sample[kept] if kept.sum() > 1 else sample


def _finite(value: float | bool) -> float | bool | None:
    return value if isinstance(value, bool) or math.isfinite(value) else None
