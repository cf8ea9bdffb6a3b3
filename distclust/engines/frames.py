"""Frames of an engine's own kind, written once as Parquet; from then on they are datasets like any other."""

from __future__ import annotations

import importlib
from typing import Any

from distclust.errors import UsageError

FRAME_PACKAGES = ("pyspark", "dask", "dask_expr")


def frame_package(obj: object) -> str | None:
    """Return which engine's frame this is, or None."""
    package = type(obj).__module__.partition(".")[0]
    return package if package in FRAME_PACKAGES else None


def stage_frame(frame: Any, directory: str, engine: Any) -> str | list[str]:
    """Write a Spark data frame, Dask data frame or Dask array to ``directory``; return what to open.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame, dask.dataframe.DataFrame or dask.array.Array
    directory : str
        That driver and workers see.
    engine : object
        What the estimator was given: a live ``distributed.Client`` does the writing, where there is one.
    """
    package = frame_package(frame)
    if package == "pyspark":
        importlib.import_module("distclust.engines.spark").stage_spark(frame, directory)
        return directory
    if package in ("dask", "dask_expr"):
        written: list[str] = importlib.import_module("distclust.engines.dask").stage_dask(frame, directory, engine)
        return written
    raise UsageError(f"A {type(frame).__module__}.{type(frame).__qualname__} is no Spark or Dask frame.")
