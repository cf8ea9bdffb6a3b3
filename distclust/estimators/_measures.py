"""Rows in memory as a measure takes them, and the measure that a user describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distclust.data.categories import Encoding
from distclust.engines.protocol import Engine
from distclust.errors import DataError, UsageError
from distclust.estimators._base import BaseEstimator, validate_data
from distclust.estimators._rows import RowColumns, opened
from distclust.kernels.dissimilarity import Dissimilarity, dissimilarity
from distclust.ops.measured import MeasuredData, measure_rows
from distclust.ops.profile import plan

Rows = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Metric = str | Callable[..., Any]


def valid_rows(estimator: BaseEstimator, X: Any, metric: Metric, *, reset: bool) -> Rows:
    """Return rows of a type that the metric takes.

    Raises
    ------
    DataError
        They cannot be what the metric compares.
    ValueError
        scikit-learn's own checks fail: NaN, another number of columns.
    """
    if metric == "jaccard":
        sets: Rows = validate_data(estimator, X, reset=reset, dtype=None, order="C")
        if sets.dtype not in (np.bool_, np.uint8):
            raise DataError(
                f"metric 'jaccard' compares sets: bool or uint8 (packed bits) is allowed, not {sets.dtype}.",
                where="X",
                do="Give X as booleans (X > 0).",
            )
        return sets
    rows: Rows = validate_data(
        estimator,
        X,
        reset=reset,
        dtype=np.float64 if metric in ("gower", "haversine") else [np.float64, np.float32],
        order="C",
        ensure_all_finite="allow-nan" if metric == "gower" else True,
    )
    if metric == "haversine":
        _check_places(rows)
    return rows


def measure_of(X: Rows, metric: Metric, parameters: Mapping[str, Any]) -> Dissimilarity:
    """Return the measure; for Gower's coefficient with the ranges of these rows.

    Raises
    ------
    UsageError
        Parameters that the metric does not have.
    """
    check_parameters(metric, parameters)
    if metric != "gower":
        return dissimilarity(metric)
    low, high = np.fmin.reduce(X), np.fmax.reduce(X)
    ranges = np.where(np.isnan(low), 0.0, high - low)
    ranges[_categorical(X, parameters)] = -1.0
    return dissimilarity("gower", ranges=ranges, weights=parameters.get("weights"))


def check_parameters(metric: Metric, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that the metric does not have."""
    allowed = ["categorical", "weights"] if metric == "gower" else []
    for name in parameters:
        if name not in allowed:
            what = f"metric {metric!r}" if isinstance(metric, str) else "a function"
            raise UsageError(f"metric_params has {name!r}; {what} takes {allowed or 'none'}.")


@contextmanager
def measured(
    X: Any,
    names: RowColumns,
    weights: Floats | None,
    *,
    what: tuple[Metric, Mapping[str, Any], tuple[Encoding, Floats] | None],
    where: tuple[Any, str | None, Literal["error", "drop"]],
) -> Iterator[tuple[Engine, MeasuredData]]:
    """Open an engine and rows under a measure.

    Parameters
    ----------
    X : array that `valid_rows` gave, or dataset
    names : RowColumns
    weights : (n,) float64, optional
        For arrays.
    what : tuple
        Metric, its parameters, and for ``gower`` the encoding and ranges of a fit.
    where : tuple
        Engine, staging directory, ``on_bad_rows``.
    """
    (metric, parameters, known), (engine, staging, on_bad_rows) = what, where
    if metric == "precomputed":
        raise UsageError("metric 'precomputed' takes an array in memory.")
    categorical: tuple[str, ...] | None = None
    if metric == "gower":
        if parameters.get("weights") is not None:
            raise UsageError(
                "metric_params: weights of columns are for methods that keep all rows in memory.",
                do="Give an array, and method='fasterpam' or 'clarans'.",
            )
        if isinstance(X, np.ndarray):
            (X, names), weights, categorical = _table_of(X, parameters, weights), None, ()
        else:
            categorical = tuple(np.atleast_1d(parameters.get("categorical", ())).tolist())
    elif isinstance(X, np.ndarray):
        X = compared(X)
    with opened(X, engine, names, weights=weights, staging=staging, categorical=categorical) as (opened_engine, source):
        refs = plan(opened_engine, source)
        yield (
            opened_engine,
            measure_rows(opened_engine, source, refs, metric=metric, on_bad_rows=on_bad_rows, known=known),
        )


def _table_of(X: Rows, parameters: Mapping[str, Any], weights: Floats | None) -> tuple[pa.Table, RowColumns]:
    """Return rows of numbers and codes as a table for an engine, and which columns it has; NaN becomes null."""
    names = [f"x{i}" for i in range(X.shape[1])]
    columns = {name: pa.array(X[:, i], from_pandas=True) for i, name in enumerate(names)}
    for i in _categorical(X, parameters):
        columns[names[i]] = pc.cast(columns[names[i]], pa.string())
    if weights is not None:
        columns["weight"] = pa.array(weights)
    return pa.table(columns), RowColumns(columns=names, weight_column=None if weights is None else "weight")


def compared(rows: Rows) -> Rows:
    """Return rows as measures compare them: booleans as packed bits."""
    return np.packbits(rows, axis=1) if rows.dtype == np.bool_ else rows


def doubles(rows: Rows) -> Rows:
    """Return rows as they are compared in double precision."""
    rows = compared(rows)
    return rows if rows.dtype == np.uint8 else np.ascontiguousarray(rows, dtype=np.float64)


def total(values: Floats) -> float:
    """Return the sum, one after the other: numpy's own sum chooses its order by shape and machine."""
    return float(np.cumsum(values)[-1])


def _categorical(X: Rows, parameters: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    columns = np.atleast_1d(np.asarray(parameters.get("categorical", ()), dtype=np.int64))
    wrong = columns[(columns < 0) | (columns >= X.shape[1])]
    if wrong.size:
        raise UsageError(f"metric_params: categorical has column {wrong[0]}; X has 0 to {X.shape[1] - 1}.")
    return columns


def _check_places(rows: Rows) -> None:
    if rows.shape[1] != 2:
        raise DataError(f"metric 'haversine' takes latitude and longitude, 2 columns, not {rows.shape[1]}.", where="X")
    far = np.flatnonzero((abs(rows[:, 0]) > 1.0001 * np.pi / 2) | (abs(rows[:, 1]) > 4 * np.pi))
    if len(far):
        raise DataError(
            f"latitude {rows[far[0], 0]:g} and longitude {rows[far[0], 1]:g} are no angles in radians.",
            where=f"X, row {far[0]}",
            do="Convert degrees by numpy.radians.",
        )
