"""Rows as they are, under a dissimilarity: what k-medoids works on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distclust.data.categories import Encoding
from distclust.data.refs import BlockView, PartitionRef
from distclust.data.sources import Source
from distclust.engines.protocol import Engine, Pinned
from distclust.errors import UsageError
from distclust.kernels.dissimilarity import Dissimilarity, dissimilarity
from distclust.ops.mixed import profile_mixed
from distclust.ops.profile import profile_pass
from distclust.stats.fixed import scale_for

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

MIXED_METRIC = "gower"
"""The metric of columns of numbers and categories."""

_DOUBLE = ("float64", "int32", "int64")
"""Types of a source whose values float32 cannot hold."""
_FIXED_BOUNDS = {"cosine": 2.0, "hamming": 1.0, "jaccard": 1.0, "haversine": math.pi}
_ROUNDING = 1 + 2.0**-18
"""Room for the rounding of dissimilarities that were computed in float32."""


@dataclass(frozen=True, eq=False)
class MeasuredData:
    """A dataset ready for k-medoids: not centred, not scaled, in float64 where the source has more than float32.

    Attributes
    ----------
    source : Source
    pinned : Pinned
        Partitions under ``view``.
    view : BlockView
    measure : Dissimilarity
    n_rows : int
        Good rows.
    minimum, maximum : (d,) float64
        Over the good rows; infinite for categories.
    max_weight : float
    n_bad : int
        Rows dropped.
    """

    source: Source
    pinned: Pinned
    view: BlockView
    measure: Dissimilarity
    n_rows: int
    minimum: Floats
    maximum: Floats
    max_weight: float
    n_bad: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.view.width

    @property
    def mass_bound(self) -> float:
        """An upper bound of the sum of the weights."""
        return self.n_rows * self.max_weight

    def distance_bound(self, medoids: Rows) -> float | None:
        """Return an upper bound of the dissimilarity of any row to these medoids; None for a user's function."""
        name = self.measure.name
        if name in _FIXED_BOUNDS:
            return _FIXED_BOUNDS[name]
        if name == "function":
            return None
        # Rows that a model labels later may lie outside of the rows that it was fitted on.
        low, high = np.fmin(self.minimum, np.fmin.reduce(medoids)), np.fmax(self.maximum, np.fmax.reduce(medoids))
        extent = np.where(np.isfinite(low) & np.isfinite(high), high - low, 0.0)
        if name == MIXED_METRIC:
            ranges = self.measure.ranges
            return max(1.0, float(np.max(extent / np.where(ranges > 0, ranges, np.inf)))) * _ROUNDING
        total = {
            "sqeuclidean": lambda: float(np.cumsum(extent**2)[-1]),
            "euclidean": lambda: math.sqrt(np.cumsum(extent**2)[-1]),
            "manhattan": lambda: float(np.cumsum(extent)[-1]),
            "chebyshev": lambda: float(extent.max()),
        }[name]()
        return total * _ROUNDING

    def loss_scale(self, bound: float) -> float:
        """Return the fixed-point scale of sums of w * dissimilarity, none of which is above ``bound``."""
        return scale_for(self.mass_bound * bound * _ROUNDING)


def as_measured(measure: Dissimilarity, rows: npt.NDArray[Any], *, precise: bool) -> npt.NDArray[Any]:
    """Return rows in a type that the measure takes: float64 if ``precise`` or it knows no other, else as they are."""
    if measure.name == "jaccard":
        return np.ascontiguousarray(rows, np.uint8)
    if precise or rows.dtype.name not in measure.dtypes:
        return np.ascontiguousarray(rows, np.float64)
    return rows


def measure_rows(
    engine: Engine,
    source: Source,
    refs: tuple[PartitionRef, ...],
    *,
    metric: str | Callable[..., Any],
    on_bad_rows: Literal["error", "drop"] = "error",
    known: tuple[Encoding, Floats] | None = None,
) -> MeasuredData:
    """Profile a source and bind it to a dissimilarity.

    Parameters
    ----------
    engine : Engine
    source : Source
        Opened with ``mixed=True`` for ``gower``.
    refs : tuple of PartitionRef
        The result does not depend on how the rows are cut.
    metric : str or callable
        See `distclust.kernels.dissimilarity.dissimilarity`.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN and infinity; for ``gower`` infinity and rows without any value.
    known : (Encoding, (d,) float64), optional
        For ``gower``, the encoding and the ranges of a model; default: those of the rows.

    Raises
    ------
    DataError
        Bad rows under ``"error"``, no usable row, no positive weight.
    UsageError
        The metric does not fit the rows.
    """
    if metric == MIXED_METRIC:
        return _measure_mixed(engine, source, refs, on_bad_rows, known)
    measure = dissimilarity(metric)
    _check_fit(measure, source)
    profile = profile_pass(engine, source, refs, False, on_bad_rows)
    # Bits, of type uint8, are exact in float32 blocks.
    single = source.dtype not in _DOUBLE and (_is_bits(measure) or "float32" in measure.dtypes)
    dtype: Literal["float32", "float64"] = "float32" if single else "float64"
    view = BlockView(source.columns, source.width, dtype=dtype, on_bad_rows=on_bad_rows)
    data = MeasuredData(
        source,
        engine.pin(refs, view, label="rows"),
        view,
        measure,
        profile.n_rows,
        profile.minimum,
        profile.maximum,
        profile.max_weight,
        profile.n_bad,
    )
    _check_extent(data)
    return data


def _measure_mixed(
    engine: Engine,
    source: Source,
    refs: tuple[PartitionRef, ...],
    on_bad_rows: Literal["error", "drop"],
    known: tuple[Encoding, Floats] | None,
) -> MeasuredData:
    if not source.columns.kinds:
        raise UsageError(
            "metric 'gower' compares columns of numbers and categories; these rows are vectors.",
            where=source.describe_place(),
            do="Name several columns (--columns), or choose another metric.",
        )
    stats, encoding = profile_mixed(engine, source, refs, on_bad_rows)
    extent = np.where(np.isfinite(stats.maximum), stats.maximum, 0) - np.where(
        np.isfinite(stats.minimum), stats.minimum, 0
    )
    encoding, ranges = known or (encoding, extent)
    view = BlockView(source.columns, source.width, dtype="float64", on_bad_rows=on_bad_rows, encoding=encoding)
    measure = dissimilarity(MIXED_METRIC, ranges=np.where(encoding.is_category, 0.0, ranges))
    return MeasuredData(
        source,
        engine.pin(refs, view, label="rows"),
        view,
        measure,
        stats.n_rows,
        stats.minimum,
        stats.maximum,
        stats.max_weight,
        stats.n_bad,
    )


def _is_bits(measure: Dissimilarity) -> bool:
    return measure.name == "jaccard"


def _check_fit(measure: Dissimilarity, source: Source) -> None:
    if _is_bits(measure) and source.dtype != "uint8":
        raise UsageError(
            f"metric 'jaccard' compares sets as packed bits, of type uint8; the rows have type {source.dtype}.",
            where=source.describe_place(),
            do="Pack them with numpy.packbits, or choose 'hamming'.",
        )
    if measure.name == "haversine" and source.width != 2:
        raise UsageError(
            f"metric 'haversine' compares latitude and longitude in radians; the rows have {source.width} columns.",
            where=source.describe_place(),
            do="Name two columns.",
        )


def _check_extent(data: MeasuredData) -> None:
    bound = data.distance_bound(np.stack([data.minimum, data.maximum]))
    if bound is not None and not bound <= float(np.finfo(data.view.dtype).max) / 16:
        raise UsageError(
            f"Dissimilarities reach {bound:.3g}, which would overflow {data.view.dtype}.",
            do="Scale the columns first (for example to unit variance).",
        )
